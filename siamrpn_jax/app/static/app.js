// The labelling page: one film at a time, its picture, objects, and time line.

import { colour, GONE, KEY, meaning, Model } from "./model.js";
import { FrameStore, get, Live, post, Refusal } from "./server.js";
import { Stage } from "./stage.js";
import { Timeline } from "./timeline.js";

const byId = (id) => document.getElementById(id);
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const KEPT_BYTES = 384 * 2 ** 20; // Of decoded frames.

const FORMATS = {
  csv: "CSV", mot: "MOT", cvat: "CVAT", coco: "COCO", yolo: "YOLO", labelstudio: "Label Studio", vot: "VOT",
};

let openings = 0; // How often a film was opened: the last time counts.
let film = 0; // The number of the film that is open.
let model = null;
let frames = null;
let live = null;
let wanted = 0; // The frame that is asked for; stage.index is the one on the screen.
let showing = null;
let playing = false;
let following = false; // The picture goes with the tracking.
let sending = 0; // Actions that the server has not answered yet.
let told = null; // Its last message.

const stage = new Stage(byId("picture"), { drawn, picked: select });
const timeline = new Timeline(byId("timeline"), { seek, picked: select });

// --------------------------------------------------------------------- opening films

async function start() {
  const { films } = await get("/films");
  byId("film").replaceChildren(
    ...films.map(({ name, labelled }, index) => new Option(labelled ? `${name} ✓` : name, index)),
  );
  byId("film").onchange = () => (location.hash = byId("film").value);
  window.onhashchange = () => open(chosen(films.length));
  await open(chosen(films.length));
}

function chosen(count) {
  const index = Number(location.hash.slice(1));
  return Number.isInteger(index) && index >= 0 && index < count ? index : 0;
}

async function open(index, { fresh = false, again = false } = {}) {
  const turn = ++openings;
  live?.close();
  playing = following = false;
  told = null;
  film = index;
  byId("film").value = index;
  if (!again) clear(`Opening ${byId("film").selectedOptions[0].text} …`);
  try {
    await post(`/films/${index}/open`, { fresh });
  } catch (error) {
    if (turn !== openings) return;
    if (!(error instanceof Refusal)) return lost();
    return refusedToOpen(index, error);
  }
  if (turn === openings) live = new Live(index, { message, ended: lost });
}

function clear(text) {
  model = stage.model = stage.bitmap = null;
  stage.selected = timeline.selected = null;
  stage.adding = false;
  stage.draw();
  timeline.setModel(null);
  byId("objects").replaceChildren();
  byId("about").textContent = byId("saved").textContent = "";
  hint(text);
}

async function refusedToOpen(index, error) {
  clear(error.message);
  if (!error.offer) return;
  const text = `${error.message}. It stays as it is if you begin a new session in ${error.offer}.`;
  if (await ask("This film has other labels", text, `Begin ${error.offer}`)) {
    await open(index, { fresh: true });
  }
}

async function lost() {
  told = null;
  saved("The connection to the server is lost; trying again …", true);
  const turn = openings;
  await sleep(1000);
  if (turn === openings) await open(film, { again: true });
}

// ---------------------------------------------------------------- what the server says

function message(content) {
  if (content.film) begin(content.film);
  told = content;
  const changed = model.apply(content);
  if (stage.selected !== null && !model.objects.has(stage.selected)) select(null);
  if (stage.selected === null && !stage.adding && model.objects.size) {
    select(model.objects.keys().next().value);
  }
  if (stage.pending?.sent) stage.pending = null;
  if (changed.size) listObjects();
  timeline.changed(changed);
  progress(content.job);
  offer("undo", content.undo, "Ctrl-Z");
  offer("redo", content.redo, "Ctrl-Shift-Z");
  tellSaved();
  if (content.notice) toast(content.notice, true);
  refresh();
}

function offer(way, step, keys) {
  const name = way === "undo" ? "Undo" : "Redo";
  byId(way).disabled = !step;
  byId(way).title = step ? `${name}: ${step} (${keys})` : `Nothing to ${way}`;
}

function begin(about) {
  byId("toasts").replaceChildren();
  const same = model?.film.fingerprint === about.fingerprint;
  model = stage.model = new Model(about);
  timeline.setModel(model);
  const [width, height] = about.size;
  const speed = about.fps ? `, ${Number(about.fps.toFixed(2))} frames/s` : "";
  byId("about").textContent = `${width} × ${height}, ${about.length} frames${speed}`;
  byId("saved").title = about.session;
  byId("frame").max = about.length - 1;
  if (byId("format").options.length === 0) {
    byId("format").replaceChildren(...about.formats.map((name) => new Option(FORMATS[name] ?? name, name)));
  }
  if (same) {
    if (!stage.bitmap) stage.index = -1;
    return show(wanted);
  }
  const bytes = 4 * Math.min(width, 1920) * Math.min(height, 1920);
  frames = new FrameStore(film, about.fingerprint, Math.max(8, Math.min(200, KEPT_BYTES / bytes)));
  stage.bitmap = null;
  stage.index = -1;
  stage.reset();
  seek(Number(sessionStorage.getItem(`frame ${about.fingerprint}`)) || 0);
}

