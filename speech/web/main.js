// The page: what happens when.

import { RATE } from "./mel.js";
import { Live, health, posteriors, transcribe, useKey } from "./service.js";
import { Player, Sound, decode } from "./sound.js";
import { TranscriptView, WRITERS } from "./transcript.js";
import { View } from "./view.js";

const find = (id) => document.getElementById(id);
const PLAY = "M8 5.5v13l11-6.5Z", PAUSE = "M7.5 5.5h3v13h-3Zm6 0h3v13h-3Z";
const POSTERIOR_SECONDS = 60; // that the server gives at a time

const state = { model: "", name: "", file: null, sound: null, transcript: null, live: null, work: null };
const player = new Player(() => showPlaying());
const view = new View(
  { overview: find("overview"), wave: find("wave"), mel: find("mel"), letters: find("letters"), hover: find("hover") },
  { seek, look: lookUp },
);
const words = new TranscriptView(find("transcript"), find("partial"), find("word"), hear);

// --- Telling --------------------------------------------------------------------------------------

function tell(text, isBusy = false) {
  find("status").textContent = text;
  find("progress").hidden = !isBusy;
}

function fail(error) {
  if (error.name === "AbortError") return; // something newer took its place
  tell("");
  const reasons = { NotAllowedError: "the browser may not use the microphone", NotFoundError: "there is no microphone" };
  find("error").textContent = `Sorry: ${reasons[error.name] ?? error.message}.`;
  find("error").hidden = false;
  if (error.status === 401) askForKey();
}

function askForKey() {
  find("key-form").hidden = false;
  find("key").focus();
}

function seconds(value) {
  const minutes = Math.floor(value / 60);
  return `${minutes}:${(value - 60 * minutes).toFixed(1).padStart(4, "0")}`;
}

// --- A recording ----------------------------------------------------------------------------------

function begin(name) {
  state.work?.abort();
  state.work = new AbortController();
  player.stop();
  player.at = 0;
  document.body.classList.add("busy");
  find("error").hidden = true;
  find("posteriors").open = false;
  Object.assign(state, { name, transcript: null, sound: null, file: null });
  find("name").textContent = name;
  words.clear();
  view.loudest = undefined;
  find("result").hidden = false;
  document.querySelectorAll(".downloads button").forEach((button) => { button.disabled = true; });
}

function showSound(sound, isLive) {
  state.sound = sound;
  find("sound").hidden = sound === null;
  if (sound) view.show(sound, isLive);
  showClock();
}

async function open(file) {
  if (state.live) return;
  begin(file.name);
  state.file = file;
  const { signal } = state.work;
  tell("Listening to the recording …", true);
  decode(file).then((sound) => {
    if (signal.aborted) return;
    showSound(sound, false);
    view.words = words.words;
  });
  await recognise(file, signal);
}

async function recognise(file, signal) {
  const began = performance.now();
  try {
    const transcript = await transcribe(file, state.model, (more) => { words.add(more); view.draw(); }, signal);
    if (!signal.aborted) settle(transcript, (performance.now() - began) / 1000);
  } catch (error) {
    if (!signal.aborted) fail(error);
  }
}

function settle(transcript, took) {
  state.transcript = transcript;
  words.set(transcript.words);
  view.words = words.words;
  view.draw();
  document.querySelectorAll(".downloads button").forEach((button) => { button.disabled = false; });
  const count = transcript.words.length;
  const noun = count === 1 ? "word" : "words";
  tell(`${count} ${noun} in ${seconds(transcript.duration)}, recognised in ${took.toFixed(1)} s`
    + (state.sound ? "" : ". This browser cannot play the format, the server reads it"));
}

// --- Speaking -------------------------------------------------------------------------------------

async function toggleSpeaking() {
  if (state.live) {
    tell("The last words …", true);
    state.live.stop();
    return;
  }
  begin("Microphone");
  if (!navigator.mediaDevices) {
    fail(new Error("browsers give the microphone to https and to localhost only"));
    return;
  }
  const sound = new Sound();
  const live = new Live({
    block: (block) => { sound.push(block); view.draw(); showClock(); },
    partial: (message) => { find("partial").textContent = message.text; },
    final: (message) => {
      find("partial").textContent = "";
      words.add(message.words);
      view.words = words.words;
    },
    error: fail,
    over: () => endSpeaking(live, sound),
  });
  state.live = live;
  showSpeaking(true);
  tell("One moment …", true);
  try {
    await live.start();
    showSound(sound, true);
    tell("Speak now: words appear as you go.");
  } catch (error) {
    endSpeaking(live, sound);
    fail(error);
  }
}

function endSpeaking(live, sound) {
  if (state.live !== live) return;
  state.live = null;
  showSpeaking(false);
  find("partial").textContent = "";
  tell("");
  view.settle();
  showClock();
  if (!sound.length) return;
  state.file = sound.toWav();
  finishLive(state.work.signal);
}

// The whole of what was said once more: with all its context, and in subtitles.
async function finishLive(signal) {
  const began = performance.now();
  tell("Once more as a whole …", true);
  try {
    const transcript = await transcribe(state.file, state.model, () => {}, signal);
    if (!signal.aborted) settle(transcript, (performance.now() - began) / 1000);
  } catch (error) {
    if (!signal.aborted) fail(error);
  }
}

function showSpeaking(isOn) {
  find("speak").setAttribute("aria-pressed", String(isOn));
  find("speak-label").textContent = isOn ? "Stop" : "Speak";
  find("choose").disabled = isOn;
}

// --- Playing --------------------------------------------------------------------------------------

