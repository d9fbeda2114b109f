// Puts the parts together: pointer, keys, theme, and what is in focus.
const state = { grouping: groupings[0], focus: -1, mode: "pan", line: null, near: false, colours: [] };
const overlay = byId("overlay").getContext("2d");
const card = byId("card");
const sound = new Audio();

const say = (text) => { byId("status").textContent = text; };
const isDark = () => document.documentElement.dataset.theme === "dark";
const palette = () => (isDark() ? about.dark : about.light);

function recolour() {
  paint(state.grouping, palette(), state.colours[1]);
  legend(state.grouping, palette(), (on) => {
    const rows = [];
    for (let row = 0; row < count; row++) if (on.has(state.grouping.codes[row])) rows.push(row);
    const names = [...on].map((group) => state.grouping.names[group]).join(", ");
    show(rows.length ? { rows, scores: null, title: `${rows.length.toLocaleString("en")} in ${names}` } : null);
  });
}

function show(found) {
  list(found ?? { rows: [], scores: null, title: "List" }, (row) => { focus(row, true); reveal(row); });
  say(found ? found.title : hint());
}

const hint = () =>
  `${count.toLocaleString("en")} points. Point at one to see it, click it to list what is like it, draw a lasso to list an area.`;

function focus(row, keep = false) {
  if (row === state.focus) { state.near = keep || state.near; return; }
  state.focus = row;
  state.near = keep;
  for (const button of byId("list").querySelectorAll("button")) {
    button.classList.toggle("focus", Number(button.dataset.row) === row);
  }
  if (row >= 0) {
    fillCard(row);
    if (about.mime?.startsWith("audio") && byId("play").checked && mediaOf(row)) {
      sound.src = mediaOf(row);
      sound.play().catch(() => say("Click the map once: then the browser lets sounds play."));
    }
    if (keep) say(`${texts[row]} (${groupsLine(row)})`);
  } else {
    sound.pause();
  }
  mark();
}

function fillCard(row) {
  const parts = [];
  if (about.mime?.startsWith("image") && mediaOf(row)) {
    const picture = element("img");
    picture.src = mediaOf(row);
    picture.alt = texts[row];
    parts.push(picture);
  }
  const meta = groupings.map((grouping) => `${grouping.name}: ${groupOf(grouping, row)}`);
  parts.push(element("div", "text", texts[row]), element("div", "meta", [places[row], ...meta].join(" · ")));
  card.replaceChildren(...parts);
}

function placeCard(x, y) {
  const box = card.getBoundingClientRect();
  const left = x + 16 + box.width > view.width ? x - 16 - box.width : x + 16;
  const top = Math.min(y + 12, view.height - box.height - 8);
  card.style.left = `${Math.max(4, left)}px`;
  card.style.top = `${Math.max(4, top)}px`;
}

function ringAt(x, y, colour) {
  overlay.beginPath();
  overlay.arc(x, y, Math.max(7, pointSize() * 0.9), 0, 2 * Math.PI);
  overlay.lineWidth = 2.5;
  overlay.strokeStyle = colour;
  overlay.stroke();
}

const middles = new Map();
// The middle of each group: where the median of each axis is, of at most 500 of its points.
function middlesOf(grouping) {
  if (!middles.has(grouping.name)) {
    const step = grouping.counts.map((n) => Math.max(1, Math.ceil(n / 500)));
    const seen = grouping.names.map(() => 0), rows = grouping.names.map(() => []);
    grouping.codes.forEach((group, row) => { if (seen[group]++ % step[group] === 0) rows[group].push(row); });
    const median = (of, axis) => {
      const values = of.map((row) => drawn[row * 2 + axis]).sort((a, b) => a - b);
      return values[values.length >> 1] ?? 0;
    };
    middles.set(grouping.name, rows.map((of) => [median(of, 0), median(of, 1)]));
  }
  return middles.get(grouping.name);
}

function drawNames(ink, ground) {
  overlay.font = "600 13px system-ui, sans-serif";
  overlay.textAlign = "center";
  overlay.lineJoin = "round";
  overlay.lineWidth = 4;
  middlesOf(state.grouping).slice(0, 60).forEach(([mx, my], group) => {
    const name = state.grouping.names[group], [x, y] = toScreen(mx, my);
    const text = name.length > 28 ? `${name.slice(0, 27)}…` : name;
    overlay.strokeStyle = ground;
    overlay.strokeText(text, x, y + 4);
    overlay.fillStyle = ink;
    overlay.fillText(text, x, y + 4);
  });
}