function progress(job) {
  byId("job").hidden = !job;
  for (const id of ["forward", "backward", "between", "export", "train"]) byId(id).disabled = Boolean(job);
  if (!job) {
    following = false;
    return;
  }
  // The first two frames are compiled for, which may take a minute.
  const done = job.done > 1 ? `${job.done} of ${job.total}` : "starting …";
  byId("doing").textContent = `${job.label}: ${done}`;
  if (job.done > 1) byId("progress").value = job.done / job.total;
  else byId("progress").removeAttribute("value");
  if (following && job.frame !== null) show(job.frame);
}

// Says whether all is saved: what is on its way, or newer than the last message, is not.
function tellSaved() {
  if (!told) return;
  const all = told.saved && !sending && told.revision >= model.revision;
  if (told.problem) saved(`Not saved, trying again: ${told.problem}`, true);
  else saved(all ? "All saved" : "Saving …");
}

function saved(text, bad = false) {
  byId("saved").textContent = text;
  byId("saved").classList.toggle("bad", bad);
}

// ------------------------------------------------------------------------- the picture

function seek(frame) {
  playing = following = false;
  return show(frame);
}

// Shows a frame; of many that are asked for in a row those in between are left out.
function show(frame) {
  wanted = Math.min(Math.max(frame, 0), model.film.length - 1);
  timeline.frame = wanted;
  sessionStorage.setItem(`frame ${model.film.fingerprint}`, wanted);
  refresh();
  showing ??= showWanted().finally(() => (showing = null));
  return showing;
}

async function showWanted() {
  while (model && stage.index !== wanted) {
    const [index, store] = [wanted, frames];
    try {
      const bitmap = await store.get(index);
      if (store !== frames) continue;
      store.shown = bitmap;
      stage.show(bitmap, index);
      hint(advice());
    } catch (error) {
      if (store !== frames) continue;
      hint(error instanceof Refusal ? error.message : `Frame ${index} does not arrive.`);
      stage.show(null, index);
    }
    refresh();
  }
}

async function play() {
  playing = !playing;
  following = false;
  refresh();
  if (wanted >= model.film.length - 1) await show(0);
  let due = performance.now();
  while (playing && model && wanted < model.film.length - 1) {
    for (let ahead = 2; ahead <= 5; ahead++) {
      if (wanted + ahead < model.film.length) frames.get(wanted + ahead).catch(() => {});
    }
    await show(wanted + 1);
    due = Math.max(due + 1000 / (model?.film.fps || 25), performance.now());
    await sleep(due - performance.now());
  }
  playing = false;
  refresh();
}

function advice() {
  if (stage.adding) return "Draw a box around the new object";
  return model.objects.size ? "" : "Draw a box around an object, then track it";
}

function hint(text) {
  byId("hint").textContent = text;
  byId("hint").hidden = !text;
}

// Brings what depends on frame and selection up to date.
function refresh() {
  if (!model) return;
  const last = model.film.length - 1;
  if (document.activeElement !== byId("frame")) byId("frame").value = wanted;
  byId("place").textContent = `of ${last}${model.film.fps ? ` · ${clock(wanted / model.film.fps)}` : ""}`;
  byId("play").textContent = playing ? "Pause" : "Play";
  byId("erase").disabled = byId("gone").disabled = stage.selected === null;
  byId("gone").textContent = isGone() ? "Not gone" : "Gone from here";
  byId("erase").textContent = isKey() ? "Delete key frame" : "Delete object";
  byId("new").classList.toggle("on", stage.adding);
  for (const item of byId("objects").children) state(item);
  if (stage.bitmap) hint(advice());
  stage.draw();
  timeline.draw();
}

function clock(seconds) {
  const minutes = Math.floor(seconds / 60);
  return `${minutes}:${(seconds % 60).toFixed(2).padStart(5, "0")}`;
}

// ------------------------------------------------------------------------- the objects

function select(id) {
  stage.selected = timeline.selected = id;
  if (id !== null) stage.adding = false;
  refresh();
}

function addObject() {
  if (!model) return;
  stage.adding = true;
  select(null);
}

function isKey() {
  return model.objects.get(stage.selected)?.codes[stage.index] === KEY;
}

