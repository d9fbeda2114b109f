// Draws the points with WebGL, and holds where the map is looked at from.
const VERTEX = `
attribute vec2 place;
attribute vec4 look;   // red, green, blue, shape
attribute float state;
uniform vec2 scale, shift;
uniform float size, pass, dimming;
varying vec4 tint;
varying float shape;
void main() {
  bool chosen = state > 0.5;
  gl_Position = vec4(place * scale + shift, 0.0, 1.0);
  if (chosen != (pass > 0.5)) gl_Position = vec4(2.0, 2.0, 2.0, 1.0);
  gl_PointSize = chosen ? size * 1.35 + 1.0 : size;
  tint = vec4(look.rgb, chosen ? 1.0 : dimming);
  shape = size < 4.5 ? 0.0 : floor(look.a * 255.0 + 0.5); // smaller ones have no form to see
}`;
const FRAGMENT = `
precision mediump float;
varying vec4 tint;
varying float shape;
uniform float soft;
// Below 0 inside.
float distance_to(vec2 p) {
  vec2 q = abs(p);
  if (shape < 0.5) return length(p) - 0.9;
  if (shape < 1.5) return max(q.x * 0.87 - p.y * 0.5, p.y) - 0.55;
  if (shape < 2.5) return max(q.x, q.y) - 0.78;
  if (shape < 3.5) return (q.x + q.y) * 0.71 - 0.7;
  if (shape < 4.5) return max(min(q.x, q.y) - 0.32, max(q.x, q.y) - 0.95);
  if (shape < 5.5) {
    vec2 r = vec2(abs(p.x + p.y), abs(p.x - p.y)) * 0.71;
    return max(min(r.x, r.y) - 0.32, max(r.x, r.y) - 0.98);
  }
  return max(q.x * 0.87 + p.y * 0.5, -p.y) - 0.55;
}
void main() {
  float inside = clamp(0.5 - distance_to(gl_PointCoord * 2.0 - 1.0) / soft, 0.0, 1.0);
  if (inside < 0.05) discard;
  float opacity = tint.a * inside;
  gl_FragColor = vec4(tint.rgb * opacity, opacity);
}`;
const PLAIN = 0, CHOSEN = 1;
// From so many points on, the map is drawn with a margin, and moves as an image until it rests: so it
// is fluent without a graphics card too.
const MANY = 20000;
const MARGIN = 0.25;
const REST = 140; // milliseconds
const MOST_ZOOM = 2000;

const canvas = byId("points");
// Opaque: what is behind it need not be mixed in for each frame.
const gl = canvas.getContext("webgl", { antialias: false, alpha: false });

// Coordinates as they are drawn: in the middle of the map, the longer side from -1 to 1.
const drawn = new Float32Array(coordinates.length);
const middle = [0, 0];
let reach = 0;
for (let axis = 0; axis < 2; axis++) {
  let low = Infinity, high = -Infinity;
  for (let i = axis; i < coordinates.length; i += 2) {
    if (coordinates[i] < low) low = coordinates[i];
    if (coordinates[i] > high) high = coordinates[i];
  }
  middle[axis] = (low + high) / 2;
  reach = Math.max(reach, (high - low) / 2);
}
reach = reach || 1;
for (let i = 0; i < coordinates.length; i++) drawn[i] = (coordinates[i] - middle[i % 2]) / reach;

const view = { x: 0, y: 0, zoom: 1, width: 1, height: 1, ratio: 1, pad: [0, 0] };
// Pixels that a unit of the drawn coordinates takes.
const unit = () => (Math.min(view.width, view.height) / 2) * 0.92 * view.zoom;
const toScreen = (x, y) => [
  view.width / 2 + (x - view.x) * unit(),
  view.height / 2 - (y - view.y) * unit(),
];
const fromScreen = (x, y) => [
  view.x + (x - view.width / 2) / unit(),
  view.y - (y - view.height / 2) / unit(),
];

