// Embeds with one library in Node: node runner.mjs PEER BUNDLE GRAPH, as runner.py does.

import { readFileSync, writeSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { WordPiece } from "./wordpiece.mjs";

const [peer, bundle, graph] = process.argv.slice(2);
const question = JSON.parse(readFileSync(0));
const json = (path) => JSON.parse(readFileSync(path));

async function transformers() {
  const { AutoModel, AutoTokenizer, env } = await import("@huggingface/transformers");
  const place = resolve(bundle);
  env.allowRemoteModels = false;
  env.localModelPath = dirname(place);
  const name = place.slice(dirname(place).length + 1);
  const dtype = graph.endsWith("model_quantized.onnx") ? "q8" : "fp32";
  const tokenizer = await AutoTokenizer.from_pretrained(name);
  const model = await AutoModel.from_pretrained(name, { dtype });
  const inputs = tokenizer(question.texts, { padding: true, truncation: true });
  return (await model(inputs)).sentence_embedding.tolist();
}

async function runtime(name) {
  const ort = await import(name);
  const web = name === "onnxruntime-web";
  if (web) ort.env.wasm.numThreads = 1;
  const session = await ort.InferenceSession.create(join(bundle, graph), {
    executionProviders: [web ? "wasm" : "cpu"],
    logSeverityLevel: 4,
  });
  const tower = json(join(bundle, "fmrt.json")).towers[0];
  const tokenizer = new WordPiece(json(join(bundle, "tokenizer.json")), tower.input.max_length);
  const rows = [];
  for (const text of question.texts) {
    const ids = tokenizer.encode(text);
    const tensor = (values) =>
      new ort.Tensor("int64", BigInt64Array.from(values, BigInt), [1, ids.length]);
    const all = {
      input_ids: tensor(ids),
      attention_mask: tensor(ids.map(() => 1)),
      token_type_ids: tensor(ids.map(() => 0)),
    };
    const feeds = Object.fromEntries(session.inputNames.map((n) => [n, all[n]]));
    rows.push(Array.from((await session.run(feeds)).sentence_embedding.data));
  }
  return rows;
}

const vectors = await (peer === "transformers.js" ? transformers() : runtime(peer));
const versions = Object.fromEntries(
  question.packages.map((name) => [name, json(join("node_modules", name, "package.json")).version]),
);
writeSync(1, JSON.stringify({ vectors, versions }));
process.exit(0);
