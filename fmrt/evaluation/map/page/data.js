// What the page holds: read once, decoded when it is first asked for.
const byId = (id) => document.getElementById(id);
const stored = (name) => byId(`data-${name}`).textContent;

function bytesOf(name) {
  const text = atob(stored(name));
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

function once(make) {
  let value;
  return () => (value ??= make());
}

const about = JSON.parse(stored("about"));
const count = about.count;
const texts = JSON.parse(stored("texts"));
const places = JSON.parse(stored("places"));
const coordinates = new Float32Array(bytesOf("coordinates").buffer);
const codes = new Uint16Array(bytesOf("groups").buffer);
const groupings = about.groupings.map((grouping, i) => ({
  ...grouping,
  codes: codes.subarray(i * count, (i + 1) * count),
}));
const vectors = once(() => new Int8Array(bytesOf("vectors").buffer));
const ends = new Uint32Array(bytesOf("ends").buffer);
const media = once(() => bytesOf("media"));

const groupOf = (grouping, row) => grouping.names[grouping.codes[row]];

// The address of an item's picture or sound, or null. Few are kept, so that memory stays bounded.
const addresses = new Map();
const MOST_ADDRESSES = 400;

function mediaOf(row) {
  const start = row ? ends[row - 1] : 0;
  if (!about.mime || ends[row] === start) return null;
  if (!addresses.has(row)) {
    if (addresses.size >= MOST_ADDRESSES) {
      const [oldest, address] = addresses.entries().next().value;
      URL.revokeObjectURL(address);
      addresses.delete(oldest);
    }
    const part = media().slice(start, ends[row]);
    addresses.set(row, URL.createObjectURL(new Blob([part], { type: about.mime })));
  }
  return addresses.get(row);
}

// An element with a text, which is never read as HTML.
function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}
