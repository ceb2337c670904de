// The capture page: shows the camera, sends frames to the program that served it, and shows what comes back.
// Nothing is sent anywhere else: the page's Content-Security-Policy forbids it.
"use strict";

const byId = (id) => document.getElementById(id);
const video = byId("video"), marks = byId("marks");
const BETWEEN_LOOKS = 300, BETWEEN_PICTURES = 150, LONGEST_SIDE = 1280;
const COLOURS = { good: "#5ac85a", wrong: "#ff8c28", other: "#ffffff" };
let key = "", facts = null, stream = null, thumbs = new Map(), turn = 0;

function problem(text) {
  byId("problem").textContent = text || "";
  byId("problem").hidden = !text;
}

async function ask(path, body, type) {
  const options = { headers: { "x-emofl-key": key }, cache: "no-store", credentials: "omit", redirect: "error" };
  if (body !== undefined) {
    options.method = "POST";
    options.headers["content-type"] = type || "application/json";
    options.body = type ? body : JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("The program on this machine does not answer: it has ended.");
  }
  if (!answer.ok) {
    const said = await answer.json().catch(() => ({}));
    throw new Error(said.error || `Refused (${answer.status}).`);
  }
  return answer;
}

async function change(path, body, type) {
  const answer = await (await ask(path, body, type)).json();
  if (answer.emotions) show(answer);
  return answer;
}

async function attempt(deed) {
  try {
    const answer = await deed();
    problem("");
    return answer;
  } catch (error) {
    problem(error.message);
    return null;
  }
}

// The link's token is good once; what it is exchanged for stays in this tab.
async function open() {
  const token = location.hash.slice(1);
  key = sessionStorage.getItem("emofl-key") || "";
  if (token) {
    history.replaceState(null, "", location.pathname);
    try {
      key = (await (await ask("/api/open", { token })).json()).key;
      sessionStorage.setItem("emofl-key", key);
    } catch (error) {
      if (!key) throw error;
    }
  }
  if (!key) throw new Error("This page opens with the link that the terminal shows.");
  await change("/api/state");
  byId("place").textContent = `Pictures go from this page to a program on this machine, into ${facts.folder}, and nowhere else.`;
}

function show(answer) {
  const first = facts === null;
  facts = answer;
  byId("consent").hidden = !facts.consent.needed;
  byId("studio").hidden = byId("end").hidden = facts.consent.needed;
  if (facts.consent.needed && !byId("consent-text").childElementCount) {
    for (const [heading, sentences] of facts.consent.parts) {
      const term = document.createElement("dt"), text = document.createElement("dd");
      term.textContent = heading;
      text.textContent = sentences;
      byId("consent-text").append(term, text);
    }
  }
  if (first) listEmotions();
  const burst = facts.burst;
  facts.emotions.forEach((emotion, at) => {
    const button = byId("emotions").children[at].firstElementChild;
    const target = emotion.target ? ` of ${emotion.target}` : "";
    button.querySelector(".count").textContent = `${emotion.count}${target}`;
    const bar = button.querySelector("progress");
    bar.max = emotion.target || Math.max(emotion.count, 1);
    bar.value = emotion.count;
    button.setAttribute("aria-current", String((burst ? burst.emotion : facts.prompted) === emotion.name));
  });
  set("prompt", burst ? `${burst.emotion}: ${burst.taken} of ${burst.size}`
    : facts.prompted ? `Please ${facts.prompt}` : "All targets are reached. Thank you.");
  byId("take").disabled = byId("skip").disabled = !stream || !facts.prompted;
  byId("undo").disabled = !stream;
}

function set(id, text, kind) {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
  if (kind !== undefined) element.className = kind;
}

function listEmotions() {
  facts.emotions.forEach((emotion, at) => {
    const item = document.createElement("li"), button = document.createElement("button");
    for (const [name, text] of [["key", String(at + 1)], ["name", emotion.name], ["count", ""]]) {
      const part = document.createElement("span");
      part.className = name;
      part.textContent = text;
      button.append(part);
    }
    const bar = document.createElement("progress");
    bar.setAttribute("aria-label", `${emotion.name}: pictures so far`);
    button.append(bar);
    button.setAttribute("aria-keyshortcuts", String(at + 1));
    button.addEventListener("click", () => take(emotion.name));
    item.append(button);
    byId("emotions").append(item);
  });
}

