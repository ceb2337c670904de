// A grid of faces, one card each: a picture that is fetched when it comes into view, a label, buttons; arrow keys walk.

import { ask, attemptUnasked, now } from "./program.js";

// A folder may hold thousands.
const soon = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    soon.unobserve(target);
    attemptUnasked(async () => {
      const blob = await (await ask(target.dataset.picture)).blob();
      if (!target.isConnected) return;
      target.querySelector("img").src = URL.createObjectURL(blob);
    });
  }
}, { rootMargin: "400px" });

export function button(text, name, deed) {
  const made = document.createElement("button");
  made.textContent = text;
  made.setAttribute("aria-label", name);
  made.addEventListener("click", deed);
  return made;
}

// name: for people; picture: where its image is asked for; emotion: its label, or null where one is still to be chosen.
export function card(name, picture, emotion, relabel, ...more) {
  const item = document.createElement("li"), image = document.createElement("img"), label = document.createElement("select");
  image.alt = `Picture ${name}`;
  image.width = image.height = 112;
  if (emotion === null) label.append(new Option("choose", "", true, true));
  for (const { name: other } of now.facts.emotions) label.append(new Option(other, other, false, other === emotion));
  label.setAttribute("aria-label", `Label of ${name}`);
  label.addEventListener("change", () => relabel(label.value));
  Object.assign(item.dataset, { name, picture });
  item.append(image, label, ...more);
  tab(item, -1);
  item.addEventListener("focusin", () => makeCurrent(item));
  soon.observe(item);
  return item;
}

export function remove(item) {
  const grid = item.parentElement;
  soon.unobserve(item);
  URL.revokeObjectURL(item.querySelector("img").src);
  item.remove();
  settle(grid);
}

// Tab reaches one card of a grid, and its controls.
function tab(item, index) {
  for (const part of [item, ...item.querySelectorAll("select, button")]) part.tabIndex = index;
}

const current = (grid) => grid.querySelector(":scope > li[tabindex='0']");

function makeCurrent(item) {
  const before = current(item.parentElement);
  if (before === item) return;
  if (before) tab(before, -1);
  tab(item, 0);
}

export function settle(grid) {
  if (grid.firstElementChild && !current(grid)) tab(grid.firstElementChild, 0);
}

export function reach(item) {
  if (!item) return;
  makeCurrent(item);
  item.focus();
}

// Runs `deed`, which may take the card away, and then goes on with the one in its place.
export async function goingOn(grid, item, deed) {
  const at = [...grid.children].indexOf(item);
  await deed();
  if (grid.childElementCount) reach(grid.children[Math.min(at, grid.childElementCount - 1)]);
  else grid.closest("section").querySelector("h2").focus();
}

// Whether the key was one for a card of `grid`: digits label it from anywhere in it; on itself arrows walk, others are `deeds`.
export function pressedOn(grid, event, deeds) {
  const item = event.target.closest("li");
  if (item?.parentElement !== grid) return false;
  if (/^[1-8]$/.test(event.key)) {
    deeds.label(item, now.facts.emotions[Number(event.key) - 1].name);
    return true;
  }
  if (item !== event.target) return false;
  const items = [...grid.children], at = items.indexOf(item);
  const columns = getComputedStyle(grid).gridTemplateColumns.split(" ").length;
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
  if (event.key in steps) reach(items[Math.min(Math.max(at + steps[event.key], 0), items.length - 1)]);
  else if (event.key === "Delete" || event.key === "Backspace") deeds.remove(item);
  else if (event.key === "Enter" && deeds.take) deeds.take(item);
  else return false;
  return true;
}
