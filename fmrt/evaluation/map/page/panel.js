// The list of points, their export, and the legend.
const MOST_SHOWN = 200;
const NAMESPACE = "http://www.w3.org/2000/svg";
const OUTLINES = {
  circle: "M7 1a6 6 0 1 0 .01 0z",
  triangle: "M7 1.5L13 12H1z",
  square: "M2 2h10v10H2z",
  diamond: "M7 .5L13.5 7 7 13.5.5 7z",
  plus: "M5 1h4v4h4v4H9v4H5V9H1V5h4z",
  cross: "M3 .8L7 4.8l4-4L13.2 3l-4 4 4 4-2.2 2.2-4-4-4 4L.8 11l4-4-4-4z",
  down: "M7 12.5L1 2h12z",
};
let listed = { rows: [], scores: null, title: "List" };

function outline(shape, colour) {
  const svg = document.createElementNS(NAMESPACE, "svg");
  const path = document.createElementNS(NAMESPACE, "path");
  svg.setAttribute("viewBox", "0 0 14 14");
  svg.setAttribute("aria-hidden", "true");
  path.setAttribute("d", OUTLINES[shape]);
  path.setAttribute("fill", colour);
  svg.append(path);
  return svg;
}

const groupsLine = (row) => groupings.map((grouping) => groupOf(grouping, row)).join(" · ");

function entry(row, score, onChoice) {
  const item = element("li"), button = element("button");
  button.type = "button";
  button.dataset.row = row;
  const address = about.mime?.startsWith("image") ? mediaOf(row) : null;
  if (address) {
    const picture = element("img");
    picture.src = address;
    picture.alt = "";
    button.append(picture);
  }
  const body = element("span", "body"), meta = element("span", "meta");
  meta.append(element("span", "", groupsLine(row)));
  if (score !== undefined) meta.append(element("span", "score", score.toFixed(3)));
  body.append(element("span", "text", texts[row] || "(empty)"), meta);
  button.append(body);
  button.addEventListener("click", () => onChoice(row));
  item.append(button);
  return item;
}

// Show points in the list and bring them forward on the map.
function list(found, onChoice) {
  listed = found;
  byId("found").textContent = found.title;
  const shown = found.rows.slice(0, MOST_SHOWN);
  byId("list").replaceChildren(...shown.map((row) => entry(row, found.scores?.[row], onChoice)));
  byId("list").scrollTop = 0;
  const rest = found.rows.length - shown.length;
  byId("more").textContent = rest
    ? `${rest.toLocaleString("en")} more are not shown here; CSV and JSON hold all.` : "";
  for (const id of ["csv", "json", "clear"]) byId(id).disabled = !found.rows.length;
  choose(found.rows);
}

function records() {
  return listed.rows.map((row) => ({
    row,
    place: places[row],
    ...Object.fromEntries(groupings.map((grouping) => [grouping.name, groupOf(grouping, row)])),
    x: coordinates[row * 2],
    y: coordinates[row * 2 + 1],
    ...(listed.scores ? { similarity: listed.scores[row] } : {}),
    text: texts[row],
  }));
}

function asCsv(found) {
  const quoted = (value) => (/[",\r\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : value);
  const line = (values) => values.map(quoted).join(",");
  return [Object.keys(found[0]), ...found.map(Object.values)].map(line).join("\r\n") + "\r\n";
}

function download(name, type, text) {
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// The groups of a grouping, each a switch; several may be on.
function legend(grouping, palette, onChange) {
  const on = new Set();
  const buttons = grouping.names.map((name, group) => {
    const item = element("li"), button = element("button");
    const [colour, shape] = grouping.marks[group];
    button.type = "button";
    button.title = name;
    button.setAttribute("aria-pressed", "false");
    button.append(
      outline(about.shapes[shape], palette[colour]),
      element("span", "name", name),
      element("span", "count", grouping.counts[group].toLocaleString("en")),
    );
    button.addEventListener("click", () => {
      if (!on.delete(group)) on.add(group);
      button.setAttribute("aria-pressed", on.has(group));
      onChange(on);
    });
    item.append(button);
    return item;
  });
  byId("legend").replaceChildren(...buttons);
}
