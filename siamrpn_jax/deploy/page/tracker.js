// Follows an object by init.onnx and step.onnx in onnxruntime-web, as tracker.py does.

import * as ort from "./onnxruntime-web/ort.wasm.min.mjs";

ort.env.wasm.wasmPaths = new URL("./onnxruntime-web/", import.meta.url).href;
// Threads need a page that is isolated by its server's headers.
ort.env.wasm.numThreads = globalThis.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;

export class Tracker {
  // Loads both models from a folder beside this file.
  static async load(folder = ".") {
    const base = new URL(`${folder}/`, import.meta.url);
    const paths = ["init.onnx", "step.onnx"].map((name) => new URL(name, base).href);
    const tracker = new Tracker();
    for (const path of paths) tracker.models.push(await ort.InferenceSession.create(path));
    return tracker;
  }

  constructor() {
    this.models = [];
    this.memory = null;
  }

  // Starts on a frame (ImageData) with the target's box: x, y, width, height in pixels.
  async init(image, [x, y, w, h]) {
    if (!(w > 0 && h > 0)) throw new RangeError(`box of ${w}x${h} pixels, expected positive sizes`);
    const box = new ort.Tensor("float32", [x + w / 2, y + h / 2, w, h], [4]);
    this.memory = await this.models[0].run({ frame: frameOf(image), box });
  }

  // Finds the target in the next frame: {box, score, confidence, lost}.
  async update(image) {
    if (!this.memory) throw new Error("update before init");
    const size = new ort.Tensor("float32", [image.width, image.height], [2]);
    const inputs = { ...this.memory, "state.frame_size": size, frame: frameOf(image) };
    const found = await this.models[1].run(inputs);
    for (const [name, value] of Object.entries(found)) {
      if (name.startsWith("next.")) this.memory[`state.${name.slice(5)}`] = value;
    }
    const [cx, cy, w, h] = found["output.box"].data;
    const [score, confidence, lost] = ["score", "confidence", "lost"].map((name) => found[`output.${name}`].data[0]);
    return { box: [cx - w / 2, cy - h / 2, w, h], score, confidence, lost: Boolean(lost) };
  }
}

// RGBA to RGB, uint8 [H, W, 3].
function frameOf({ data, width, height }) {
  const pixels = new Uint8Array(3 * width * height);
  for (let from = 0, to = 0; from < data.length; from += 4) {
    pixels[to++] = data[from];
    pixels[to++] = data[from + 1];
    pixels[to++] = data[from + 2];
  }
  return new ort.Tensor("uint8", pixels, [height, width, 3]);
}
