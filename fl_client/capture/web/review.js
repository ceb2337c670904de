// The pictures that are stored: look at them again, relabel, delete.

import { ask, attempt, byId, change, now, onFacts } from "./program.js";
import { button, card, goingOn, pressedOn, remove, settle } from "./cards.js";

const grid = byId("grid"), thumbs = new Map();

export async function listPictures() {
  const answer = await attempt(async () => (await ask("/api/pictures")).json());
  if (!answer) return;
  const there = new Set(answer.pictures.map((picture) => picture.name));
  for (const name of [...thumbs.keys()]) if (!there.has(name)) drop(name);
  for (const picture of answer.pictures) addPicture(picture.name, picture.emotion);
}

export function addPicture(name, emotion = name.split("/")[0]) {
  if (thumbs.has(name)) return;
  const gone = button("Delete", `Delete ${name}`, () => edit(name, null));
  const item = card(name, `/api/picture?name=${encodeURIComponent(name)}`, emotion, (label) => edit(name, label), gone);
  item.dataset.order = `${now.facts.emotions.findIndex((other) => other.name === emotion)}/${name}`;
  thumbs.set(name, item);
  const after = [...grid.children].find((other) => other.dataset.order > item.dataset.order);
  grid.insertBefore(item, after || null);
  settle(grid);
  byId("review").hidden = false;
}

function drop(name) {
  if (!thumbs.has(name)) return;
  remove(thumbs.get(name));
  thumbs.delete(name);
  byId("review").hidden = !thumbs.size;
}

async function edit(name, emotion) {
  await goingOn(grid, thumbs.get(name), async () => {
    const answer = await attempt(() => change("/api/edit", emotion === null ? { name } : { name, emotion }));
    if (!answer) return listPictures();
    drop(name);
    if (emotion !== null && !now.facts.consent.needed) addPicture(answer.name);
  });
}

export function reviewKey(event) {
  return pressedOn(grid, event, { remove: (item) => edit(item.dataset.name, null), label: (item, to) => edit(item.dataset.name, to) });
}

onFacts(() => {
  if (now.facts.consent.needed) [...thumbs.keys()].forEach(drop);
});