const looks = new Uint8Array(count * 4);
const states = new Uint8Array(count);
let anyChosen = false;
let ground = [1, 1, 1]; // red, green and blue, from 0 to 1
let uniforms, buffers, restTimer = 0;

function compiled(kind, text) {
  const shader = gl.createShader(kind);
  gl.shaderSource(shader, text);
  gl.compileShader(shader);
  return shader;
}

function attribute(place, size, type, normalized, values) {
  const buffer = gl.createBuffer();
  gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
  gl.bufferData(gl.ARRAY_BUFFER, values, gl.DYNAMIC_DRAW);
  gl.enableVertexAttribArray(place);
  gl.vertexAttribPointer(place, size, type, normalized, 0, 0);
  return buffer;
}

function startDrawing() {
  const program = gl.createProgram();
  gl.attachShader(program, compiled(gl.VERTEX_SHADER, VERTEX));
  gl.attachShader(program, compiled(gl.FRAGMENT_SHADER, FRAGMENT));
  ["place", "look", "state"].forEach((name, place) => gl.bindAttribLocation(program, place, name));
  gl.linkProgram(program);
  gl.useProgram(program);
  const names = ["scale", "shift", "size", "pass", "dimming", "soft"];
  uniforms = Object.fromEntries(names.map((name) => [name, gl.getUniformLocation(program, name)]));
  attribute(0, 2, gl.FLOAT, false, drawn);
  buffers = {
    looks: attribute(1, 4, gl.UNSIGNED_BYTE, true, looks),
    states: attribute(2, 1, gl.UNSIGNED_BYTE, false, states),
  };
  gl.enable(gl.BLEND);
  gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
}

function upload(name, values) {
  if (!gl) return;
  gl.bindBuffer(gl.ARRAY_BUFFER, buffers[name]);
  gl.bufferSubData(gl.ARRAY_BUFFER, 0, values);
}

const bytes = (colour) => [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));

// The ground, and colours and shapes of a grouping's points.
function paint(grouping, palette, below) {
  const colours = palette.map(bytes);
  ground = bytes(below).map((value) => value / 255);
  for (let row = 0; row < count; row++) {
    const [colour, shape] = grouping.marks[grouping.codes[row]];
    looks.set(colours[colour], row * 4);
    looks[row * 4 + 3] = shape;
  }
  upload("looks", looks);
  redraw();
}

// Bring some points forward; the others are dimmed while there are any.
function choose(rows) {
  states.fill(PLAIN);
  for (const row of rows) states[row] = CHOSEN;
  anyChosen = rows.length > 0;
  upload("states", states);
  redraw();
}

function pointSize() {
  const size = Math.min(12, Math.max(3, 60 / Math.pow(count, 0.27)));
  return size * Math.min(2.6, Math.pow(view.zoom, 0.3));
}

function draw() {
  if (!gl) return;
  const sx = (2 * unit() * view.ratio) / canvas.width, sy = (2 * unit() * view.ratio) / canvas.height;
  const size = pointSize() * view.ratio;
  gl.viewport(0, 0, canvas.width, canvas.height);
  gl.clearColor(...ground, 1);
  gl.clear(gl.COLOR_BUFFER_BIT);
  gl.uniform2f(uniforms.scale, sx, sy);
  gl.uniform2f(uniforms.shift, -view.x * sx, -view.y * sy);
  gl.uniform1f(uniforms.size, size);
  gl.uniform1f(uniforms.soft, 3 / size);
  gl.uniform1f(uniforms.dimming, anyChosen ? 0.16 : 0.85);
  for (const pass of anyChosen ? [0, 1] : [0]) {
    gl.uniform1f(uniforms.pass, pass);
    gl.drawArrays(gl.POINTS, 0, count);
  }
}

// Where the map was looked at from when it was drawn.
let shown = { ...view };
const layers = [canvas, byId("overlay")];
const afterDrawing = [], afterMoving = [];
let frame = 0, anew = true, marked = false;

