// What the server has told about the open film: objects, and what is known of each frame.

export const UNKNOWN = 0;
export const LOST = 129;
export const GONE = 254;
export const KEY = 255;

const COLOURS = [
  "#4cc9f0", "#f9a03f", "#7bd88f", "#ff86a3", "#b79cff", "#ffd84d", "#5eead4", "#ff9be0", "#a9bccb",
];

export class Model {
  // about: the entry "film" of the server's first message.
  constructor(about) {
    this.film = about;
    this.objects = new Map(); // By number: {id, name, codes [T], boxes [4 T]}.
    this.revision = 0;
  }

  // Takes a message of the server over; returns the numbers of objects that have changed.
  apply(message) {
    this.revision = Math.max(this.revision, message.revision);
    const changed = new Set();
    const ids = new Set(message.objects.map((one) => one.id));
    for (const id of this.objects.keys()) {
      if (!ids.has(id)) {
        this.objects.delete(id);
        changed.add(id);
      }
    }
    for (const { id, name } of message.objects) {
      const known = this.objects.get(id) ?? this.add(id);
      if (known.name !== name) changed.add(id);
      known.name = name;
    }
    this.objects = new Map([...this.objects].sort(([a], [b]) => a - b));
    for (const { id, start, codes, boxes } of message.changes) {
      const object = this.objects.get(id);
      if (!object) continue;
      object.codes.set(bytes(codes), start);
      object.boxes.set(new Float32Array(bytes(boxes).buffer), 4 * start);
      changed.add(id);
    }
    return changed;
  }

  add(id) {
    const length = this.film.length;
    const boxes = new Float32Array(4 * length).fill(NaN);
    const object = { id, name: "", codes: new Uint8Array(length), boxes };
    this.objects.set(id, object);
    return object;
  }

  // The box of an object in a frame, [x, y, w, h] in pixels of the film, or null.
  box(id, frame) {
    const object = this.objects.get(id);
    if (!object || object.codes[frame] === UNKNOWN || object.codes[frame] === GONE) return null;
    return [...object.boxes.subarray(4 * frame, 4 * frame + 4)];
  }

  // Shows a box before the server has confirmed it.
  setBox(id, frame, box) {
    const object = this.objects.get(id);
    if (!object) return;
    object.boxes.set(box, 4 * frame);
    object.codes[frame] = KEY;
  }

  // The next key frame of an object, or frame from which it is gone, in a direction, or null.
  keyFrom(id, frame, step) {
    const codes = this.objects.get(id)?.codes ?? [];
    for (let i = frame + step; i >= 0 && i < codes.length; i += step) {
      if (codes[i] === KEY || (codes[i] === GONE && codes[i - 1] !== GONE)) return i;
    }
    return null;
  }

  // Where an object that is gone in a frame has gone.
  goneSince(id, frame) {
    const { codes } = this.objects.get(id);
    while (codes[frame - 1] === GONE) frame--;
    return frame;
  }

  // The next frame in a direction in which an object begins to be lost: {id, frame}, of one
  // object or, with id null, of any; null: there is none.
  lossFrom(id, frame, step) {
    const length = this.film.length;
    const asked = id === null ? [...this.objects.keys()] : [id];
    for (let i = frame + step; i >= 0 && i < length; i += step) {
      for (const one of asked) {
        const { codes } = this.objects.get(one);
        if (isLost(codes[i]) && !isLost(codes[i - 1])) return { id: one, frame: i };
      }
    }
    return null;
  }
}

export function colour(id) {
  return COLOURS[(id + COLOURS.length - 1) % COLOURS.length];
}

function isLost(code) {
  return code >= LOST && code < GONE;
}

// What a code says: {lost, key, gone, confidence in 0..1}, or null where nothing is known.
export function meaning(code) {
  if (code === UNKNOWN) return null;
  if (code === KEY) return { key: true, lost: false, confidence: 1 };
  if (code === GONE) return { gone: true };
  const lost = code >= LOST;
  return { key: false, lost, confidence: (code - (lost ? LOST : 1)) / 100 };
}

function bytes(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}
