// Photos and films that exist already: read here, looked at by the program on this machine, and what it finds is confirmed here.
// A film is played and seen once in a while; neither it nor a photo is kept.

import { addPicture } from "./review.js";
import { ask, attempt, byId, change, isOver, now, onEnd, onFacts, problem, set } from "./program.js";
import { button, card, goingOn, pressedOn, remove, settle } from "./cards.js";

// Faces that wait: while there are more, no further file is read. Bytes: what the program takes at once.
const MOST_WAITING = 24, MOST_BYTES = 12 << 20, LONGEST_SIDE = 4096, PATIENCE = 15_000, LONGEST_NAME = 300;
const FILMS = /\.(avi|m4v|mjpeg|mkv|mov|mp4|mpg|webm)$/i;
const grid = byId("offers"), waiting = new Map();
// A yes that is taken back drops all that is known: what was begun before is of an earlier generation, and stops.
let generation = 0, begun = 0;
let files = [], reading = false, left = new Map(), seen = { files: 0, faces: 0, stored: 0, without: 0 }, decided = () => {};

// What would be lost if the session ended now: a sentence without its end, or "".
export function undecided() {
  const unread = files.length + (reading ? 1 : 0), parts = [];
  if (waiting.size) parts.push(`${counted(waiting.size, "face")} from photos not decided on`);
  if (unread) parts.push(`${counted(unread, "file")} not looked at`);
  return parts.join(", ");
}

export async function listOffers() {
  const answer = await attempt(async () => (await ask("/api/offers")).json());
  answer?.offers.forEach(addOffer);
  if (waiting.size) tell();
}