function hear(word) {
  if (!state.sound || state.live) return;
  player.play(state.sound, Math.max(0, word.start - 0.04), Math.min(state.sound.seconds, word.end + 0.06));
  showPlaying();
}

function togglePlaying() {
  if (!state.sound || state.live) return;
  if (player.isPlaying) player.stop();
  else player.play(state.sound, player.at >= state.sound.seconds - 0.05 ? 0 : player.at);
  showPlaying();
}

function seek(to) {
  if (!state.sound || state.live) return;
  const wasPlaying = player.isPlaying;
  player.stop();
  player.at = to;
  if (wasPlaying) player.play(state.sound, to);
  showPlaying();
}

function showPlaying() {
  find("play-shape").setAttribute("d", player.isPlaying ? PAUSE : PLAY);
  find("play").setAttribute("aria-label", player.isPlaying ? "Pause" : "Play");
  view.moveTo(player.position);
  words.follow(player.isPlaying ? player.position : null);
  showClock();
  if (player.isPlaying) requestAnimationFrame(showPlaying);
}

function showClock() {
  const total = state.sound?.seconds ?? 0;
  find("clock").textContent = state.live ? seconds(total) : `${seconds(player.position)} / ${seconds(total)}`;
  const slider = find("mel");
  slider.setAttribute("aria-valuemax", total.toFixed(1));
  slider.setAttribute("aria-valuenow", player.position.toFixed(1));
  slider.setAttribute("aria-valuetext", `${player.position.toFixed(1)} of ${total.toFixed(1)} seconds`);
}

// --- Posteriors -----------------------------------------------------------------------------------

function showPosteriors() {
  find("letters").hidden = !find("posteriors").open;
  view.draw();
  lookUp();
}

// Ask for the posteriors of what is in view, unless they are there: of a long recording a minute.
async function lookUp() {
  if (!find("posteriors").open || !state.file || state.live || state.isLooking) return;
  const part = view.partInView(POSTERIOR_SECONDS);
  if (view.posteriors && view.posteriors.start <= part.from && part.to <= view.posteriors.end) return;
  const { signal } = state.work;
  state.isLooking = true;
  find("hover").textContent = "looking into the network …";
  try {
    const isWhole = !state.sound || state.sound.seconds <= POSTERIOR_SECONDS;
    const file = isWhole ? state.file : state.sound.toWav(Math.round(part.start * RATE), Math.round(part.end * RATE));
    const found = await posteriors(file, isWhole ? 0 : part.start, signal);
    if (!signal.aborted) view.posteriors = { ...found, end: isWhole ? Infinity : part.end };
  } catch (error) {
    find("posteriors").open = false;
    if (!signal.aborted) fail(error);
  }
  state.isLooking = false;
  find("hover").textContent = "";
  view.draw();
  lookUp(); // the window may have moved on meanwhile
}

// --- Files ----------------------------------------------------------------------------------------

function download(format) {
  const content = WRITERS[format](state.transcript);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type: "text/plain;charset=utf-8" }));
  link.download = `${state.name.replace(/\.[^.]+$/, "") || "transcript"}.${format}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

async function copy() {
  await navigator.clipboard.writeText(state.transcript.text);
  tell("Copied.");
}

// --- Hands ----------------------------------------------------------------------------------------

find("choose").addEventListener("click", () => find("file").click());
find("file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  event.target.value = "";
  if (file) open(file);
});
find("speak").addEventListener("click", toggleSpeaking);
find("play").addEventListener("click", togglePlaying);
find("zoom-in").addEventListener("click", () => view.zoom(0.5));
find("zoom-out").addEventListener("click", () => view.zoom(2));
find("posteriors").addEventListener("toggle", showPosteriors);
find("copy").addEventListener("click", copy);
document.querySelectorAll("[data-format]").forEach((button) => {
  button.addEventListener("click", () => download(button.dataset.format));
});
find("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(find("key").value.trim());
  find("key-form").hidden = true;
  find("error").hidden = true;
  if (state.file) open(state.file);
});
find("mel").addEventListener("keydown", (event) => {
  const steps = { ArrowLeft: -0.5, ArrowRight: 0.5, PageUp: 5, PageDown: -5, Home: -Infinity, End: Infinity };
  if (!(event.key in steps) || !state.sound) return;
  event.preventDefault();
  seek(Math.max(0, Math.min(state.sound.seconds, player.position + steps[event.key])));
});
document.addEventListener("keydown", (event) => {
  const isTyping = event.target.closest("input, textarea");
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const onButton = event.target.closest("button, summary");
  const keys = { o: () => find("choose").click(), r: toggleSpeaking, "+": () => view.zoom(0.5), "-": () => view.zoom(2) };
  if (!onButton) keys[" "] = togglePlaying;
  const action = keys[event.key.toLowerCase()];
  if (!action) return;
  event.preventDefault();
  action();
});
let entered = 0; // dragenter and dragleave also come from within
addEventListener("dragenter", (event) => { event.preventDefault(); entered++; find("drop").classList.add("over"); });
addEventListener("dragleave", () => { if (--entered <= 0) find("drop").classList.remove("over"); });
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  entered = 0;
  find("drop").classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file) open(file);
});
addEventListener("paste", (event) => {
  const [file] = event.clipboardData.files;
  if (file) open(file);
});

try {
  const told = await health();
  state.model = told.model;
  find("model").textContent = told.model;
  find("health").classList.add("ok");
  if (told.needs_key && !sessionStorage.getItem("key")) askForKey();
} catch {
  find("model").textContent = "no answer";
  find("health").classList.add("bad");
}