async function startCamera() {
  if (stream) return;
  if (!navigator.mediaDevices) return problem("This browser gives no camera to this page.");
  try {
    stream = await navigator.mediaDevices.getUserMedia({
      video: { width: { ideal: 1280 }, height: { ideal: 720 }, facingMode: "user" }, audio: false });
  } catch (error) {
    return problem(error.name === "NotAllowedError" ? "The browser may not use the camera: allow it beside the address."
      : `There is no camera to use (${error.name}).`);
  }
  problem("");
  video.srcObject = stream;
  await video.play();
  byId("view").style.aspectRatio = `${video.videoWidth} / ${video.videoHeight}`;
  byId("off").hidden = true;
  show(facts);
  look(++turn);
}

function stopCamera() {
  turn++;
  if (stream) stream.getTracks().forEach((track) => track.stop());
  stream = video.srcObject = null;
  byId("off").hidden = false;
  marks.getContext("2d").clearRect(0, 0, marks.width, marks.height);
  set("hint", "", "");
  show(facts);
}

// One frame after the other, each when the one before was answered: a slow machine sees fewer, never a queue.
async function look(mine) {
  while (stream && mine === turn) {
    if (!document.hidden && video.videoWidth) {
      const answer = await attempt(async () => change("/api/frame", await frame(), facts.burst ? "image/png" : "image/jpeg"));
      if (mine !== turn) return;
      if (answer) mark(answer.sight);
    }
    await new Promise((go) => setTimeout(go, facts.burst ? BETWEEN_PICTURES : BETWEEN_LOOKS));
  }
}

function frame() {
  const scale = Math.min(1, LONGEST_SIDE / Math.max(video.videoWidth, video.videoHeight));
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(video.videoWidth * scale);
  canvas.height = Math.round(video.videoHeight * scale);
  canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
  return new Promise((give) => canvas.toBlob(give, facts.burst ? "image/png" : "image/jpeg", 0.9));
}

function mark(sight) {
  marks.width = sight.width;
  marks.height = sight.height;
  const pen = marks.getContext("2d");
  pen.lineWidth = Math.max(2, sight.width / 240);
  sight.faces.forEach((box, at) => {
    pen.strokeStyle = at === sight.chosen ? (sight.fault ? COLOURS.wrong : COLOURS.good) : COLOURS.other;
    pen.strokeRect(...box);
  });
  if (sight.stored) {
    set("hint", `stored ${sight.stored}`, "good");
    byId("view").classList.remove("flash");
    void byId("view").offsetWidth;
    byId("view").classList.add("flash");
    addPicture(sight.stored);
  } else {
    set("hint", sight.hint, sight.fault ? "wrong" : "");
  }
}

async function take(emotion) {
  if (!stream) await startCamera();
  if (stream) await attempt(() => change("/api/act", { do: "take", emotion }));
}

async function undo() {
  const answer = await attempt(() => change("/api/act", { do: "undo" }));
  if (answer) set("hint", answer.said, "good");
  await listPictures();
}

// Review

async function listPictures() {
  const answer = await attempt(async () => (await ask("/api/pictures")).json());
  if (!answer) return;
  const there = new Set(answer.pictures.map((picture) => picture.name));
  for (const [name, item] of thumbs) if (!there.has(name)) drop(name, item);
  for (const picture of answer.pictures) addPicture(picture.name, picture.emotion);
  byId("review").hidden = !thumbs.size;
}

function drop(name, item) {
  soon.unobserve(item);
  URL.revokeObjectURL(item.querySelector("img").src);
  item.remove();
  thumbs.delete(name);
  byId("review").hidden = !thumbs.size;
}

