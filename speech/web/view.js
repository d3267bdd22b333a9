// What is seen of the sound: the whole of it small, and a window of it as waveform, log-mel
// spectrogram and, on request, the probability of each character.

import { drawLanes, lanesHeight, tellFrame } from "./lanes.js";
import { BANDS, HOP, RATE, bandHz } from "./mel.js";

const SHORTEST_SECONDS = 1, PIXELS_PER_SECOND = 90; // where words have room for their names
const TICK_PIXELS = 90, TICK_SECONDS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 900, 3600];

const dark = matchMedia("(prefers-color-scheme: dark)");

// Anchors of the colour scale, from silence to loud.
const SCALES = {
  dark: [[13, 15, 22], [33, 24, 82], [98, 38, 130], [190, 58, 110], [247, 133, 71], [253, 231, 160]],
  light: [[255, 255, 255], [226, 226, 250], [164, 158, 236], [98, 78, 205], [66, 30, 130], [26, 10, 50]],
};

function colours(anchors) {
  const table = new Uint32Array(256);
  for (let level = 0; level < 256; level++) {
    const place = (level / 255) * (anchors.length - 1);
    const [from, to] = [anchors[Math.floor(place)], anchors[Math.min(anchors.length - 1, Math.floor(place) + 1)]];
    const [r, g, b] = from.map((value, n) => Math.round(value + (to[n] - value) * (place % 1)));
    table[level] = (255 << 24) | (b << 16) | (g << 8) | r;
  }
  return table;
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

export class View {
  constructor(elements, on) {
    Object.assign(this, elements); // canvases overview, wave, mel, letters; hover
    this.on = on; // seek(seconds); look() where the window moved
    this.sound = null;
    this.words = [];
    this.posteriors = null;
    this.now = 0;
    this.start = 0;
    this.span = SHORTEST_SECONDS;
    this.isLive = false;
    this.asked = false;
    this.listen();
    this.recolour();
  }

  listen() {
    const observer = new ResizeObserver(() => this.draw());
    [this.overview, this.mel, this.letters].forEach((canvas) => observer.observe(canvas));
    dark.addEventListener("change", () => this.recolour());
    const seek = (canvas, toSeconds) => {
      const move = (event) => {
        const box = canvas.getBoundingClientRect();
        const share = Math.max(0, Math.min(1, (event.clientX - box.left) / box.width));
        this.on.seek(Math.max(0, Math.min(this.seconds, toSeconds(share))));
      };
      canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); move(event); });
      canvas.addEventListener("pointermove", (event) => { if (event.buttons) move(event); });
    };
    seek(this.overview, (share) => share * this.seconds);
    seek(this.wave, (share) => this.start + share * this.span);
    seek(this.mel, (share) => this.start + share * this.span);
    this.mel.addEventListener("pointermove", (event) => this.tellBand(event));
    this.letters.addEventListener("pointermove", (event) => {
      this.hover.textContent = tellFrame(this.posteriors, this.secondsAt(event, this.letters));
    });
    for (const canvas of [this.mel, this.letters]) {
      canvas.addEventListener("pointerleave", () => { this.hover.textContent = ""; });
    }
  }

  get seconds() { return this.sound?.seconds ?? 0; }

  recolour() {
    this.table = colours(SCALES[dark.matches ? "dark" : "light"]);
    this.ink = { accent: colour("--accent"), soft: colour("--soft"), ink: colour("--ink"), line: colour("--line"),
      live: colour("--live"), card: colour("--card") };
    this.draw();
  }

  show(sound, isLive = false) {
    this.sound = sound;
    this.isLive = isLive;
    this.words = [];
    this.posteriors = null;
    this.start = this.now = 0;
    this.span = isLive ? this.comfortableSpan() : this.wholeSpan();
    this.draw();
  }

  comfortableSpan() { return Math.max(3, this.mel.clientWidth / PIXELS_PER_SECOND); }

  wholeSpan() { return Math.max(SHORTEST_SECONDS, Math.min(this.comfortableSpan(), this.seconds)); }

  // Live audio ended: all of it is seen.
  settle() {
    this.isLive = false;
    this.span = this.wholeSpan();
    this.start = 0;
    this.draw();
  }

  zoom(factor) {
    const middle = this.isVisible(this.now) ? this.now : this.start + this.span / 2;
    const span = Math.max(SHORTEST_SECONDS, Math.min(Math.max(this.seconds, SHORTEST_SECONDS), this.span * factor));
    this.start = middle - ((middle - this.start) * span) / this.span;
    this.span = span;
    this.keepInside();
    this.draw();
    this.on.look();
  }

  isVisible(seconds) { return seconds >= this.start && seconds <= this.start + this.span; }

  // What is in view, and `longest` seconds around it; around the playhead where more is in view.
  partInView(longest) {
    const isAll = this.span <= longest;
    const from = isAll ? this.start : this.now;
    const to = isAll ? Math.min(this.seconds, this.start + this.span) : this.now;
    const start = Math.max(0, Math.min((from + to - longest) / 2, this.seconds - longest));
    return { from, to, start, end: Math.min(this.seconds, start + longest) };
  }

  keepInside() {
    this.start = Math.max(0, Math.min(this.start, this.seconds - this.span));
  }

  // Put the playhead somewhere and turn the page where it left the window.
  moveTo(seconds) {
    this.now = seconds;
    if (!this.isVisible(seconds) && !this.isLive) {
      this.start = seconds - 0.1 * this.span;
      this.keepInside();
      this.on.look();
    }
    this.draw();
  }

  draw() {
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => { this.asked = false; this.drawNow(); });
  }

  drawNow() {
    if (!this.sound || !this.mel.clientWidth) return;
    if (this.isLive) this.start = Math.max(0, this.seconds - this.span);
    this.drawOverview();
    this.drawWave();
    this.drawMel();
    if (!this.letters.hidden) this.drawLetters();
  }

  // The canvas at the screen's own resolution, its context scaled to CSS pixels.
  prepare(canvas) {
    const ratio = Math.min(2, devicePixelRatio || 1);
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    return { context, width, height };
  }

  x(seconds, width) { return ((seconds - this.start) / this.span) * width; }

  drawWaveform(context, width, height, start, span) {
    const loudest = this.isLive ? 0.5 : (this.loudest ??= Math.max(0.05, ...this.sound.peaks(0, this.sound.length).map(Math.abs)));
    for (let x = 0; x < width; x++) {
      const first = Math.floor((start + (x / width) * span) * RATE);
      const last = Math.ceil((start + ((x + 1) / width) * span) * RATE);
      if (first >= this.sound.length) break;
      const [low, high] = this.sound.peaks(first, last);
      const top = height / 2 - Math.min(1, high / loudest) * (height / 2 - 2);
      const bottom = height / 2 - Math.max(-1, low / loudest) * (height / 2 - 2);
      context.fillRect(x, top, 1, Math.max(1, bottom - top));
    }
  }

  drawOverview() {
    const { context, width, height } = this.prepare(this.overview);
    context.fillStyle = this.ink.soft;
    if (!this.isLive) this.drawWaveform(context, width, height, 0, Math.max(this.seconds, 0.01));
    else this.drawLevel(context, width, height);
    if (this.isLive) return;
    context.fillStyle = this.ink.accent;
    context.globalAlpha = 0.16;
    const share = width / Math.max(this.seconds, 0.01);
    if (this.span < this.seconds) context.fillRect(this.start * share, 0, Math.max(3, this.span * share), height);
    context.globalAlpha = 1;
    context.fillRect(this.now * share - 1, 0, 2, height);
  }

  // How loud the microphone is.
  drawLevel(context, width, height) {
    const [low, high] = this.sound.peaks(Math.max(0, this.sound.length - 1600), this.sound.length);
    const decibels = 20 * Math.log10(Math.max(1e-4, high, -low));
    context.fillStyle = this.ink.live;
    context.beginPath();
    context.roundRect(4, height / 2 - 4, Math.max(8, (width - 8) * Math.max(0, 1 + decibels / 60)), 8, 4);
    context.fill();
  }

  drawWave() {
    const { context, width, height } = this.prepare(this.wave);
    context.fillStyle = this.ink.accent;
    context.globalAlpha = 0.75;
    this.drawWaveform(context, width, height, this.start, this.span);
    context.globalAlpha = 1;
    this.drawTicks(context, width, height);
    this.drawPlayhead(context, width, height);
  }

  drawTicks(context, width, height) {
    const step = TICK_SECONDS.find((seconds) => (seconds / this.span) * width >= TICK_PIXELS) ?? TICK_SECONDS.at(-1);
    context.font = "10px ui-monospace, Menlo, Consolas, monospace";
    context.textAlign = "left";
    for (let n = Math.max(1, Math.ceil(this.start / step)); n * step <= this.start + this.span; n++) {
      const x = this.x(n * step, width);
      this.label(context, `${Number((n * step).toFixed(1))} s`, x + 3, height - 3, this.ink.soft);
      context.fillRect(x, height - 10, 1, 10);
    }
  }

  drawMel() {
    const { context, width, height } = this.prepare(this.mel);
    const columns = this.mel.width;
    const image = new ImageData(columns, BANDS);
    const pixels = new Uint32Array(image.data.buffer).fill(this.table[0]);
    for (let x = 0; x < columns; x++) {
      const number = Math.floor(((this.start + ((x + 0.5) / columns) * this.span) * RATE) / HOP);
      if (number * HOP >= this.sound.length) break;
      const levels = this.sound.frame(number);
      for (let band = 0; band < BANDS; band++) pixels[(BANDS - 1 - band) * columns + x] = this.table[levels[band]];
    }
    this.buffer ??= document.createElement("canvas");
    this.buffer.width = columns;
    this.buffer.height = BANDS;
    this.buffer.getContext("2d").putImageData(image, 0, 0);
    context.imageSmoothingQuality = "high";
    context.drawImage(this.buffer, 0, 0, width, height);
    this.drawWordBounds(context, width, height);
    this.drawPlayhead(context, width, height);
  }

  // A line under each word, and its name where the one before leaves room.
  drawWordBounds(context, width, height) {
    context.font = "600 12px system-ui, sans-serif";
    context.textAlign = "center";
    let taken = 0;
    for (const word of this.words) {
      if (word.end < this.start || word.start > this.start + this.span) continue;
      const [left, right] = [this.x(word.start, width), this.x(word.end, width)];
      context.fillStyle = this.ink.accent;
      context.fillRect(left, height - 3, Math.max(2, right - left - 1), 3);
      const reach = context.measureText(word.word).width / 2;
      const middle = Math.max((left + right) / 2, reach + 2);
      if (middle - reach < taken || middle + reach > width) continue;
      this.label(context, word.word, middle, height - 8, this.ink.ink);
      taken = middle + reach + 3;
    }
  }

  // Text that can be read on whatever is under it.
  label(context, text, x, y, colour) {
    context.textBaseline = "alphabetic";
    context.lineJoin = "round";
    context.lineWidth = 3.5;
    context.strokeStyle = this.ink.card;
    context.strokeText(text, x, y);
    context.fillStyle = colour;
    context.fillText(text, x, y);
  }

  drawPlayhead(context, width, height) {
    if (this.isLive) return;
    context.fillStyle = this.ink.live;
    context.fillRect(this.x(this.now, width) - 1, 0, 2, height);
  }

  drawLetters() {
    if (!this.posteriors) return;
    this.letters.style.height = `${lanesHeight(this.posteriors)}px`;
    const { context, width, height } = this.prepare(this.letters);
    const visible = { start: this.start, span: this.span, width, height };
    drawLanes(context, this.posteriors, visible, this.ink);
    this.drawPlayhead(context, width, height);
  }

  secondsAt(event, canvas) {
    const box = canvas.getBoundingClientRect();
    return this.start + ((event.clientX - box.left) / box.width) * this.span;
  }

  tellBand(event) {
    const box = this.mel.getBoundingClientRect();
    const seconds = this.secondsAt(event, this.mel);
    const hz = bandHz(1 - (event.clientY - box.top) / box.height);
    this.hover.textContent = `${seconds.toFixed(2)} s, ${Math.max(0, hz).toFixed(0)} Hz`;
  }
}
