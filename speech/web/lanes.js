// The posteriors: one lane a character, the blank at the bottom, bars as high as the probability.

const LANE = 14, GUTTER = 22;
const FAINTEST = 0.02;
const BLANK = 0;

export function lanesHeight(posteriors) {
  return LANE * posteriors.tokens.length + 4;
}

// `visible` has start and span in seconds, width and height in CSS pixels.
export function drawLanes(context, posteriors, visible, ink) {
  context.font = "11px ui-monospace, Menlo, Consolas, monospace";
  context.textBaseline = "middle";
  context.textAlign = "center";
  const lanes = [...posteriors.tokens.keys()].slice(1).concat(BLANK);
  lanes.forEach((token, lane) => drawLane(context, posteriors, token, 1 + LANE * (lane + 1), visible, ink));
  context.globalAlpha = 0.85;
  context.fillStyle = ink.card;
  context.fillRect(0, 0, GUTTER, visible.height);
  context.globalAlpha = 1;
  context.fillStyle = ink.ink;
  lanes.forEach((token, lane) => context.fillText(nameOf(posteriors, token), GUTTER / 2, 2 + LANE * (lane + 0.5)));
}

function drawLane(context, { start, seconds, frames, tokens, bytes }, token, bottom, visible, ink) {
  const x = (frame) => ((start + frame * seconds - visible.start) / visible.span) * visible.width;
  context.fillStyle = ink.line;
  context.fillRect(0, bottom, visible.width, 0.5);
  context.fillStyle = token === BLANK ? ink.soft : ink.accent;
  const first = Math.max(0, Math.floor((visible.start - start) / seconds));
  const last = Math.min(frames, Math.ceil((visible.start + visible.span - start) / seconds));
  for (let frame = first; frame < last; frame++) {
    const probability = bytes[frame * tokens.length + token] / 255;
    if (probability < FAINTEST) continue;
    const height = Math.max(1, probability * (LANE - 2));
    context.globalAlpha = token === BLANK ? 0.35 : 0.4 + 0.6 * probability;
    context.fillRect(x(frame), bottom - height, Math.max(1, x(frame + 1) - x(frame) - 0.4), height);
  }
  context.globalAlpha = 1;
}

function nameOf(posteriors, token) {
  return { "": "∅", " ": "␣" }[posteriors.tokens[token]] ?? posteriors.tokens[token];
}

// The most probable characters at a time, in words.
export function tellFrame(posteriors, at) {
  if (!posteriors) return "";
  const { start, seconds, frames, tokens, bytes } = posteriors;
  const frame = Math.floor((at - start) / seconds);
  if (frame < 0 || frame >= frames) return "";
  const row = [...bytes.subarray(frame * tokens.length, (frame + 1) * tokens.length)];
  const best = row.map((value, token) => [value / 255, token]).sort((a, b) => b[0] - a[0]).slice(0, 3);
  const told = best.filter(([probability]) => probability >= 0.01)
    .map(([probability, token]) => `${nameOf(posteriors, token)} ${Math.round(100 * probability)} %`);
  return `${at.toFixed(2)} s: ${told.join("  ")}`;
}
