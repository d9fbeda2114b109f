// Embeds the corpus once, and each query while it is typed; the newest one alone is shown.

const worker = new Worker("worker.js", { type: "module" });
const waiting = new Map();
let numbers = 0;
worker.onmessage = ({ data: { number, vector, error } }) => {
  const [resolve, reject] = waiting.get(number);
  waiting.delete(number);
  if (error) reject(new Error(error));
  else resolve(vector);
};
const embed = (text) =>
  new Promise((resolve, reject) => {
    waiting.set(++numbers, [resolve, reject]);
    worker.postMessage({ number: numbers, text });
  });
const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
const query = document.querySelector("#query");
const status = document.querySelector("#status");
let newest = 0;

async function search() {
  const own = ++newest;
  const vector = await embed(query.value);
  if (own !== newest) return;
  const hits = corpus.map(({ text, vector: v }) => ({ text, score: dot(v, vector) }));
  hits.sort((a, b) => b.score - a.score);
  const lines = hits.slice(0, 5).map(({ text, score }) => {
    const line = document.createElement("li");
    line.append(text, " ");
    line.append(Object.assign(document.createElement("span"), { textContent: score.toFixed(4) }));
    return line;
  });
  document.querySelector("#hits").replaceChildren(...lines);
  document.body.dataset.query = query.value;
}

const corpus = [];
try {
  for (const text of (await (await fetch("corpus.txt")).text()).trim().split("\n")) {
    corpus.push({ text, vector: await embed(text) });
  }
  status.textContent = `${corpus.length} texts`;
  query.addEventListener("input", search);
  // A link may hold a query: index.html?q=...
  query.value = new URLSearchParams(location.search).get("q") ?? "";
  if (query.value) await search();
} catch (e) {
  status.textContent = String(e);
}
