// The server: health, transcriptions as events, posteriors, live audio.

import { RATE } from "./mel.js";
import { Resampler, toPcm } from "./sound.js";

let key = sessionStorage.getItem("key") ?? "";

export function useKey(value) {
  key = value;
  sessionStorage.setItem("key", value);
}

export async function health() {
  const response = await fetch("health");
  return response.json();
}

function form(file, fields) {
  const data = new FormData();
  for (const [name, value] of fields) data.append(name, value);
  data.append("file", file, file.name ?? "recording.wav");
  return data;
}

async function post(path, body, signal) {
  const headers = key ? { authorization: `Bearer ${key}` } : {};
  const response = await fetch(path, { method: "POST", headers, body, signal });
  if (response.ok) return response;
  let message = `the server answered ${response.status}`;
  try { message = (await response.json()).error.message; } catch { /* no JSON: the status says it */ }
  throw Object.assign(new Error(message), { status: response.status });
}

// The words come segment by segment; `onWords` gets them, the whole transcript is returned.
export async function transcribe(file, model, onWords, signal) {
  const fields = [["model", model], ["response_format", "verbose_json"], ["stream", "true"],
    ["timestamp_granularities[]", "word"], ["timestamp_granularities[]", "segment"],
    ["include[]", "srt"], ["include[]", "vtt"]];
  const response = await post("v1/audio/transcriptions", form(file, fields), signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error("the server's answer broke off");
    held += value;
    for (let end = held.indexOf("\n\n"); end >= 0; end = held.indexOf("\n\n")) {
      const event = JSON.parse(held.slice("data: ".length, end));
      held = held.slice(end + 2);
      if (event.error) throw new Error(event.error.message);
      const { type, ...content } = event;
      if (type === "transcript.text.done") return content;
      onWords(content.words);
    }
  }
}

// Of at most a minute; `start` is where it begins in the recording.
export async function posteriors(file, start, signal) {
  const content = await (await post("v1/audio/posteriors", form(file, []), signal)).json();
  const bytes = Uint8Array.from(atob(content.probabilities), (letter) => letter.charCodeAt(0));
  return { start, seconds: content.seconds_per_frame, tokens: content.tokens, frames: content.frames, bytes };
}

// The microphone to the server; `on` has ready, block (samples at RATE), partial, final, over, error.
export class Live {
  constructor(on) { this.on = on; this.isStopped = this.isOver = false; }

  async start() {
    const constraints = { audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: true } };
    this.stream = await navigator.mediaDevices.getUserMedia(constraints);
    try {
      this.checkWanted();
      this.context = new AudioContext();
      await this.context.audioWorklet.addModule("worklet.js");
      this.checkWanted();
      await this.connect();
      this.checkWanted();
    } catch (error) {
      this.close();
      throw error;
    }
    const resampler = new Resampler(this.context.sampleRate);
    this.tap = new AudioWorkletNode(this.context, "tap", { numberOfOutputs: 0 });
    this.tap.port.onmessage = ({ data }) => {
      const block = resampler.push(data);
      this.on.block(block);
      if (this.socket.readyState === WebSocket.OPEN) this.socket.send(toPcm(block));
    };
    this.context.createMediaStreamSource(this.stream).connect(this.tap);
  }

  checkWanted() {
    if (this.isStopped) throw new DOMException("stopped before it began", "AbortError");
  }

  connect() {
    const address = new URL("v1/audio/live", location.href);
    address.protocol = address.protocol.replace("http", "ws");
    this.socket = new WebSocket(address);
    return new Promise((resolve, reject) => {
      this.socket.onopen = () => { if (key) this.socket.send(JSON.stringify({ type: "start", api_key: key })); };
      this.socket.onclose = () => { reject(new Error("the server closed the connection")); this.finish(); };
      this.socket.onmessage = ({ data }) => {
        const message = JSON.parse(data);
        if (message.type === "ready") {
          if (message.sample_rate !== RATE) reject(new Error(`the server wants ${message.sample_rate} Hz`));
          resolve();
        } else if (message.type === "error") {
          reject(new Error(message.error.message));
          this.on.error(new Error(message.error.message));
        } else if (message.type === "done") this.finish();
        else this.on[message.type](message);
      };
    });
  }

  // Stop listening; what was said last is still recognised.
  stop() {
    this.isStopped = true;
    this.close();
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify({ type: "finish" }));
    else this.finish();
  }

  close() {
    this.stream?.getTracks().forEach((track) => track.stop());
    if (this.tap) this.tap.port.onmessage = null;
    if (this.context && this.context.state !== "closed") this.context.close();
  }

  finish() {
    if (this.isOver) return;
    this.isOver = true;
    this.close();
    this.socket?.close();
    this.on.over();
  }
}
