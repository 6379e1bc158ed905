// A row for each object: its confidence over time, lost stretches, key frames.

import { clear } from "./canvas.js";
import { colour, GONE, KEY, LOST, UNKNOWN } from "./model.js";

const ROW = 26;
const RULER = 20;
const GUTTER = 132;

export class Timeline {
  // seek(frame): somebody clicks on a time; picked(id): on a row.
  constructor(canvas, { seek, picked }) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.seek = seek;
    this.picked = picked;
    this.model = null;
    this.frame = 0;
    this.selected = null;
    this.pictures = new Map(); // Rows as they were drawn last.
    new ResizeObserver(() => this.resize()).observe(canvas.parentElement);
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => event.buttons & 1 && this.jump(event));
  }

  setModel(model) {
    this.model = model;
    this.pictures.clear();
    this.resize();
  }

  // Draws the rows of these objects anew.
  changed(ids) {
    for (const id of ids) this.pictures.delete(id);
    if (this.canvas.clientHeight !== this.height()) this.resize();
    else this.draw();
  }

  height() {
    return RULER + ROW * Math.max(1, this.model?.objects.size ?? 0);
  }

  resize() {
    this.canvas.style.height = `${this.height()}px`;
    if (this.width !== this.canvas.clientWidth) this.pictures.clear();
    this.width = this.canvas.clientWidth;
    this.draw();
  }

  down(event) {
    if (!this.model) return;
    this.canvas.setPointerCapture(event.pointerId);
    const row = Math.floor((event.offsetY - RULER) / ROW);
    const id = row < 0 ? undefined : [...this.model.objects.keys()][row];
    if (id !== undefined) this.picked(id);
    this.jump(event);
  }

  jump(event) {
    if (!this.model || (event.type === "pointerdown" && event.offsetX < GUTTER)) return;
    const { length } = this.model.film;
    const place = (event.offsetX - GUTTER) / this.span();
    this.seek(Math.min(Math.max(Math.floor(place * length), 0), length - 1));
  }

  span() {
    return Math.max(1, this.width - GUTTER - 2);
  }

  // ------------------------------------------------------------------------ drawing

  draw() {
    const { canvas, context, model } = this;
    const ratio = clear(canvas, context);
    if (!model) return;
    this.ruler();
    let y = RULER;
    for (const [id, object] of model.objects) {
      this.label(id, object.name, y);
      context.fillStyle = "#0e1216";
      context.fillRect(GUTTER, y + 2, this.span(), ROW - 4);
      const picture = this.pictures.get(id) ?? this.paint(id, object, ratio);
      this.pictures.set(id, picture);
      context.drawImage(picture, GUTTER, y + 2, this.span(), ROW - 4);
      y += ROW;
    }
    this.playhead();
  }

  ruler() {
    const { context } = this;
    const { length } = this.model.film;
    const wanted = length / Math.max(1, this.span() / 90);
    const power = 10 ** Math.floor(Math.log10(Math.max(wanted, 1)));
    const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= wanted);
    context.font = "11px system-ui, sans-serif";
    context.fillStyle = "#7d8b98";
    for (let frame = 0; frame < length; frame += step) {
      const x = this.at(frame);
      context.fillRect(Math.round(x), RULER - 5, 1, 5);
      context.fillText(String(frame), x + 4, RULER - 7);
    }
  }

  label(id, name, y) {
    const { context } = this;
    if (id === this.selected) {
      context.fillStyle = "#222a33";
      context.beginPath();
      context.roundRect(0, y + 1, GUTTER - 6, ROW - 2, 6);
      context.fill();
    }
    context.fillStyle = colour(id);
    context.beginPath();
    context.roundRect(4, y + 5, 22, ROW - 10, 4);
    context.fill();
    context.font = "700 11px system-ui, sans-serif";
    context.textAlign = "center";
    context.fillStyle = "#10151a";
    context.fillText(String(id), 15, y + 17);
    context.textAlign = "left";
    context.font = "13px system-ui, sans-serif";
    context.fillStyle = "#dde4ea";
    context.fillText(shortened(context, name, GUTTER - 44), 33, y + 18);
  }

  // The row of an object as a picture: column by column the lowest confidence.
  paint(id, { codes }, ratio) {
    const picture = document.createElement("canvas");
    const width = (picture.width = Math.max(1, Math.round(this.span() * ratio)));
    const height = (picture.height = Math.round((ROW - 4) * ratio));
    const context = picture.getContext("2d");
    for (let x = 0; x < width; x++) {
      const first = Math.floor((x * codes.length) / width);
      const stop = Math.max(first + 1, Math.floor(((x + 1) * codes.length) / width));
      const { known, lost, gone, lowest } = summary(codes, first, stop);
      if (gone) {
        context.fillStyle = "#56626e";
        context.fillRect(x, Math.round(height / 2 - ratio), 1, 2 * ratio);
      }
      if (!known) continue;
      if (lost) {
        context.fillStyle = "rgb(255 107 112 / .3)";
        context.fillRect(x, 0, 1, height);
      }
      const bar = Math.max(3 * ratio, height * lowest);
      context.fillStyle = lost ? "#ff6b70" : colour(id);
      context.globalAlpha = lost ? 1 : 0.8;
      const top = lost ? height - 3 * ratio : height - bar;
      context.fillRect(x, top, 1, height - top);
      context.globalAlpha = 1;
    }
    this.keys(context, codes, width, height, ratio);
    return picture;
  }

  keys(context, codes, width, height, ratio) {
    const half = 4.5 * ratio;
    for (let frame = codes.indexOf(KEY); frame >= 0; frame = codes.indexOf(KEY, frame + 1)) {
      const x = Math.min(Math.max(((frame + 0.5) * width) / codes.length, half), width - half);
      context.beginPath();
      context.moveTo(x, height / 2 - half);
      context.lineTo(x + half, height / 2);
      context.lineTo(x, height / 2 + half);
      context.lineTo(x - half, height / 2);
      context.closePath();
      context.fillStyle = "#ffffff";
      context.strokeStyle = "#10151a";
      context.lineWidth = 1.5 * ratio;
      context.stroke();
      context.fill();
    }
  }

  playhead() {
    const { context } = this;
    const x = this.at(this.frame + 0.5);
    const bottom = this.height();
    context.fillStyle = "#ffffff";
    context.fillRect(Math.round(x) - 0.75, RULER - 4, 1.5, bottom - RULER + 4);
    context.beginPath();
    context.moveTo(x - 5, RULER - 9);
    context.lineTo(x + 5, RULER - 9);
    context.lineTo(x, RULER - 2);
    context.fill();
  }

  at(frame) {
    return GUTTER + (frame * this.span()) / this.model.film.length;
  }
}

function summary(codes, first, stop) {
  let known = false;
  let lost = false;
  let gone = false;
  let lowest = 1;
  for (let frame = first; frame < stop; frame++) {
    const code = codes[frame];
    if (code === GONE) gone = true;
    if (code === UNKNOWN || code === GONE) continue;
    known = true;
    if (code === KEY) continue;
    lost ||= code >= LOST;
    lowest = Math.min(lowest, (code >= LOST ? code - LOST : code - 1) / 100);
  }
  return { known, lost, gone, lowest };
}

function shortened(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let end = text.length;
  while (end > 1 && context.measureText(`${text.slice(0, end)}…`).width > width) end--;
  return `${text.slice(0, end)}…`;
}