function isGone() {
  return model.objects.get(stage.selected)?.codes[stage.index] === GONE;
}

function listObjects() {
  const list = byId("objects");
  const entries = [...model.objects.values()];
  const listed = [...list.children].map((item) => Number(item.dataset.id));
  if (listed.join() !== [...model.objects.keys()].join()) {
    list.replaceChildren(...entries.map(({ id }) => entry(id)));
  }
  entries.forEach(({ name }, place) => {
    const field = list.children[place].querySelector("input");
    if (field !== document.activeElement) field.value = name;
  });
  const names = new Set(entries.map(({ name }) => name));
  byId("classes").replaceChildren(...[...names].map((name) => new Option(name, name)));
}

function entry(id) {
  const item = document.createElement("li");
  const [number, field, now] = ["span", "input", "span"].map((tag) => document.createElement(tag));
  item.dataset.id = id;
  item.title = `Object ${id}${id < 10 ? `: key ${id} selects it` : ""}`;
  number.className = "number";
  number.textContent = id;
  number.style.background = colour(id);
  now.className = "now";
  field.spellcheck = false;
  field.maxLength = 100;
  field.setAttribute("list", "classes");
  field.setAttribute("aria-label", `Class of object ${id}`);
  field.onfocus = () => select(id);
  field.onchange = () => rename(id, field);
  field.onkeydown = (event) => event.key === "Enter" && field.blur();
  item.onclick = () => select(id);
  item.append(number, field, now);
  return item;
}

function state(item) {
  const id = Number(item.dataset.id);
  const known = meaning(model.objects.get(id)?.codes[stage.index] ?? 0);
  const now = item.querySelector(".now");
  item.classList.toggle("on", id === stage.selected);
  now.className = `now ${known?.lost ? "lost" : ""} ${known?.key ? "key" : ""}`;
  now.textContent = words(known);
}

function words(known) {
  if (!known) return "–";
  if (known.key) return "key frame";
  if (known.gone) return "gone";
  return known.lost ? "lost" : `${Math.round(100 * known.confidence)} %`;
}

async function rename(id, field) {
  const done = await send("rename", { object: id, name: field.value });
  if (!done) field.value = model.objects.get(id)?.name ?? "";
}

async function drawn(id, frame, box) {
  playing = following = false;
  const body = { frame, box };
  if (id === null) body.name = byId("class").value.trim() || "object";
  else body.object = id;
  const answer = await send("draw", body);
  if (!answer || !stage.pending) {
    stage.pending = null;
    return stage.draw();
  }
  stage.pending.id = answer.object;
  stage.pending.sent = true;
  model.setBox(answer.object, frame, box);
  if (model.objects.has(answer.object)) stage.pending = null;
  select(answer.object);
}

async function erase() {
  if (stage.selected === null || !model) return;
  const object = stage.selected;
  if (isKey()) return send("erase", { object, frame: stage.index });
  if (await send("remove", { object })) toast(`Object ${object} is removed; Ctrl-Z brings it back.`);
}

// Says that the selected object is gone from here on; where it is, that it is not.
async function gone() {
  if (stage.selected === null || !model) return;
  const object = stage.selected;
  if (!isGone()) return send("gone", { object, frame: stage.index });
  return send("erase", { object, frame: model.goneSince(object, stage.index) });
}

async function undo(way = "undo") {
  const answer = await send(way);
  if (answer && model?.objects.has(answer.object)) select(answer.object);
}

// ------------------------------------------------------------------------------- work

async function track(way) {
  const body = { way, frame: wanted };
  if (stage.selected !== null && (byId("only").checked || way === "between")) body.object = stage.selected;
  playing = false;
  following = true;
  if (!(await send("track", body))) following = false;
}

async function exportLabels(format, fresh = false) {
  try {
    return await post(`/films/${film}/export`, { format, fresh });
  } catch (error) {
    if (!error.offer) return toast(error.message, true);
    const again = await ask("There is an export already", `${error.message}.`, `Write ${error.offer}`);
    return again ? exportLabels(format, true) : null;
  }
}

async function exportChosen() {
  const answer = await exportLabels(byId("format").value);
  if (answer) toast(`Exported to ${answer.folder}`);
}

async function trainOnThis() {
  const wish = "Frames and boxes are written as MOT beside the film; two commands then prepare them and train on them.";
  if (!(await ask("Train on this film", wish, "Write training data"))) return;
  const answer = await exportLabels("mot");
  if (!answer) return;
  const text = document.createElement("div");
  const commands = document.createElement("pre");
  commands.textContent = answer.commands.join("\n");
  text.append("The first command is run in a clone of siamrpn_jax:", commands);
  await ask("Train on this film", text);
}

