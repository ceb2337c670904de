// The page's elements by their ids, its two lines of words, and what the scripts of the page know in common.

export const at = (id) => document.getElementById(id);

// shot: one camera from start to stop, or one picture; what the model says of another one is not shown.
export const state = { model: null, paused: false, view: null, shot: 0, faces: [], spoken: -Infinity, listed: -Infinity, size: [0, 0] };

export const pressed = (id) => at(id).getAttribute("aria-pressed") === "true";

export function press(id, on) {
  at(id).setAttribute("aria-pressed", String(on));
}

export function tell(sentence) {
  if (at("trouble").textContent === sentence) return;
  at("trouble").textContent = sentence;
  at("trouble").hidden = !sentence;
}

export function hint(text) {
  if (at("hint").textContent !== text) at("hint").textContent = text;
}
