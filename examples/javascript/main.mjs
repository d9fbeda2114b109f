// node main.mjs BUNDLE [VARIANT] < texts: a line of JSON for each text, with its token ids and vector.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import * as ort from "onnxruntime-web";
import { Embedder } from "./embedder.mjs";

const [bundle, variant] = process.argv.slice(2);
if (!bundle) {
  console.error("give a bundle's directory: node main.mjs BUNDLE [VARIANT] < texts.txt");
  process.exit(2);
}
ort.env.wasm.numThreads = 1;
const embedder = await Embedder.open(ort, (name) => readFile(join(bundle, name)), variant);
for await (const line of createInterface({ input: process.stdin })) {
  const ids = embedder.tokenizer.encode(line);
  console.log(JSON.stringify({ ids, vector: Array.from(await embedder.embed(line)) }));
}