function choose(chosen) {
  const kinds = [...chosen].filter((file) => !file.name.startsWith(".") && (isFilm(file) || /^image\//.test(file.type) || /\.hei[cf]$/i.test(file.name)));
  kinds.sort((one, other) => nameOf(one).localeCompare(nameOf(other)));
  const label = byId("all-show").value;
  files.push(...kinds.map((file) => ({ file, label })));
  if (!reading) left = new Map(), seen = { files: 0, faces: 0, stored: 0, without: 0 };
  const passed = chosen.length - kinds.length;
  if (passed) leave("neither photo nor film", passed);
  if (!reading) readAll();
}

const nameOf = (file) => file.webkitRelativePath || file.name;
const isFilm = ({ name, type }) => type.startsWith("video/") || !type && FILMS.test(name);

async function readAll() {
  reading = true;
  byId("left-out").replaceChildren();
  for (let next; (next = files.shift());) {
    const { file, label } = next;
    tell(nameOf(file));
    const before = seen.faces;
    begun = generation;
    try {
      await (isFilm(file) ? film(file, label) : photo(file, label));
      if (seen.faces === before) seen.without += 1;
    } catch (error) {
      if (isOver()) break;
      if (begun !== generation) continue;
      const item = document.createElement("li");
      item.textContent = `${nameOf(file)} is left out: ${error.message}`;
      byId("left-out").append(item);
    }
    seen.files += 1;
  }
  reading = false;
  tell();
}

async function photo(file, label) {
  const sent = /^image\/(png|jpeg)$/.test(file.type) && file.size <= MOST_BYTES ? file : await redrawn(file);
  try {
    await look(sent, nameOf(file), label, false);
  } catch (error) {
    if (error.status !== 413 || sent !== file) throw error;
    await look(await redrawn(file), nameOf(file), label, false);
  }
}

async function redrawn(file) {
  let picture;
  try {
    picture = await createImageBitmap(file);
  } catch {
    throw new Error("this browser cannot read it; save it as JPEG first.");
  }
  const blob = await drawn(picture, picture.width, picture.height);
  picture.close();
  return blob;
}

async function drawn(picture, width, height) {
  const scale = Math.min(1, LONGEST_SIDE / Math.max(width, height)), canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [Math.round(width * scale), Math.round(height * scale)];
  canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
  const blob = (type) => new Promise((give) => canvas.toBlob(give, type, 0.95));
  const exact = await blob("image/png");
  return exact.size <= MOST_BYTES ? exact : blob("image/jpeg");
}

async function film(file, label) {
  const video = document.createElement("video"), address = URL.createObjectURL(file);
  const event = (name) => new Promise((heard, failed) => {
    const late = setTimeout(() => failed(new Error("this browser cannot play it.")), PATIENCE);
    video.addEventListener(name, () => (clearTimeout(late), heard()), { once: true });
    video.addEventListener("error", () => (clearTimeout(late), failed(new Error(
      "this browser cannot play it; `fl-client capture --import` on a terminal may."))), { once: true });
  });
  try {
    const loaded = event("loadeddata");
    Object.assign(video, { muted: true, preload: "auto", src: address });
    await loaded;
    if (!Number.isFinite(video.duration)) throw new Error("it does not say how long it is.");
    for (let at = 0; at < video.duration; at += now.facts.every) {
      if (at) {
        const sought = event("seeked");
        video.currentTime = at;
        await sought;
      }
      tell(`${nameOf(file)}, ${Math.floor(at)} of ${Math.ceil(video.duration)} s`);
      await look(await drawn(video, video.videoWidth, video.videoHeight), `${nameOf(file)} at ${at.toFixed(1)} s`, label, true);
    }
  } finally {
    video.removeAttribute("src");
    URL.revokeObjectURL(address);
  }
}

// The end of a long path, from a slash on: half a folder's name could name another emotion.
function shortened(name) {
  const end = name.slice(-LONGEST_NAME);
  return end === name || !end.includes("/") ? end : end.slice(end.indexOf("/") + 1);
}

function requireCurrent() {
  if (begun !== generation) throw new Error("The consent was taken back.");
}

async function look(blob, name, label, ofFilm) {
  while (!isOver() && waiting.size >= MOST_WAITING) {
    tell(null);
    await new Promise((go) => (decided = go));
  }
  const asked = new URLSearchParams({ name: shortened(name), film: ofFilm ? "1" : "0", label });
  requireCurrent();
  const answer = await (await ask(`/api/import?${asked}`, blob, blob.type)).json();
  requireCurrent();
  seen.faces += answer.faces;
  answer.left.forEach((why) => leave(why));
  if (answer.repeated) leave("nearly the same as one before", answer.repeated);
  answer.offers.forEach(addOffer);
  tell();
}

function leave(why, count = 1) {
  left.set(why, (left.get(why) || 0) + count);
}

const counted = (count, what) => `${count} ${what}${count === 1 ? "" : "s"}`;

// file: the one that is looked at, null while enough faces wait, undefined at the end.
function tell(file) {
  const parts = [];
  if (file) parts.push(`Looking at ${file}`);
  if (file === null) parts.push("More is looked at when some of these are decided on");
  if (waiting.size) parts.push(`${counted(waiting.size, "face")} to decide on`);
  else if (seen.files && !reading) parts.push("Nothing is left to decide on");
  if (seen.stored) parts.push(`${seen.stored} stored`);
  if (left.size) parts.push(`left out: ${[...left].map(([why, count]) => `${count} ${why}`).join(", ")}`);
  if (seen.without && !reading) parts.push(`${counted(seen.without, "file")} without a face`);
  set("import-said", parts.join("; ") + (parts.length ? "." : ""));
  byId("offered").hidden = !waiting.size;
}

function addOffer({ id, name, emotion, by, sure, alone }) {
  const note = document.createElement("p");
  note.textContent = `${emotion === null ? "which?" : sure === null ? `says ${by}` : `${by}: ${Math.round(100 * sure)} %`}`;
  const place = document.createElement("p");
  place.textContent = place.title = name;
  const parts = [note, place];
  if (!alone) {
    const company = document.createElement("p");
    company.textContent = "not alone in the picture";
    company.className = "wrong";
    parts.push(company);
  }
  const pick = () => (note.textContent = "says you");
  const take = button("Store", `Store ${name}`, () => store(item)), no = button("Leave out", `Leave out ${name}`, () => decide(item, null));
  const item = card(name, `/api/offer?id=${id}`, emotion, pick, ...parts, take, no);
  item.dataset.id = id;
  item.dataset.alone = alone ? "yes" : "no";
  waiting.set(String(id), item);
  grid.append(item);
  settle(grid);
}

const labelOf = (item) => item.querySelector("select").value;

async function store(item) {
  if (!labelOf(item)) return item.querySelector("select").focus();
  await decide(item, labelOf(item));
}

async function decide(item, emotion) {
  await goingOn(grid, item, () => settleOne(item, emotion));
}

// Whether the face is decided on now; one that the program no longer knows is, too.
async function settleOne(item, emotion) {
  if (item.dataset.asked) return true;
  item.dataset.asked = "yes";
  const answer = await attempt(() => change("/api/decide", { id: Number(item.dataset.id), emotion }).catch((error) => {
    if (error.status !== 404) throw error;
    return { fault: "no longer there" };
  }));
  if (!answer) {
    delete item.dataset.asked;
    return false;
  }
  waiting.delete(item.dataset.id);
  if (item.parentElement) remove(item);
  if (answer.stored) {
    seen.stored += 1;
    addPicture(answer.stored);
  } else leave(answer.fault ? answer.fault.split(":")[0] : "you said no");
  tell();
  decided();
  return true;
}

async function all(emotionOf) {
  let failed = "";
  for (const item of [...grid.children]) {
    const emotion = emotionOf(item);
    if (emotion === "" || !item.parentElement || await settleOne(item, emotion)) continue;
    failed = byId("problem").textContent;
    if (isOver()) return;
  }
  if (failed) problem(failed);
  byId("import-title").focus();
}

function dropAll() {
  files = [];
  generation++;
  for (const item of [...grid.children]) remove(item);
  waiting.clear();
  decided();
}

export function offerKey(event) {
  return pressedOn(grid, event, {
    remove: (item) => decide(item, null),
    take: store,
    label: (item, to) => {
      item.querySelector("select").value = to;
      item.querySelector("select").dispatchEvent(new Event("change"));
    },
  });
}

export function listLabels() {
  for (const { name } of now.facts.emotions) byId("all-show").append(new Option(name, name));
}

for (const [opener, input] of [["choose-files", "files"], ["choose-folder", "folder"]]) {
  byId(opener).addEventListener("click", () => byId(input).click());
  byId(input).addEventListener("change", ({ target }) => {
    choose(target.files);
    target.value = "";
  });
}
byId("store-all").addEventListener("click", () => all((item) => item.dataset.alone === "yes" ? labelOf(item) : ""));
byId("leave-all").addEventListener("click", () => all(() => null));
onEnd(dropAll);
onFacts(() => {
  if (!now.facts.consent.needed) return;
  dropAll();
  tell();
});
