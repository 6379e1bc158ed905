// Talking to the server: requests, live messages, frames.

export class Refusal extends Error {
  // What the server refused, with what it offers instead, if anything.
  constructor(message, offer) {
    super(message);
    this.offer = offer;
  }
}

export async function get(path) {
  return answer(await fetch(path));
}

export async function post(path, body = {}) {
  const headers = { "Content-Type": "application/json" };
  return answer(await fetch(path, { method: "POST", headers, body: JSON.stringify(body) }));
}

async function answer(response) {
  const content = await response.json().catch(() => ({}));
  if (response.ok) return content;
  throw new Refusal(content.error ?? `the server answers ${response.status}`, content.offer);
}

// Messages about a film; `ended` is called once, when no more come.
export class Live {
  constructor(film, { message, ended }) {
    this.socket = new WebSocket(`ws://${location.host}/films/${film}/live`);
    this.socket.onmessage = (event) => message(JSON.parse(event.data));
    this.socket.onclose = () => !this.closed && ended();
  }

  close() {
    this.closed = true;
    this.socket.close();
  }
}

// Frames by number, decoded; the last ones are kept.
export class FrameStore {
  constructor(film, fingerprint, limit) {
    this.base = `/films/${film}/frames/`;
    this.query = `?v=${fingerprint}`;
    this.limit = limit;
    this.kept = new Map();
  }

  // A promise of an ImageBitmap.
  get(index) {
    let frame = this.kept.get(index);
    this.kept.delete(index);
    frame ??= this.load(index);
    this.kept.set(index, frame);
    for (const [old, bitmap] of this.kept) {
      if (this.kept.size <= this.limit) break;
      this.kept.delete(old);
      bitmap.then((one) => this.shown !== one && one.close(), () => {});
    }
    return frame;
  }

  async load(index) {
    const response = await fetch(this.base + index + this.query);
    if (!response.ok) {
      this.kept.delete(index);
      await answer(response);
    }
    return createImageBitmap(await response.blob());
  }
}