// Sends what changes the film; null where it is refused, which is shown.
async function send(action, body = {}) {
  if (!model) return null;
  const changed = model;
  sending += 1;
  tellSaved();
  try {
    const answer = await post(`/films/${film}/${action}`, { ...body, revision: model.revision });
    changed.revision = Math.max(changed.revision, answer.revision); // one's own change is no news
    return answer;
  } catch (error) {
    toast(error instanceof Refusal ? error.message : "The server does not answer.", true);
    return null;
  } finally {
    sending -= 1;
    tellSaved();
  }
}

// -------------------------------------------------------------------------- messages

// A message for a while; what is not bad makes place for the next one.
function toast(text, bad = false) {
  if (!bad) for (const old of document.querySelectorAll(".toast:not(.bad)")) old.remove();
  const box = document.createElement("div");
  const words = document.createElement("span");
  const close = document.createElement("button");
  box.className = bad ? "toast bad" : "toast";
  words.textContent = text;
  close.textContent = "Close";
  close.onclick = () => box.remove();
  box.append(words, close);
  byId("toasts").append(box);
  setTimeout(() => box.remove(), bad ? 15000 : 7000);
}

// Shows a dialog; true where its main button, called `yes`, was pressed.
function ask(title, content, yes = "") {
  const dialog = byId("dialog");
  dialog.querySelector("h2").textContent = title;
  dialog.querySelector(".text").replaceChildren(content);
  const main = dialog.querySelector("button.main");
  main.textContent = yes;
  main.hidden = !yes;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.onclose = () => resolve(dialog.returnValue === "yes");
  });
}

function help() {
  ask("Keys and mouse", byId("keys").content.cloneNode(true));
}

// ------------------------------------------------------------------ buttons and keys

const KEYS = {
  " ": play,
  ArrowLeft: (event) => seek(wanted - (event.shiftKey ? 10 : 1)),
  ArrowRight: (event) => seek(wanted + (event.shiftKey ? 10 : 1)),
  Home: () => seek(0),
  End: () => seek(model.film.length - 1),
  "[": () => toKey(-1),
  "]": () => toKey(1),
  Delete: erase,
  Backspace: erase,
  n: addObject,
  g: gone,
  l: (event) => toDoubt(event.shiftKey ? -1 : 1),
  "?": help,
  Escape: () => {
    stage.cancel();
    stage.adding = false;
    refresh();
  },
};

function toKey(step) {
  const frame = model.keyFrom(stage.selected, wanted, step);
  if (frame !== null) seek(frame);
}

function toDoubt(step) {
  const only = byId("only").checked ? stage.selected : null;
  const found = model.doubtFrom(only, wanted, step);
  if (!found) return toast(`Nothing is in doubt ${step > 0 ? "after" : "before"} this frame.`);
  const [first, second] = found.ids;
  if (!found.ids.includes(stage.selected)) select(first);
  if (second !== undefined) toast(`Objects ${first} and ${second} are in one place: has one slipped?`);
  seek(found.frame);
}

function pressed(event) {
  if (!model || byId("dialog").open || event.target.matches("input:not([type=checkbox]), select")) return;
  const letter = event.key.toLowerCase();
  if ((event.ctrlKey || event.metaKey) && (letter === "z" || letter === "y")) {
    event.preventDefault();
    undo(letter === "y" || event.shiftKey ? "redo" : "undo");
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const digit = /^[1-9]$/.test(key) ? Number(key) : null;
  if (digit !== null && model.objects.has(digit)) select(digit);
  if (!KEYS[key]) return;
  event.preventDefault();
  KEYS[key](event);
}

const BUTTONS = {
  undo: () => undo(),
  redo: () => undo("redo"),
  export: exportChosen,
  train: trainOnThis,
  help,
  new: addObject,
  forward: () => track("forward"),
  backward: () => track("backward"),
  between: () => track("between"),
  stop: () => send("stop"),
  play,
  back: () => seek(wanted - 1),
  next: () => seek(wanted + 1),
  doubt: () => toDoubt(1),
  gone,
  erase,
};

for (const [id, action] of Object.entries(BUTTONS)) {
  byId(id).onclick = () => {
    byId(id).blur(); // or the space bar would press it again
    if (model) action();
  };
}
byId("frame").onchange = () => model && seek(Math.round(Number(byId("frame").value)) || 0);
byId("frame").onkeydown = (event) => event.key === "Enter" && byId("frame").blur();
byId("class").onkeydown = (event) => event.key === "Enter" && byId("class").blur();
byId("format").onkeydown = (event) => event.stopPropagation();
document.addEventListener("keydown", pressed);

start().catch((error) => hint(error.message));
