// Log-mel frames for the eye: 512-point spectra every 10 ms in 80 mel bands (Slaney's scale).
// The network computes its own on the server.

export const RATE = 16000;
export const HOP = 160;
const SIZE = 512;
export const BANDS = 80;

const window_ = Float32Array.from({ length: SIZE }, (_, n) => 0.5 - 0.5 * Math.cos((2 * Math.PI * n) / SIZE));
const cosine = Float32Array.from({ length: SIZE / 2 }, (_, n) => Math.cos((2 * Math.PI * n) / SIZE));
const sine = Float32Array.from({ length: SIZE / 2 }, (_, n) => -Math.sin((2 * Math.PI * n) / SIZE));
const reversed = Uint16Array.from({ length: SIZE }, (_, n) => {
  let result = 0;
  for (let bit = 1; bit < SIZE; bit <<= 1) result = (result << 1) | (n & bit ? 1 : 0);
  return result;
});

// Slaney: linear to 1 kHz, logarithmic above.
const toMel = (hz) => (hz < 1000 ? (3 * hz) / 200 : 15 + (27 * Math.log(hz / 1000)) / Math.log(6.4));
const toHz = (mel) => (mel < 15 ? (200 * mel) / 3 : 1000 * Math.exp((Math.log(6.4) * (mel - 15)) / 27));
const edges = Array.from({ length: BANDS + 2 }, (_, n) => (toHz((toMel(RATE / 2) * n) / (BANDS + 1)) * SIZE) / RATE);

export function bandHz(share) {
  return toHz(toMel(RATE / 2) * share);
}

const real = new Float32Array(SIZE);
const imaginary = new Float32Array(SIZE);
const power = new Float32Array(SIZE / 2 + 1);

// The FFT of Cooley and Tukey, in place, decimated in time.
function transform() {
  for (let half = 1; half < SIZE; half *= 2) {
    const step = SIZE / (2 * half);
    for (let start = 0; start < SIZE; start += 2 * half) {
      for (let n = 0, k = 0; n < half; n++, k += step) {
        const a = start + n, b = a + half;
        const x = real[b] * cosine[k] - imaginary[b] * sine[k];
        const y = real[b] * sine[k] + imaginary[b] * cosine[k];
        real[b] = real[a] - x; imaginary[b] = imaginary[a] - y;
        real[a] += x; imaginary[a] += y;
      }
    }
  }
}

// Levels in decibels of the frame around sample `centre`, into `out` (BANDS).
export function melFrame(samples, length, centre, out) {
  const first = centre - SIZE / 2;
  for (let n = 0; n < SIZE; n++) {
    const at = first + n;
    const to = reversed[n];
    real[to] = at >= 0 && at < length ? samples[at] * window_[n] : 0;
    imaginary[to] = 0;
  }
  transform();
  for (let n = 0; n <= SIZE / 2; n++) power[n] = real[n] * real[n] + imaginary[n] * imaginary[n];
  for (let band = 0; band < BANDS; band++) {
    const [low, middle, high] = [edges[band], edges[band + 1], edges[band + 2]];
    let sum = 0, weights = 0;
    for (let bin = Math.max(0, Math.floor(low)); bin <= Math.min(SIZE / 2, Math.ceil(high)); bin++) {
      const weight = Math.min((bin - low) / (middle - low), (high - bin) / (high - middle));
      if (weight > 0) { sum += weight * power[bin]; weights += weight; }
    }
    if (weights === 0) { sum = power[Math.round(middle)]; weights = 1; }
    out[band] = 10 * Math.log10(sum / weights + 1e-9);
  }
}
