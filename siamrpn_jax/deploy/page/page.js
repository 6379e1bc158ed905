// Follows a box that the visitor draws, in a film, in pictures or in the camera.

import { camera, film, pictures } from "./sources.js";
import { Tracker } from "./tracker.js";

const byId = (id) => document.getElementById(id);
const picture = byId("picture");
const overlay = byId("overlay");
const pixels = picture.getContext("2d", { willReadFrequently: true });
const LEAST = 4; // Width and height of a box, in pixels of the film.

let tracker = null;
let turns = 0; // How often a source was opened: the last one counts.
let index = 0; // Of the frame that is shown.
let target = null; // What is followed: {box, lost, confidence}, or null.
let sketch = null; // The box that is being drawn: [x0, y0, x1, y1].
let drawn = null; // Resolves when a box has been drawn.
let rows = []; // Of the table of boxes.
let working = Promise.resolve(); // The update that is under way.

// Rows of the table: [frame, x, y, w, h, confidence, lost].
export const boxes = () => rows;

// ---------------------------------------------------------------------------- frames

async function follow(frames) {
  const turn = ++turns;
  drawn?.resolve();
  [target, sketch, drawn, rows, index] = [null, null, null, [], -1];
  let [due, pace] = [0, null]; // The film's start on the clock; milliseconds a frame.
  try {
    for await (const frame of frames) {
      if (turn !== turns) return;
      show(frame);
      if (target) {
        const begun = performance.now();
        working = tracker.update(image());
        target = await working;
        const took = performance.now() - begun;
        pace = pace === null ? took : 0.9 * pace + 0.1 * took;
        note();
      }
      paint();
      report(pace);
      if (!target && !frame.live) await box();
      while (sketch && turn === turns) await box();
      const pause = frame.live || byId("fast").checked ? 0 : due + 1000 * frame.time - performance.now();
      if (pause < -500 || index === 0) due = performance.now() - 1000 * frame.time;
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, Math.min(pause, 1000))));
      if (turn !== turns) return;
    }
    byId("state").value = `${byId("state").value} · end`;
  } catch (error) {
    if (turn === turns) hint(error.message);
  }
}

function show(frame) {
  index += 1;
  if (picture.width !== frame.width || picture.height !== frame.height) {
    for (const canvas of [picture, overlay]) [canvas.width, canvas.height] = [frame.width, frame.height];
  }
  frame.draw(pixels);
  byId("stage").hidden = false;
  hint(target ? "" : "Draw a box around the object to follow");
}

function image() {
  return pixels.getImageData(0, 0, picture.width, picture.height);
}

// The tracker starts on the frame that is shown.
async function start([x0, y0, x1, y1]) {
  const [x, y, w, h] = [Math.min(x0, x1), Math.min(y0, y1), Math.abs(x1 - x0), Math.abs(y1 - y0)];
  if (Math.min(w, h) < LEAST) return;
  await tracker.init(image(), [x, y, w, h]);
  target = { box: [x, y, w, h], score: 1, confidence: 1, lost: false };
  note();
}

function note() {
  const { box, confidence, lost } = target;
  rows = rows.filter(([other]) => other !== index);
  rows.push([index, ...box.map((side) => side.toFixed(3)), confidence.toFixed(4), Number(lost)]);
  byId("save").disabled = false;
}

// --------------------------------------------------------------------------- drawing

// Waits until the box that is being drawn, or will be, is there.
function box() {
  drawn ??= Promise.withResolvers();
  return drawn.promise;
}

function place(event) {
  const area = overlay.getBoundingClientRect();
  const clamp = (value, high) => Math.min(Math.max(value, 0), high);
  return [
    clamp(((event.clientX - area.left) / area.width) * overlay.width, overlay.width),
    clamp(((event.clientY - area.top) / area.height) * overlay.height, overlay.height),
  ];
}

overlay.onpointerdown = (event) => {
  if (event.button !== 0 || !tracker) return;
  overlay.setPointerCapture(event.pointerId);
  drawn ??= Promise.withResolvers();
  sketch = [...place(event), ...place(event)];
};

overlay.onpointermove = (event) => {
  if (!sketch) return;
  sketch.splice(2, 2, ...place(event));
  paint();
};

overlay.onpointerup = async (event) => {
  if (!sketch) return;
  sketch.splice(2, 2, ...place(event));
  await working.catch(() => {});
  await start(sketch).catch((error) => hint(error.message));
  sketch = null;
  paint();
  if (!target) return;
  drawn?.resolve();
  drawn = null;
};

overlay.onpointercancel = () => {
  sketch = null;
  paint();
};

function paint() {
  const context = overlay.getContext("2d");
  context.clearRect(0, 0, overlay.width, overlay.height);
  const unit = Math.max(1, overlay.width / 640);
  if (sketch) {
    const [x0, y0, x1, y1] = sketch;
    outline(context, [x0, y0, x1 - x0, y1 - y0], "#ffffff", unit);
  } else if (target) {
    outline(context, target.box, target.lost ? "#ff6b6b" : "#4cc9f0", unit, target.lost);
  }
}

function outline(context, box, colour, unit, dashed = false) {
  context.setLineDash(dashed ? [6 * unit, 4 * unit] : []);
  for (const [style, width] of [["rgb(0 0 0 / .6)", 4], [colour, 2]]) {
    context.strokeStyle = style;
    context.lineWidth = width * unit;
    context.strokeRect(...box);
  }
}

// --------------------------------------------------------------------- what is said

function report(pace) {
  const parts = [`frame ${index}`];
  if (target) parts.push(target.lost ? "lost" : `${Math.round(100 * target.confidence)} %`);
  if (pace) parts.push(`${(1000 / pace).toFixed(1)} frames/s`);
  byId("state").value = parts.join(" · ");
}

function hint(text) {
  byId("hint").textContent = text;
  byId("hint").hidden = !text;
}

function save() {
  const table = [["frame", "x", "y", "w", "h", "confidence", "lost"], ...rows];
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([`${table.map((row) => row.join()).join("\n")}\n`], { type: "text/csv" }));
  link.download = "boxes.csv";
  link.click();
  URL.revokeObjectURL(link.href);
}

byId("save").onclick = save;
byId("camera").onclick = () => tracker && follow(camera());
byId("file").onchange = () => {
  const files = [...byId("file").files];
  if (!files.length || !tracker) return;
  const images = files.filter((file) => file.type.startsWith("image/"));
  follow(images.length === files.length ? pictures(images) : film(files.find((file) => !images.includes(file))));
};

Tracker.load().then(
  (loaded) => {
    tracker = loaded;
    hint("Choose a film, pictures in the order of their names, or the camera");
  },
  (error) => hint(`The tracker cannot be loaded: ${error.message}`),
);
