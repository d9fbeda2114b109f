// Embeds queries with the model that is in the page.
let opened;

async function unpacked(text) {
  const packed = atob(text), bytes = new Uint8Array(packed.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = packed.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function open({ about, parts }) {
  const data = {};
  for (const [name, text] of Object.entries(parts)) data[name] = await unpacked(text);
  const program = (name) =>
    import(URL.createObjectURL(new Blob([data[name]], { type: "text/javascript" })));
  const [ort, { Tokenizer }] = await Promise.all([program("ort"), program("tokenizers")]);
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = data.wasm.buffer;
  const session = await ort.InferenceSession.create(data.graph, {
    executionProviders: ["wasm"],
    externalData: about.external.map(([part, path]) => ({ path, data: data[part] })),
  });
  const tokenizer = new Tokenizer(JSON.parse(new TextDecoder().decode(data.tokenizer)), {});
  const embed = (text) => embedded(ort, session, tokenizer, about, text);
  await check(about, embed);
  return embed;
}

async function embedded(ort, session, tokenizer, about, text) {
  const { ids } = tokenizer.encode(text);
  if (ids.length > about.longest) {
    throw new Error(`the query has ${ids.length} tokens, and the model takes ${about.longest}`);
  }
  if (about.padding !== null) while (ids.length < about.longest) ids.push(about.padding);
  const tensor = (values) => new ort.Tensor("int64", BigInt64Array.from(values, BigInt), [1, ids.length]);
  const all = {
    input_ids: tensor(ids),
    attention_mask: tensor(ids.map(() => 1)),
    token_type_ids: tensor(ids.map(() => 0)),
  };
  const feeds = Object.fromEntries(session.inputNames.map((name) => [name, all[name]]));
  return (await session.run(feeds, [about.output]))[about.output].data;
}

// A wrong tokenizer or graph is an error, and not a wrong answer.
async function check(about, embed) {
  for (const { text, vector } of about.checks) {
    const found = await embed(text);
    const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
    const cosine = dot(found, vector) / Math.sqrt(dot(found, found) * dot(vector, vector));
    if (!(cosine >= about.least)) {
      throw new Error(`in this browser the model gives other vectors than it did: cosine ${cosine.toFixed(4)}`);
    }
  }
}

onmessage = async ({ data }) => {
  if (data.parts) {
    opened = open(data);
    opened.catch(() => {}); // said for each query
    return;
  }
  try {
    postMessage({ number: data.number, vector: await (await opened)(data.text) });
  } catch (e) {
    postMessage({ number: data.number, error: String(e.message ?? e) });
  }
};
