// What the server has told about the open film: objects, and what is known of each frame.

export const UNKNOWN = 0;
export const LOST = 129;
export const GONE = 254;
export const KEY = 255;

const ONE_PLACE = 0.6; // Overlap of boxes of two objects of which one has probably slipped.

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

  // The next frame in a direction that somebody should look at, where an object begins to be
  // lost or two begin to be in one place, of an object or, with id null, of any:
  // {frame, ids}; null: there is none.
  doubtFrom(id, frame, step) {
    for (let i = frame + step; i >= 0 && i < this.film.length; i += step) {
      const before = new Set(this.doubts(i - 1).map(String));
      const ids = this.doubts(i).find((one) => !before.has(String(one)) && (id === null || one.includes(id)));
      if (ids) return { frame: i, ids };
    }
    return null;
  }

  // What is doubtful in a frame: [id] of each object that is lost, [id, id] of each two that
  // are in one place.
  doubts(frame) {
    const found = [];
    const followed = [];
    for (const { id, codes, boxes } of this.objects.values()) {
      if (isLost(codes[frame])) found.push([id]);
      else if (codes[frame] !== UNKNOWN && codes[frame] < GONE) {
        const [x, y, w, h] = boxes.subarray(4 * frame, 4 * frame + 4);
        for (const other of followed) {
          if (overlap([x, y, w, h], other.box) > ONE_PLACE) found.push([other.id, id]);
        }
        followed.push({ id, box: [x, y, w, h] });
      }
    }
    return found;
  }
}

export function colour(id) {
  return COLOURS[(id + COLOURS.length - 1) % COLOURS.length];
}

function isLost(code) {
  return code >= LOST && code < GONE;
}

// Intersection over union of two boxes.
function overlap([x, y, w, h], [left, top, width, height]) {
  const across = Math.min(x + w, left + width) - Math.max(x, left);
  const down = Math.min(y + h, top + height) - Math.max(y, top);
  const common = Math.max(across, 0) * Math.max(down, 0);
  return common / (w * h + width * height - common);
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
