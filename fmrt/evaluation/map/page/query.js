// Embeds a query with the model that is in the page, in a worker, so that the map stays fluent.
const waiting = new Map();
let asked = 0;

const model = once(() => {
  const program = new Blob([JSON.parse(stored("worker"))], { type: "text/javascript" });
  const worker = new Worker(URL.createObjectURL(program));
  worker.onmessage = ({ data: { number, vector, error } }) => {
    const [resolve, reject] = waiting.get(number);
    waiting.delete(number);
    if (error) reject(new Error(error));
    else resolve(vector);
  };
  worker.onerror = (event) => {
    for (const [, reject] of waiting.values()) reject(new Error(event.message));
    waiting.clear();
  };
  const files = [...document.querySelectorAll('script[id^="model-"]')];
  const parts = Object.fromEntries(files.map((file) => [file.id.slice("model-".length), file.textContent]));
  worker.postMessage({ about: about.query, parts });
  return worker;
});
const axes = once(() => new Float32Array(bytesOf("axes").buffer));

// The query's vector at length 1, turned as the stored ones are: Float32Array [kept].
async function embedded(query) {
  const found = await new Promise((resolve, reject) => {
    waiting.set(++asked, [resolve, reject]);
    model().postMessage({ number: asked, text: about.query.prompt + query });
  });
  const whole = found.slice(0, about.dim), length = Math.hypot(...whole) || 1;
  const turned = new Float32Array(about.kept);
  whole.forEach((value, i) => {
    if (about.kept === about.dim) turned[i] = value / length;
    else for (let j = 0; j < about.kept; j++) turned[j] += (value / length) * axes()[i * about.kept + j];
  });
  return turned;
}
