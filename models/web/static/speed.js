// How many of the camera's frames are shown with what was found on them, and how long that takes.

import { at } from "./page.js";

const SPEED_EVERY = 500;
const SPEED_OVER = 2000;

// Milliseconds: a frame counts as shown only if nothing that is said on it is older.
const OLDEST = 150;

// When each of the camera's frames was drawn that counts, and how long it took from frame to overlay.
export const speed = { frames: [], latency: 0, told: 0 };

export function count({ time, faces, spent, looks }, now) {
  const latency = now - time;
  const oldest = Math.max(0, ...faces.map(({ seen }) => now - seen));
  const fresh = oldest <= OLDEST;
  globalThis.emofl.drawn?.({ fresh, looks, spent, latency, oldest });
  speed.latency = speed.latency ? 0.9 * speed.latency + 0.1 * latency : latency;
  if (fresh) speed.frames.push(now);
  while (speed.frames[0] < now - SPEED_OVER) speed.frames.shift();
  if (now - speed.told < SPEED_EVERY) return;
  const few = speed.frames.length < 2;
  if (few && at("speed").hidden) return;
  speed.told = now;
  const rate = few ? "under 1" : ((1000 * (speed.frames.length - 1)) / (now - speed.frames[0])).toFixed(0);
  at("speed").hidden = false;
  at("speed").textContent = `${rate} FPS · ${speed.latency.toFixed(0)} ms`;
}

export function countAnew() {
  Object.assign(speed, { frames: [], latency: 0 });
  at("speed").hidden = true;
}
