// The rating page: shows one frame, takes one number, asks for the next. What was said is kept by the server at once.
"use strict";

const LEAST_MS = 250;      // of a picture on the screen: an earlier key was meant for the one before
const TEN_MS = 450;        // after a 1: a 0 within it makes ten
const LARGEST = 4;         // screen pixels to one of a small picture
const BESIDE = 12;         // px of ground around a picture

const by = (id) => document.getElementById(id);
const stage = by("stage"), frame = by("frame"), slider = by("slider");
let state = null, shown = null, busy = false, away = 0, hiddenAt = null, pending = null;
let fitting = false, whole = false, pan = { x: 0, y: 0 };

// --- talking to the server ---

async function ask(what, body) {
  const how = body === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  let answer;
  try {
    answer = await fetch(what, how);
  } catch {
    throw new Error("The command has ended. All ratings are kept; start it again to go on.");
  }
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error);
  return told;
}

async function change(what, body) {
  if (busy) return false;
  busy = true;
  try {
    const told = await ask(what, body ?? {});
    notice("");
    await show(told);
    return true;
  } catch (error) {
    notice(error.message);
    if (state !== null) await again();
    return false;
  } finally {
    busy = false;
  }
}

async function again() {
  try { await show(await ask("state")); } catch (error) { notice(error.message); }
}

function notice(words) {
  by("notice").textContent = words;
  by("notice").hidden = words === "";
}

// --- one frame ---

async function show(told) {
  const other = state === null || told.item !== state.item || told.done !== state.done || told.skipped !== state.skipped;
  state = told;
  const gone = told.done + told.skipped;
  by("count").textContent = `${told.done} of ${told.total} rated`;
  by("left").textContent = told.skipped ? `${told.skipped} skipped` : "";
  by("bar").max = told.total;
  by("bar").value = gone;
  by("undo").disabled = gone === 0;
  by("end").hidden = told.item !== null;
  by("zoom").hidden = told.item === null;
  by("end-words").textContent = told.skipped ? `${told.done} rated, ${told.skipped} skipped; those come again at the next start.` : `${told.done} ratings are kept.`;
  frame.hidden = told.item === null;
  if (other) untouched();
  if (told.item === null) { shown = null; return; }
  if (!other) return;
  shown = null;
  frame.classList.add("waiting");
  frame.src = `frame/${told.item}.png`;
  try {
    await frame.decode();
  } catch {
    notice("This frame can no longer be read. S leaves it out.");
    return;
  }
  pan = { x: 0, y: 0 };
  place();
  frame.classList.remove("waiting");
  shown = performance.now();
  away = 0;
  hiddenAt = document.hidden ? shown : null;
  if (told.following !== null) new Image().src = `frame/${told.following}.png`;
}

function place() {
  if (state === null || state.item === null) return;
  const dots = window.devicePixelRatio || 1;
  const room = { x: stage.clientWidth, y: stage.clientHeight };
  const fit = Math.min((room.x - 2 * BESIDE) * dots / state.width, (room.y - 2 * BESIDE) * dots / state.height);
  const zoom = whole ? fit : Math.max(1, Math.min(LARGEST, Math.floor(fit)));
  const size = { x: state.width * zoom / dots, y: state.height * zoom / dots };
  const slack = { x: Math.max(0, size.x - room.x) / 2, y: Math.max(0, size.y - room.y) / 2 };
  pan = { x: Math.max(-slack.x, Math.min(slack.x, pan.x)), y: Math.max(-slack.y, Math.min(slack.y, pan.y)) };
  // On whole screen pixels, or the browser would resample.
  const left = Math.round(((room.x - size.x) / 2 + pan.x) * dots) / dots, top = Math.round(((room.y - size.y) / 2 + pan.y) * dots) / dots;
  Object.assign(frame.style, { width: `${size.x}px`, height: `${size.y}px`, left: `${left}px`, top: `${top}px` });
  frame.classList.toggle("crisp", zoom >= 1);
  stage.classList.toggle("larger", slack.x > 0 || slack.y > 0);
  const native = zoom === 1 ? "native pixels" : `native pixels, ${zoom} : 1`;
  by("zoom").textContent = whole ? `${state.width} × ${state.height}, ${Math.round(100 * zoom)} %` : `${state.width} × ${state.height}, ${native}`;
  by("fit-words").textContent = whole ? "native" : "whole";
}

function untouched() {
  by("half").classList.remove("touched");
  slider.value = 5;
  by("value").textContent = "–";
  chosen(null);
  if (state !== null && state.before !== null && state.before !== undefined) last(state.before, "taken back, was");
}