// Ask for a frame: with the points drawn anew, with what is over them drawn anew, or with what was
// drawn moved.
function redraw() {
  anew = true;
  frame ||= requestAnimationFrame(showFrame);
}

function mark() {
  marked = true;
  frame ||= requestAnimationFrame(showFrame);
}

// A map that is held does not rest: to draw it takes longer than a frame, and would stop it.
function moved() {
  if (count < MANY) return redraw();
  clearTimeout(restTimer);
  restTimer = setTimeout(() => { if (!isHeld()) redraw(); }, REST);
  frame ||= requestAnimationFrame(showFrame);
}

function showFrame() {
  frame = 0;
  const still = view.x === shown.x && view.y === shown.y && view.zoom === shown.zoom;
  if (anew || !covers() || (marked && !still)) {
    shown = { ...view };
    draw();
    marked = true;
  }
  if (marked) for (const then of afterDrawing) then();
  anew = marked = false;
  const [x, y] = offset();
  const transform = `translate(${x}px, ${y}px) scale(${view.zoom / shown.zoom})`;
  for (const layer of layers) layer.style.transform = transform;
  for (const then of afterMoving) then();
}

// Pixels by which the middle of what was drawn is off the middle of the map: whole ones of the screen,
// so that moving is copying.
function offset() {
  const [x, y] = toScreen(shown.x, shown.y), ratio = window.devicePixelRatio || 1;
  return [x - view.width / 2, y - view.height / 2].map((n) => Math.round(n * ratio) / ratio);
}

// Whether what was drawn holds all that is in sight: all of the map, or all points.
function covers() {
  const scale = view.zoom / shown.zoom, off = offset(), of = [shown.x, shown.y];
  return [view.width, view.height].every((size, axis) => {
    const half = size / 2 + view.pad[axis];
    const all = (1.02 + Math.abs(of[axis])) * (unit() / scale) <= half;
    return all || size / 2 + Math.abs(off[axis]) <= half * scale + 1e-6;
  });
}

function resize() {
  const box = byId("stage").getBoundingClientRect();
  const size = [Math.max(1, box.width), Math.max(1, box.height)];
  const pad = size.map((n) => (count < MANY ? 0 : Math.floor(n * MARGIN)));
  const ratio = Math.min(2, window.devicePixelRatio || 1);
  Object.assign(view, { width: size[0], height: size[1], ratio, pad });
  for (const layer of layers) {
    layer.width = Math.round((size[0] + 2 * pad[0]) * ratio);
    layer.height = Math.round((size[1] + 2 * pad[1]) * ratio);
    Object.assign(layer.style, {
      left: `${-pad[0]}px`, top: `${-pad[1]}px`,
      width: `${size[0] + 2 * pad[0]}px`, height: `${size[1] + 2 * pad[1]}px`,
    });
  }
  anew = true;
  cancelAnimationFrame(frame);
  showFrame(); // at once: a canvas that changes its size is empty
}

function moveBy(dx, dy) {
  view.x = Math.min(1.5, Math.max(-1.5, view.x - dx / unit()));
  view.y = Math.min(1.5, Math.max(-1.5, view.y + dy / unit()));
  moved();
}

// Zoom so that what is under a place of the screen stays there.
function zoomAt(factor, x = view.width / 2, y = view.height / 2) {
  const [before, above] = fromScreen(x, y);
  view.zoom = Math.min(MOST_ZOOM, Math.max(0.5, view.zoom * factor));
  const [after, below] = fromScreen(x, y);
  view.x += before - after;
  view.y += above - below;
  moved();
}

function fit() {
  Object.assign(view, { x: 0, y: 0, zoom: 1 });
  redraw();
}

// Move the map, where a point is not in sight.
function reveal(row) {
  const [x, y] = toScreen(drawn[row * 2], drawn[row * 2 + 1]);
  if (x < 40 || y < 40 || x > view.width - 40 || y > view.height - 40) {
    view.x = drawn[row * 2];
    view.y = drawn[row * 2 + 1];
  }
  redraw();
}
