// Finds points by words and by likeness of the stored vectors.
const MOST_LISTED_BY_LIKENESS = 200;
const MOST_OF_A_WORD = 2000;

const lengths = once(() => {
  const kept = about.kept, all = vectors(), found = new Float32Array(count);
  for (let row = 0; row < count; row++) {
    let sum = 0;
    for (let i = row * kept; i < (row + 1) * kept; i++) sum += all[i] * all[i];
    found[row] = Math.sqrt(sum) || 1;
  }
  return found;
});

// What is searched of each point, in small letters: its text and the names of its groups.
const haystack = once(() => {
  const named = groupings.filter((grouping) => grouping.name !== "cluster");
  return texts.map((text, row) =>
    [text, ...named.map((grouping) => groupOf(grouping, row))].join("\n").toLowerCase(),
  );
});

// The sum of rows' vectors, each of length 1 and times a weight.
function sumOf(rows, weight, into = new Float32Array(about.kept)) {
  const kept = about.kept, all = vectors(), of = lengths();
  for (const row of rows) {
    const by = weight / (of[row] * rows.length);
    for (let i = 0; i < kept; i++) into[i] += all[row * kept + i] * by;
  }
  return into;
}

// The cosine of each row with a vector, of which some dimensions may be missing.
function likeness(vector, length = Math.hypot(...vector) || 1) {
  const kept = about.kept, all = vectors(), of = lengths(), found = new Float32Array(count);
  for (let row = 0; row < count; row++) {
    let sum = 0;
    for (let i = 0, j = row * kept; i < kept; i++, j++) sum += vector[i] * all[j];
    found[row] = sum / (of[row] * length);
  }
  return found;
}

function sorted(rows, scores) {
  return rows.sort((a, b) => scores[b] - scores[a] || a - b);
}

// The rows most like one, that one first.
function like(row) {
  const scores = likeness(sumOf([row], 1));
  const others = Array.from({ length: count }, (_, i) => i).filter((i) => i !== row);
  const rows = [row, ...sorted(others, scores).slice(0, MOST_LISTED_BY_LIKENESS)];
  return { rows, scores, title: `${rows.length - 1} most like ${places[row]}` };
}

function containing(part) {
  const found = [];
  haystack().forEach((text, row) => {
    if (text.includes(part)) found.push(row);
  });
  return found;
}

// Points with the query in their text, and after them those whose vectors are most like its own or,
// without one, like what its words stand for.
function search(query, vector = null) {
  const wanted = query.trim().toLowerCase();
  const exact = containing(wanted);
  const near = vector ?? meaning(wanted);
  if (!near) return { rows: [], scores: null, title: "Nothing holds any of these words" };
  const scores = vector ? likeness(vector, 1) : likeness(near);
  const holds = new Set(exact);
  const rest = Array.from({ length: count }, (_, i) => i).filter((row) => !holds.has(row));
  const like = sorted(rest, scores).slice(0, MOST_LISTED_BY_LIKENESS);
  const whom = vector ? "nearest to the query" : "like them";
  const title = `${exact.length.toLocaleString("en")} with these words, ${like.length} ${whom}`;
  return { rows: [...sorted(exact, scores), ...like], scores, title, exact: exact.length };
}

// The mean vector of the texts that hold each word, rare words more; null where no text holds any.
function meaning(wanted) {
  const words = [...new Set(wanted.match(/[\p{L}\p{N}_]+/gu) ?? [])];
  const sum = new Float32Array(about.kept);
  let known = 0;
  for (const word of words.length ? words : [wanted]) {
    const rows = containing(word);
    if (!rows.length) continue;
    known++;
    const step = Math.ceil(rows.length / MOST_OF_A_WORD);
    sumOf(rows.filter((_, i) => i % step === 0), Math.log(1 + count / rows.length), sum);
  }
  return known ? sum : null;
}
