// The picture with its boxes, and the mouse on it. Coordinates are pixels of the film.

import { clear } from "./canvas.js";
import { colour, meaning } from "./model.js";

const GRIP = 9; // Pixels of the screen around a corner.
const LEAST = 3; // Pixels of the film that a box has at least.

export class Stage {
  // drawn(id or null, frame, box): a box was drawn or changed; picked(id): one was clicked.
  constructor(canvas, { drawn, picked }) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.drawn = drawn;
    this.picked = picked;
    this.model = null;
    this.bitmap = null;
    this.index = 0;
    this.selected = null;
    this.adding = false;
    this.drag = null;
    this.pending = null;
    this.zoom = { scale: 1, x: 0, y: 0 };
    new ResizeObserver(() => this.draw()).observe(canvas);
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.up(event));
    canvas.addEventListener("pointercancel", () => this.cancel());
    canvas.addEventListener("dblclick", () => this.reset());
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
  }

  show(bitmap, index) {
    this.bitmap = bitmap;
    this.index = index;
    if (this.pending && this.pending.frame !== index) this.pending = null;
    this.draw();
  }

  reset() {
    this.zoom = { scale: 1, x: 0, y: 0 };
    this.draw();
  }

  cancel() {
    this.drag = null;
    this.draw();
  }

  // ------------------------------------------------------------------ coordinates

  view() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const [w, h] = this.model?.film.size ?? [width, height];
    const fit = Math.min((width - 24) / w, (height - 24) / h);
    const scale = Math.max(fit, 0.001) * this.zoom.scale;
    const x = (width - w * scale) / 2 + this.zoom.x;
    const y = (height - h * scale) / 2 + this.zoom.y;
    return { scale, x, y };
  }

  toFilm(event) {
    const { scale, x, y } = this.view();
    return [(event.offsetX - x) / scale, (event.offsetY - y) / scale];
  }

  wheel(event) {
    event.preventDefault();
    if (this.drag || !this.model) return;
    const [x, y] = this.toFilm(event);
    const factor = Math.exp(-event.deltaY / 400);
    this.zoom.scale = Math.min(Math.max(this.zoom.scale * factor, 1), 16);
    if (this.zoom.scale === 1) return this.reset();
    const view = this.view();
    this.zoom.x += event.offsetX - (x * view.scale + view.x);
    this.zoom.y += event.offsetY - (y * view.scale + view.y);
    this.draw();
  }

  // ----------------------------------------------------------------------- the mouse

  // What is under a point: {id, corner} with corner 0..3, or null inside the box.
  hit([x, y]) {
    const grip = GRIP / this.view().scale;
    const ids = [...this.model.objects.keys()].filter((id) => id !== this.selected);
    for (const id of this.selected === null ? ids : [this.selected, ...ids]) {
      const box = this.model.box(id, this.index);
      if (!box) continue;
      const near = corners(box).findIndex(([cx, cy]) => Math.hypot(cx - x, cy - y) <= grip);
      if (near >= 0) return { id, box, corner: near };
      const [left, top, width, height] = box;
      const inside = x >= left && y >= top && x <= left + width && y <= top + height;
      if (inside) return { id, box, corner: null };
    }
    return null;
  }

  down(event) {
    if (!this.model || !this.bitmap || this.drag) return;
    this.canvas.setPointerCapture(event.pointerId);
    const start = this.toFilm(event);
    if (event.button === 1) {
      event.preventDefault();
      this.drag = { kind: "pan", at: [event.offsetX, event.offsetY], zoom: { ...this.zoom } };
      return;
    }
    if (event.button !== 0) return;
    document.activeElement?.blur();
    const frame = this.index;
    const hit = this.adding || event.shiftKey ? null : this.hit(start);
    if (hit) {
      this.picked(hit.id);
      this.drag = { kind: hit.corner === null ? "move" : "resize", start, frame, ...hit };
    } else {
      const id = this.adding ? null : this.selected;
      this.drag = { kind: "draw", start, frame, id };
    }
  }

  move(event) {
    const drag = this.drag;
    if (!this.model) return;
    if (!drag) return this.point(event);
    if (drag.kind === "pan") {
      this.zoom.x = drag.zoom.x + event.offsetX - drag.at[0];
      this.zoom.y = drag.zoom.y + event.offsetY - drag.at[1];
    } else {
      drag.now = this.changed(drag, this.toFilm(event));
    }
    this.draw();
  }

  up(event) {
    const drag = this.drag;
    this.drag = null;
    if (drag && drag.kind !== "pan") {
      const box = this.changed(drag, this.toFilm(event));
      if (box) {
        this.pending = { id: drag.id, frame: drag.frame, box };
        this.drawn(drag.id, drag.frame, box);
      }
    }
    this.draw();
  }

  // The box that a drag makes, within the picture; null: it is none, or none that changed.
  changed(drag, [x, y]) {
    const [width, height] = this.model.film.size;
    if (drag.kind === "move") {
      const [dx, dy] = [x - drag.start[0], y - drag.start[1]];
      if (Math.hypot(dx, dy) * this.view().scale < 2) return null;
      const [left, top, w, h] = drag.box;
      return [
        clamp(left + dx, LEAST - w, width - LEAST),
        clamp(top + dy, LEAST - h, height - LEAST),
        w,
        h,
      ];
    }
    const fixed = drag.kind === "draw" ? drag.start : corners(drag.box)[(drag.corner + 2) % 4];
    const [x0, y0] = [clamp(fixed[0], 0, width), clamp(fixed[1], 0, height)];
    const [x1, y1] = [clamp(x, 0, width), clamp(y, 0, height)];
    const box = [Math.min(x0, x1), Math.min(y0, y1), Math.abs(x1 - x0), Math.abs(y1 - y0)];
    return Math.min(box[2], box[3]) < LEAST ? null : box;
  }

  point(event) {
    const hit = this.adding || event.shiftKey ? null : this.hit(this.toFilm(event));
    const resize = hit?.corner % 2 ? "nesw-resize" : "nwse-resize";
    this.canvas.style.cursor = !hit ? "crosshair" : hit.corner === null ? "move" : resize;
  }

  // ------------------------------------------------------------------------ drawing

  draw() {
    const { canvas, context, model } = this;
    clear(canvas, context);
    if (!model || !this.bitmap) return;
    const { scale, x, y } = this.view();
    canvas.dataset.view = JSON.stringify([x, y, scale]);
    canvas.dataset.frame = this.index;
    const [width, height] = model.film.size;
    context.imageSmoothingEnabled = scale < 4;
    context.drawImage(this.bitmap, x, y, width * scale, height * scale);
    const entries = [...model.objects];
    entries.sort(([a], [b]) => (a === this.selected) - (b === this.selected));
    for (const [id, object] of entries) {
      if (this.changes(id) || this.pending?.id === id) continue;
      const box = model.box(id, this.index);
      if (box) this.box(box, id, object.name, meaning(object.codes[this.index]));
    }
    if (this.pending) this.sketch(this.pending.id, this.pending.box);
    if (this.drag?.now) this.sketch(this.drag.id, this.drag.now);
  }

  changes(id) {
    return Boolean(this.drag?.now) && this.drag.id === id;
  }

  sketch(id, box) {
    const name = this.model.objects.get(id)?.name ?? "new";
    this.box(box, id, name, { key: true, lost: false, confidence: 1 });
  }

  box([left, top, w, h], id, name, { key, lost, confidence }) {
    const { context } = this;
    const { scale, x, y } = this.view();
    const [px, py] = [left * scale + x, top * scale + y];
    const [pw, ph] = [w * scale, h * scale];
    const chosen = id === this.selected || id === null;
    const paint = id === null ? "#ffffff" : colour(id);
    context.save();
    context.lineJoin = "round";
    context.setLineDash(lost ? [7, 5] : []);
    context.strokeStyle = "rgb(0 0 0 / .55)";
    context.lineWidth = chosen ? 5 : 4;
    context.strokeRect(px, py, pw, ph);
    context.strokeStyle = paint;
    context.lineWidth = chosen ? 2.5 : 1.5;
    context.strokeRect(px, py, pw, ph);
    context.setLineDash([]);
    if (chosen) this.grips(px, py, pw, ph, paint);
    // Of the others the list says it: where there are many, long tags hide them.
    const sure = chosen && !key ? `${Math.round(100 * confidence)} %` : "";
    const state = lost ? "lost" : sure;
    this.tag(px, py, [id, name, state].filter((part) => part || part === 0).join("  "), paint);
    context.restore();
  }

  grips(x, y, w, h, paint) {
    const { context } = this;
    for (const [cx, cy] of corners([x, y, w, h])) {
      context.fillStyle = "#10151a";
      context.fillRect(cx - 5, cy - 5, 10, 10);
      context.fillStyle = paint;
      context.fillRect(cx - 3.5, cy - 3.5, 7, 7);
    }
  }

  tag(x, y, text, paint) {
    const { context } = this;
    context.font = "600 12px system-ui, sans-serif";
    const width = context.measureText(text).width + 12;
    const top = y < 24 ? y + 7 : y - 25;
    const left = clamp(x - 1, 0, Math.max(0, this.canvas.clientWidth - width));
    context.fillStyle = paint;
    context.beginPath();
    context.roundRect(left, top, width, 18, 4);
    context.fill();
    context.fillStyle = "#10151a";
    context.fillText(text, left + 6, top + 13);
  }
}

// Clockwise from the top left.
function corners([x, y, w, h]) {
  return [[x, y], [x + w, y], [x + w, y + h], [x, y + h]];
}

function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}