afterDrawing.push(() => {
  const [ink, ground, accent] = state.colours;
  overlay.setTransform(1, 0, 0, 1, 0, 0);
  overlay.clearRect(0, 0, overlay.canvas.width, overlay.canvas.height);
  overlay.setTransform(view.ratio, 0, 0, view.ratio, view.pad[0] * view.ratio, view.pad[1] * view.ratio);
  if (byId("names").checked) drawNames(ink, ground);
  if (state.line) {
    overlay.beginPath();
    state.line.forEach(([x, y], i) => (i ? overlay.lineTo(x, y) : overlay.moveTo(x, y)));
    overlay.closePath();
    overlay.globalAlpha = 0.12;
    overlay.fillStyle = accent;
    overlay.fill();
    overlay.globalAlpha = 1;
    overlay.lineWidth = 1.5;
    overlay.strokeStyle = accent;
    overlay.stroke();
  }
  card.hidden = state.focus < 0;
  if (state.focus >= 0) {
    const [x, y] = toScreen(drawn[state.focus * 2], drawn[state.focus * 2 + 1]);
    ringAt(x, y, ink);
  }
});
afterMoving.push(() => {
  if (state.focus >= 0) placeCard(...toScreen(drawn[state.focus * 2], drawn[state.focus * 2 + 1]));
});

function setMode(mode) {
  state.mode = mode;
  canvas.classList.toggle("lasso", mode === "lasso");
  for (const id of ["pan", "lasso"]) byId(id).setAttribute("aria-pressed", id === mode);
  say(mode === "lasso" ? "Draw around points to list them." : hint());
}

const at = (event) => {
  const box = byId("stage").getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
};
// Pointers that are down, by id: with two, the map zooms.
const down = new Map();
const isHeld = () => down.size > 0;
let travelled = 0;

canvas.addEventListener("pointerdown", (event) => {
  canvas.focus({ preventScroll: true });
  try { canvas.setPointerCapture(event.pointerId); } catch { /* of an event that a script made */ }
  down.set(event.pointerId, at(event));
  travelled = 0;
  if (state.mode === "lasso" || event.shiftKey) state.line = [at(event)];
});

canvas.addEventListener("pointermove", (event) => {
  const [x, y] = at(event), before = down.get(event.pointerId);
  if (!before) return focus(pointAt(x, y));
  travelled += Math.abs(x - before[0]) + Math.abs(y - before[1]);
  down.set(event.pointerId, [x, y]);
  if (state.line) {
    state.line.push([x, y]);
    return mark();
  }
  canvas.classList.add("dragging");
  if (down.size === 2) {
    const other = [...down].find(([id]) => id !== event.pointerId)[1];
    const apart = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]) || 1;
    zoomAt(apart([x, y]) / apart(before), other[0], other[1]);
  } else {
    moveBy(x - before[0], y - before[1]);
  }
});

function lifted(event) {
  if (!down.delete(event.pointerId)) return;
  canvas.classList.remove("dragging");
  const line = state.line;
  state.line = null;
  if (line && line.length > 2) {
    const rows = pointsInside(line);
    focus(-1);
    show(rows.length ? { rows, scores: null, title: `${rows.length.toLocaleString("en")} in the lasso` } : null);
    if (!rows.length) say("There is no point inside the lasso.");
  } else if (travelled < 4 && event.type === "pointerup") {
    const row = pointAt(...at(event));
    if (row >= 0) { focus(row, true); show(like(row)); } else focus(-1);
  }
  redraw();
}
canvas.addEventListener("pointerup", lifted);
canvas.addEventListener("pointercancel", lifted);
canvas.addEventListener("pointerleave", () => { if (!down.size && !state.near) focus(-1); });
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoomAt(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)), ...at(event));
}, { passive: false });

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

function go(right, up) {
  let row = state.focus;
  if (row < 0) {
    row = pointAt(view.width / 2, view.height / 2, Math.max(view.width, view.height));
  } else {
    row = pointTowards(row, right, up);
  }
  if (row >= 0) { focus(row, true); reveal(row); }
}

const KEYS = {
  "+": () => zoomAt(1.4), "=": () => zoomAt(1.4), "-": () => zoomAt(1 / 1.4), "0": fit,
  l: () => setMode("lasso"), p: () => setMode("pan"),
  Enter: () => { if (state.focus >= 0) show(like(state.focus)); },
  " ": () => {
    if (state.focus < 0) return;
    const rows = listed.rows.includes(state.focus)
      ? listed.rows.filter((row) => row !== state.focus) : [...listed.rows, state.focus];
    show({ rows, scores: null, title: `${rows.length} chosen` });
  },
};

