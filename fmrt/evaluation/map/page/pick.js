// Which points are near a place, in a direction, or inside a line.
const CELLS = 256;
const cellOf = (value) => Math.min(CELLS - 1, Math.max(0, Math.floor(((value + 1) / 2) * CELLS)));

// Rows sorted by cell, and where each cell begins.
const cells = once(() => {
  const starts = new Uint32Array(CELLS * CELLS + 1), rows = new Uint32Array(count);
  const cell = (row) => cellOf(drawn[row * 2 + 1]) * CELLS + cellOf(drawn[row * 2]);
  for (let row = 0; row < count; row++) starts[cell(row) + 1]++;
  for (let i = 0; i < CELLS * CELLS; i++) starts[i + 1] += starts[i];
  const next = starts.slice();
  for (let row = 0; row < count; row++) rows[next[cell(row)]++] = row;
  return { starts, rows };
});

// The point nearest to a place of the screen, within some pixels; -1 for none.
function pointAt(x, y, pixels = 9) {
  const [cx, cy] = fromScreen(x, y);
  const radius = pixels / unit();
  const { starts, rows } = cells();
  let best = -1, least = radius * radius;
  for (let j = cellOf(cy - radius); j <= cellOf(cy + radius); j++) {
    const from = starts[j * CELLS + cellOf(cx - radius)];
    const to = starts[j * CELLS + cellOf(cx + radius) + 1];
    for (let i = from; i < to; i++) {
      const row = rows[i], dx = drawn[row * 2] - cx, dy = drawn[row * 2 + 1] - cy;
      const distance = dx * dx + dy * dy;
      if (distance < least) { least = distance; best = row; }
    }
  }
  return best;
}

// The nearest point in a direction: what lies aside counts as three times as far.
function pointTowards(row, right, up) {
  let best = -1, least = Infinity;
  for (let other = 0; other < count; other++) {
    const dx = drawn[other * 2] - drawn[row * 2], dy = drawn[other * 2 + 1] - drawn[row * 2 + 1];
    const along = dx * right + dy * up;
    if (along <= 0) continue;
    const aside = Math.abs(dx * up - dy * right);
    const distance = along + 3 * aside;
    if (aside <= along && distance < least) { least = distance; best = other; }
  }
  return best;
}

// Rows inside a closed line of places of the screen.
function pointsInside(line) {
  const corners = line.map(([x, y]) => fromScreen(x, y));
  const xs = corners.map((c) => c[0]), ys = corners.map((c) => c[1]);
  const box = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const found = [];
  for (let row = 0; row < count; row++) {
    const x = drawn[row * 2], y = drawn[row * 2 + 1];
    if (x < box[0] || x > box[1] || y < box[2] || y > box[3]) continue;
    let inside = false;
    for (let i = 0, j = corners.length - 1; i < corners.length; j = i++) {
      if (ys[i] > y !== ys[j] > y && x < ((xs[j] - xs[i]) * (y - ys[i])) / (ys[j] - ys[i]) + xs[i]) {
        inside = !inside;
      }
    }
    if (inside) found.push(row);
  }
  return found;
}
