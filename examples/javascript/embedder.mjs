// Embeds texts with the portable graph of a bundle, in Node or in a browser.

import { WordPiece } from "./wordpiece.mjs";

export class Embedder {
  /** @param {object} ort onnxruntime-web
   *  @param {(name: string) => Promise<Uint8Array>} read gives a file of the bundle
   *  @param {string?} name a variant that any provider runs; default the first */
  static async open(ort, read, name) {
    const json = async (file) => JSON.parse(new TextDecoder().decode(await read(file)));
    const manifest = await json("fmrt.json");
    const portable = manifest.variants.filter((v) => v.modality === "text" && v.provider === "any");
    const variant = portable.find((v) => !name || v.name === name);
    if (!variant) throw new Error(`no variant ${name ?? "for texts"}: ${portable.map((v) => v.name)}`);
    const tower = manifest.towers.find((t) => t.modality === "text");
    const folder = variant.file.slice(0, variant.file.lastIndexOf("/") + 1);
    const externalData = await Promise.all(
      Object.keys(variant.external).map(async (file) => ({
        path: file.slice(folder.length),
        data: await read(file),
      })),
    );
    const session = await ort.InferenceSession.create(await read(variant.file), {
      executionProviders: ["wasm"],
      externalData,
    });
    const tokenizer = new WordPiece(await json("tokenizer.json"), tower.input.max_length);
    return new Embedder(ort, session, tokenizer, tower);
  }

  constructor(ort, session, tokenizer, tower) {
    Object.assign(this, { ort, session, tokenizer, tower });
  }

  /** A text's vector, Float32Array [dim]. */
  async embed(text) {
    const ids = this.tokenizer.encode(text);
    const tensor = (values) =>
      new this.ort.Tensor("int64", BigInt64Array.from(values, BigInt), [1, ids.length]);
    const all = {
      input_ids: tensor(ids),
      attention_mask: tensor(ids.map(() => 1)),
      token_type_ids: tensor(ids.map(() => 0)),
    };
    const feeds = Object.fromEntries(this.session.inputNames.map((n) => [n, all[n]]));
    const output = this.tower.embedding_output;
    return (await this.session.run(feeds, [output]))[output].data;
  }
}