canvas.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const arrow = ARROWS[event.key], action = KEYS[event.key];
  if (!arrow && !action) return;
  event.preventDefault();
  if (arrow && event.shiftKey) moveBy(-arrow[0] * 60, arrow[1] * 60);
  else if (arrow) go(...arrow);
  else action();
});

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches?.("input[type=search], select");
  if (event.key === "Escape") { focus(-1); state.line = null; mark(); byId("query").value = ""; show(null); }
  if (event.key === "/" && !typing) { event.preventDefault(); byId("query").focus(); }
});

let pending;
function searchNow() {
  const query = byId("query").value;
  show(query.trim() ? search(query) : null);
  if (query.trim() && about.query) searchByModel(query);
}

async function searchByModel(query) {
  const current = () => byId("query").value === query;
  say("The model embeds the query…");
  try {
    const vector = await embedded(query);
    if (current()) show(search(query, vector));
  } catch (e) {
    if (current()) say(`The model cannot be used: ${e.message}.`);
  }
}
byId("query").addEventListener("input", () => {
  clearTimeout(pending);
  pending = setTimeout(searchNow, 180);
});
byId("search").addEventListener("submit", (event) => {
  event.preventDefault();
  clearTimeout(pending);
  searchNow();
});

byId("pan").addEventListener("click", () => setMode("pan"));
byId("lasso").addEventListener("click", () => setMode("lasso"));
byId("in").addEventListener("click", () => zoomAt(1.5));
byId("out").addEventListener("click", () => zoomAt(1 / 1.5));
byId("fit").addEventListener("click", fit);
byId("names").addEventListener("change", mark);
byId("clear").addEventListener("click", () => { byId("query").value = ""; recolour(); show(null); });
byId("csv").addEventListener("click", () => download("points.csv", "text/csv", asCsv(records())));
byId("json").addEventListener("click", () =>
  download("points.json", "application/json", JSON.stringify(records(), null, 2)));
byId("colour").addEventListener("change", (event) => {
  state.grouping = groupings[event.target.selectedIndex];
  recolour();
  show(null);
});

function setTheme(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  const style = getComputedStyle(document.documentElement);
  state.colours = ["--ink", "--ground", "--accent"].map((name) => style.getPropertyValue(name).trim());
  if (uniforms || !gl) recolour();
}
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
prefersDark.addEventListener("change", () => setTheme(prefersDark.matches));
byId("theme").addEventListener("click", () => setTheme(!isDark()));

function start() {
  byId("title").textContent = about.title;
  document.title = `${about.title}: map of embeddings`;
  byId("subtitle").textContent = `${count.toLocaleString("en")} items, embedded by ${about.model}`;
  byId("axis-x").textContent = about.axes[0];
  byId("axis-y").textContent = about.axes[1];
  canvas.setAttribute("aria-label", `${count} points. ${about.axes.join(", ")}`);
  byId("query").placeholder = about.modality === "text" ? "words, or part of a text" : "part of a name or label";
  byId("how").textContent = about.kept < about.dim
    ? `Likeness is by ${about.kept} of ${about.dim} dimensions, in 8 bits.` : "Likeness is by vectors in 8 bits.";
  if (about.query) {
    byId("how").append(` Queries are embedded by ${about.query.name}.`);
    byId("query").addEventListener("focus", model, { once: true });
  }
  byId("colour").append(...groupings.map((grouping) => element("option", "", grouping.name)));
  byId("names").checked = state.grouping.names.length <= 12;
  byId("sounds").hidden = !about.mime?.startsWith("audio");
  byId("notes").hidden = !about.notes.length;
  byId("notes").querySelector("ul").append(...about.notes.map((note) => element("li", "", note)));
  setTheme(prefersDark.matches);
  if (gl) {
    startDrawing();
  } else {
    byId("trouble").textContent = "This browser has no WebGL: the map cannot be drawn. Search and lists work.";
    byId("trouble").hidden = false;
  }
  recolour();
  say(hint());
  new ResizeObserver(resize).observe(byId("stage"));
  canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
  canvas.addEventListener("webglcontextrestored", () => { startDrawing(); recolour(); });
  resize();
  document.documentElement.dataset.ready = "yes";
}
start();
