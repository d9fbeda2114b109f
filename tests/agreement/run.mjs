// node run.mjs GRAPH IDS VECTORS: embeds in WebAssembly, each text alone, on one thread.
// IDS is JSON, a list of token ids for each text. VECTORS are float32 in a row.
import * as ort from "onnxruntime-web";
import fs from "node:fs";

ort.env.wasm.numThreads = 1;
const [graph, ids, out] = process.argv.slice(2);
const session = await ort.InferenceSession.create(graph, { executionProviders: ["wasm"] });
const rows = [];
for (const row of JSON.parse(fs.readFileSync(ids))) {
  const tensor = (values) =>
    new ort.Tensor("int64", BigInt64Array.from(values, BigInt), [1, row.length]);
  const feeds = {};
  for (const name of session.inputNames) feeds[name] = tensor(row.map(() => 0));
  feeds.input_ids = tensor(row);
  feeds.attention_mask = tensor(row.map(() => 1));
  const found = (await session.run(feeds)).sentence_embedding;
  rows.push(Buffer.from(Float32Array.from(found.data).buffer));
}
fs.writeFileSync(out, Buffer.concat(rows));
