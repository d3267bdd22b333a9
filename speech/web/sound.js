// Samples at 16 kHz that may still grow, playing them, and bringing other rates down to theirs.

import { BANDS, HOP, RATE, melFrame } from "./mel.js";

const FLOOR_DB = -45, RANGE_DB = 75;

export class Sound {
  constructor(samples = new Float32Array(0)) {
    this.samples = samples; // may have room behind `length`
    this.length = samples.length;
    this.frames = new Map(); // of 10 ms, made when they are looked at
  }

  get seconds() { return this.length / RATE; }

  push(block) {
    if (this.length + block.length > this.samples.length) {
      const larger = new Float32Array(Math.max(RATE * 60, 2 * (this.length + block.length)));
      larger.set(this.samples.subarray(0, this.length));
      this.samples = larger;
    }
    this.samples.set(block, this.length);
    this.length += block.length;
  }

  // Levels 0 to 255 of the bands of one frame.
  frame(number) {
    let levels = this.frames.get(number);
    if (levels) return levels;
    const decibels = new Float32Array(BANDS);
    melFrame(this.samples, this.length, number * HOP, decibels);
    levels = Uint8Array.from(decibels, (db) => Math.max(0, Math.min(255, ((db - FLOOR_DB) / RANGE_DB) * 255)));
    if (number * HOP + 256 <= this.length) {
      if (this.frames.size > 40000) this.frames.clear();
      this.frames.set(number, levels);
    }
    return levels;
  }

  // Lowest and highest sample of a stretch; of a long one, enough of them.
  peaks(first, last) {
    let low = 0, high = 0;
    const step = Math.max(1, Math.floor((last - first) / 400));
    for (let n = Math.max(0, first); n < Math.min(last, this.length); n += step) {
      const value = this.samples[n];
      if (value < low) low = value;
      if (value > high) high = value;
    }
    return [low, high];
  }

  // A stretch as a file, from one sample to another.
  toWav(first = 0, last = this.length) {
    const bytes = 2 * (last - first);
    const view = new DataView(new ArrayBuffer(44 + bytes));
    const text = (at, letters) => [...letters].forEach((letter, n) => view.setUint8(at + n, letter.charCodeAt(0)));
    text(0, "RIFF"); view.setUint32(4, 36 + bytes, true); text(8, "WAVEfmt ");
    view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, 1, true);
    view.setUint32(24, RATE, true); view.setUint32(28, 2 * RATE, true); view.setUint16(32, 2, true);
    view.setUint16(34, 16, true); text(36, "data"); view.setUint32(40, bytes, true);
    new Int16Array(view.buffer, 44).set(toPcm(this.samples.subarray(first, last)));
    return new Blob([view], { type: "audio/wav" });
  }
}

export function toPcm(samples) {
  return Int16Array.from(samples, (value) => Math.max(-32768, Math.min(32767, Math.round(value * 32767))));
}

// What the browser can decode, else null: the server reads more formats than it plays.
export async function decode(file) {
  try {
    const context = new OfflineAudioContext(1, 1, RATE);
    const buffer = await context.decodeAudioData(await file.arrayBuffer());
    const mono = new Float32Array(buffer.length);
    for (let channel = 0; channel < buffer.numberOfChannels; channel++) {
      const values = buffer.getChannelData(channel);
      for (let n = 0; n < mono.length; n++) mono[n] += values[n] / buffer.numberOfChannels;
    }
    return new Sound(mono);
  } catch {
    return null;
  }
}

export class Player {
  constructor(onEnd) { this.onEnd = onEnd; this.source = null; this.at = 0; }

  get isPlaying() { return this.source !== null; }

  get position() {
    if (!this.source) return this.at;
    return Math.min(this.end, this.from + Math.max(0, this.context.currentTime - this.began));
  }

  play(sound, from, to = sound.seconds) {
    this.stop();
    this.context ??= new AudioContext();
    this.context.resume();
    const first = Math.floor(from * RATE), last = Math.min(sound.length, Math.ceil(to * RATE));
    if (last <= first) return;
    const buffer = this.context.createBuffer(1, last - first, RATE);
    buffer.copyToChannel(sound.samples.subarray(first, last), 0);
    const source = this.context.createBufferSource();
    source.buffer = buffer;
    source.connect(this.context.destination);
    source.onended = () => { if (this.source === source) { this.at = to; this.source = null; this.onEnd(); } };
    source.start();
    [this.source, this.from, this.end, this.began] = [source, from, to, this.context.currentTime];
  }

  stop() {
    if (!this.source) return;
    this.at = this.position;
    const source = this.source;
    this.source = null;
    source.stop();
  }
}

// From the microphone's rate to RATE by a windowed sinc, block after block.
export class Resampler {
  constructor(rate) {
    this.step = rate / RATE;
    this.cutoff = Math.min(1, 1 / this.step) * 0.92;
    this.reach = Math.ceil(16 * Math.max(1, this.step));
    this.held = new Float32Array(this.reach);
    this.position = this.reach;
  }

  push(block) {
    const input = new Float32Array(this.held.length + block.length);
    input.set(this.held);
    input.set(block, this.held.length);
    const output = [];
    for (; this.position + this.reach < input.length; this.position += this.step) output.push(this.value(input));
    const used = Math.max(0, Math.floor(this.position) - this.reach);
    this.held = input.slice(used);
    this.position -= used;
    return Float32Array.from(output);
  }

  value(input) {
    let sum = 0;
    for (let n = Math.ceil(this.position - this.reach); n <= this.position + this.reach; n++) {
      const distance = n - this.position;
      const x = Math.PI * this.cutoff * distance;
      const sinc = Math.abs(x) < 1e-9 ? 1 : Math.sin(x) / x;
      sum += (input[n] ?? 0) * sinc * (0.5 + 0.5 * Math.cos((Math.PI * distance) / this.reach));
    }
    return sum * this.cutoff;
  }
}