function addPicture(name, emotion = name.split("/")[0]) {
  if (thumbs.has(name)) return;
  const item = document.createElement("li"), image = document.createElement("img");
  const label = document.createElement("select"), remove = document.createElement("button");
  image.alt = `Picture ${name}`;
  image.width = image.height = 112;
  for (const { name: other } of facts.emotions) label.append(new Option(other, other, false, other === emotion));
  label.setAttribute("aria-label", `Label of ${name}`);
  label.addEventListener("change", () => edit(name, label.value));
  remove.textContent = "Delete";
  remove.setAttribute("aria-label", `Delete ${name}`);
  remove.addEventListener("click", () => edit(name, null));
  item.tabIndex = thumbs.size ? -1 : 0;
  item.dataset.name = name;
  item.dataset.order = order(name, emotion);
  item.append(image, label, remove);
  thumbs.set(name, item);
  const after = [...byId("grid").children].find((other) => other.dataset.order > item.dataset.order);
  byId("grid").insertBefore(item, after || null);
  byId("review").hidden = false;
  soon.observe(item);
}

// A picture is fetched when it comes into view: a folder may hold thousands.
const soon = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    soon.unobserve(target);
    attempt(async () => {
      const answer = await ask(`/api/picture?name=${encodeURIComponent(target.dataset.name)}`);
      target.querySelector("img").src = URL.createObjectURL(await answer.blob());
    });
  }
}, { rootMargin: "400px" });

function order(name, emotion) {
  return `${facts.emotions.findIndex((other) => other.name === emotion)}/${name}`;
}

async function edit(name, emotion) {
  const items = [...byId("grid").children], at = items.findIndex((item) => item.dataset.name === name);
  const answer = await attempt(() => change("/api/edit", emotion === null ? { name } : { name, emotion }));
  if (!answer) return listPictures();
  drop(name, thumbs.get(name));
  if (emotion !== null) addPicture(answer.name);
  reach(byId("grid").children[Math.min(at, byId("grid").childElementCount - 1)]);
}

function reach(item) {
  if (!item) return;
  for (const other of byId("grid").children) other.tabIndex = other === item ? 0 : -1;
  item.focus();
}

function gridKey(event) {
  const item = event.target;
  if (item.parentElement !== byId("grid")) return false;
  const items = [...item.parentElement.children], at = items.indexOf(item);
  const columns = getComputedStyle(byId("grid")).gridTemplateColumns.split(" ").length;
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
  if (event.key in steps) reach(items[Math.min(Math.max(at + steps[event.key], 0), items.length - 1)]);
  else if (event.key === "Delete" || event.key === "Backspace") edit(item.dataset.name, null);
  else if (/^[1-8]$/.test(event.key)) edit(item.dataset.name, facts.emotions[Number(event.key) - 1].name);
  else return false;
  return true;
}

function pressed(event) {
  if (event.altKey || event.ctrlKey || event.metaKey || event.repeat || !facts || facts.consent.needed) return;
  if (gridKey(event)) return event.preventDefault();
  const tag = event.target.tagName;
  if (tag === "INPUT" || tag === "SELECT" || ((tag === "BUTTON") && (event.key === " " || event.key === "Enter"))) return;
  if (event.key === " ") take(null);
  else if (/^[1-8]$/.test(event.key)) take(facts.emotions[Number(event.key) - 1].name);
  else if (event.key === "n" && stream) attempt(() => change("/api/act", { do: "skip" }));
  else if (event.key === "u" && stream) undo();
  else return;
  event.preventDefault();
}

byId("consent-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const wish = { people: byId("people").value, agree: byId("agree").checked, version: facts.consent.version };
  if (await attempt(() => change("/api/consent", wish))) byId("start").focus();
});
byId("start").addEventListener("click", startCamera);
byId("stop").addEventListener("click", stopCamera);
byId("take").addEventListener("click", () => take(null));
byId("skip").addEventListener("click", () => attempt(() => change("/api/act", { do: "skip" })));
byId("undo").addEventListener("click", undo);
byId("done").addEventListener("click", async () => {
  stopCamera();
  if (!await attempt(() => ask("/api/done", {}))) return;
  sessionStorage.removeItem("emofl-key");
  for (const id of ["studio", "review", "end"]) byId(id).hidden = true;
  set("place", `Finished. The pictures are in ${facts.folder}; this page can be closed.`);
});
document.addEventListener("keydown", pressed);
attempt(async () => {
  await open();
  if (!facts.consent.needed) await listPictures();
});