function chosen(score) {
  for (const each of document.querySelectorAll("#scale button")) each.classList.toggle("chosen", Number(each.dataset.score) === score);
}

function last(score, words) {
  by("last").replaceChildren(words + " ", Object.assign(document.createElement("b"), { textContent: String(score) }));
}

// --- saying a number ---

function ready() {
  return !busy && !fitting && shown !== null && performance.now() - shown >= LEAST_MS;
}

function forget() {
  if (pending !== null) clearTimeout(pending);
  pending = null;
}

async function rate(score, now = performance.now()) {
  forget();
  if (!ready()) return;
  const seconds = (now - shown - away) / 1000;
  chosen(score);
  if (await change("rate", { item: state.item, score, seconds: Math.max(0, seconds) })) last(score, "kept:");
}

function digit(score) {
  if (pending !== null && score === 0) return rate(10);
  if (pending !== null || !ready()) return undefined;
  if (score !== 1) return rate(score);
  chosen(1);
  const now = performance.now();
  pending = setTimeout(() => rate(1, now), TEN_MS);
  return undefined;
}

function touch(value) {
  forget();
  slider.value = Math.max(0, Math.min(10, value));
  by("half").classList.add("touched");
  by("value").textContent = slider.value;
  chosen(Number(slider.value));
}

function commit() {
  if (by("half").classList.contains("touched")) rate(Number(slider.value));
}

async function finish() {
  if (busy || fitting) return;
  fitting = true;
  forget();
  notice("The model reads the frames …");
  const watch = setInterval(async () => {
    try {
      const told = await ask("state");
      if (fitting && told.read) notice(`The model reads the frames: ${told.read[0]} of ${told.read[1]} …`);
    } catch { /* the answer to `finish` tells it */ }
  }, 500);
  try {
    await ask("finish", {});
    location.href = "result";
  } catch (error) {
    notice(error.message);
  } finally {
    fitting = false;
    clearInterval(watch);
  }
}

const undo = () => { forget(); return change("undo"); };
const skip = () => { forget(); return state !== null && state.item !== null ? change("skip", { item: state.item }) : undefined; };
const fit = () => { whole = !whole; place(); };

// A digit says itself on every keyboard; with Shift, where that types a sign, half a point more.
function number(event) {
  if (/^[0-9]$/.test(event.key)) return Number(event.key);
  const row = /^Digit([0-9])$/.exec(event.code);
  return row === null ? null : Math.min(10, Number(row[1]) + (event.shiftKey ? 0.5 : 0));
}

const KEYS = {
  t: () => rate(10), "+": () => rate(10), u: undo, Backspace: undo, s: skip, f: fit, e: finish,
  ArrowUp: () => touch(Number(slider.value) + 0.5), ArrowRight: () => touch(Number(slider.value) + 0.5),
  ArrowDown: () => touch(Number(slider.value) - 0.5), ArrowLeft: () => touch(Number(slider.value) - 0.5),
  Enter: () => (state !== null && state.item === null ? finish() : commit()),
};

document.addEventListener("keydown", (event) => {
  if ((event.repeat && !event.key.startsWith("Arrow")) || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Enter" && event.target instanceof HTMLButtonElement) return;  // it presses that button
  const said = number(event), act = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (said === null && act === undefined) return;
  event.preventDefault();
  if (said === null) act(); else digit(said);
});

for (const each of document.querySelectorAll("#scale button")) each.addEventListener("click", () => { rate(Number(each.dataset.score)); each.blur(); });
for (const [id, act] of [["undo", undo], ["skip", skip], ["fit", fit], ["finish", finish], ["end-finish", finish]]) {
  by(id).addEventListener("click", () => { act(); by(id).blur(); });
}
slider.addEventListener("input", () => touch(Number(slider.value)));
slider.addEventListener("change", () => slider.blur());
by("keep").addEventListener("click", commit);

stage.addEventListener("pointerdown", (event) => stage.setPointerCapture(event.pointerId));
stage.addEventListener("pointermove", (event) => {
  if (!stage.hasPointerCapture(event.pointerId)) return;
  pan = { x: pan.x + event.movementX, y: pan.y + event.movementY };
  place();
});
window.addEventListener("resize", place);
document.addEventListener("visibilitychange", () => {
  if (document.hidden) hiddenAt = performance.now();
  else if (hiddenAt !== null) { away += performance.now() - hiddenAt; hiddenAt = null; }
});

again();
