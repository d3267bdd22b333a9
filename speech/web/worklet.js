// Hands the microphone's samples over in blocks.

const BLOCK = 1024;

class Tap extends AudioWorkletProcessor {
  constructor() {
    super();
    this.block = new Float32Array(BLOCK);
    this.filled = 0;
  }

  process([channels]) {
    const input = channels[0];
    if (!input) return true;
    for (let n = 0; n < input.length; n++) {
      this.block[this.filled++] = input[n];
      if (this.filled === BLOCK) {
        this.port.postMessage(this.block.slice());
        this.filled = 0;
      }
    }
    return true;
  }
}

registerProcessor("tap", Tap);
