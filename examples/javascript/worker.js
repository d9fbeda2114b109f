// Embeds in a worker, so that the page stays responsive; all files come from the page's own server.

import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.min.mjs";
import { Embedder } from "./embedder.mjs";

ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = new URL("./node_modules/onnxruntime-web/dist/", import.meta.url).href;
const read = async (name) => {
  const answer = await fetch(`bundle/${name}`);
  if (!answer.ok) throw new Error(`bundle/${name}: ${answer.status}`);
  return new Uint8Array(await answer.arrayBuffer());
};
const opened = Embedder.open(ort, read);

onmessage = async ({ data: { number, text } }) => {
  try {
    postMessage({ number, vector: await (await opened).embed(text) });
  } catch (e) {
    postMessage({ number, error: String(e) });
  }
};
