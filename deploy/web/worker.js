// made by Falconet
// Runs the model apart from the page, which stays usable meanwhile. Pixels come in, the graph's outputs go out.
import * as ort from './onnxruntime/ort.wasm.min.mjs';

ort.env.wasm.wasmPaths = new URL('./onnxruntime/', import.meta.url).href;
// Threads share memory, which browsers allow isolated pages only; see sw.js.
ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency || 1) : 1;
ort.env.logLevel = 'error';

let session;

async function load({ url }) {
  session = await ort.InferenceSession.create(new URL(url, import.meta.url).href);
  // The first answer takes longer: give it to nobody.
  await session.run({ pictures: new ort.Tensor('uint8', new Uint8Array(64 * 64 * 3), [1, 64, 64, 3]) });
  return { threads: ort.env.wasm.numThreads };
}

async function answer({ rgba, width, height, wanted }) {
  const source = new Uint8ClampedArray(rgba);
  const rgb = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; to < rgb.length; from += 4) {
    rgb[to++] = source[from];
    rgb[to++] = source[from + 1];
    rgb[to++] = source[from + 2];
  }
  const start = performance.now();
  const found = await session.run({ pictures: new ort.Tensor('uint8', rgb, [1, height, width, 3]) }, wanted);
  const milliseconds = performance.now() - start;
  const outputs = {};
  for (const name of wanted) {
    // Indices of classes are small: plain numbers hold them.
    const data = found[name].data;
    outputs[name] = { dims: found[name].dims, data: data instanceof BigInt64Array ? Array.from(data, Number) : data };
  }
  return { outputs, milliseconds };
}

self.onmessage = async ({ data: { id, task, ...rest } }) => {
  try {
    self.postMessage({ id, result: await { load, answer }[task](rest) });
  } catch (error) {
    self.postMessage({ id, error: String(error?.message ?? error) });
  }
};
