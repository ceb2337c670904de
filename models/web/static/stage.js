// The stage: a frame or a picture with what was found in it, drawn for those who see it and said for those who do not.

import { draw, said } from "./overlay.js";
import { at, hint, pressed, state } from "./page.js";
import { countAnew } from "./speed.js";

const SPOKEN_EVERY = 2500;
const LISTED_EVERY = 400;

export function show() {
  const overlay = at("overlay");
  const ratio = Math.min(2, devicePixelRatio || 1);
  const [columns, rows] = state.size.map((side) => Math.round(side * ratio));
  if (overlay.width !== columns || overlay.height !== rows) [overlay.width, overlay.height] = [columns, rows];
  const mirror = state.view.live && pressed("mirror");
  const view = { ...state.view, mirror, ratio, heatmap: pressed("heatmap"), guided: state.model.guided && !at("whole").checked };
  draw(overlay, state.faces, state.model.classes, view);
  if (!state.faces.length) hint("No face in view");
  else hint(view.guided && state.view.live ? "There is no face detector here: put your face into the oval." : "");
}

// In words, too: a list beside the view, and now and then a sentence for those who do not see it.
export function speak(now) {
  if (state.view.live && now - state.listed < LISTED_EVERY) return;
  state.listed = now;
  const faces = state.view.live && pressed("mirror") ? [...state.faces].reverse() : state.faces;
  const found = faces.map((face) => said(face, state.model.classes));
  at("faces").replaceChildren(
    ...faces.map((face, i) => {
      const item = document.createElement("li");
      const order = face.steady.probabilities.map((part, c) => [part, state.model.classes[c]]).sort((a, b) => b[0] - a[0]);
      item.textContent = `Face ${i + 1}: ${found[i].label} (${order.slice(0, 3).map(([part, name]) => `${name} ${Math.round(100 * part)} %`).join(", ")})`;
      return item;
    }),
  );
  if (state.view.live && now - state.spoken < SPOKEN_EVERY) return;
  state.spoken = now;
  const words = found.map(({ label, sure }, i) => `Face ${i + 1}: ${label}, ${sure}`).join(". ") || "No face in view";
  if (at("status").textContent !== words) at("status").textContent = words;
}

// Nothing that was found before is shown or said any more.
export function clear() {
  Object.assign(state, { faces: [], spoken: -Infinity, listed: -Infinity });
  const overlay = at("overlay");
  overlay.getContext("2d").clearRect(0, 0, overlay.width, overlay.height);
  at("faces").replaceChildren();
  at("status").textContent = "";
}

// A camera or a picture of this size comes onto the stage.
export function frameOf(width, height, live) {
  clear();
  state.shot += 1;
  state.view = { width, height, live, source: `${width}x${height}` };
  countAnew();
  at("stage").style.aspectRatio = `${width} / ${height}`;
  at("stage").style.maxWidth = `calc(78vh * ${width / height})`;
  at("stage").classList.toggle("mirrored", live && pressed("mirror"));
  at("video").hidden = !live;
  at("still").hidden = live;
  const { width: columns, height: rows } = at("stage").getBoundingClientRect();
  state.size = [columns, rows];
}

new ResizeObserver(([{ contentRect }]) => {
  state.size = [contentRect.width, contentRect.height];
  if (state.view && state.model) show();
}).observe(at("stage"));
