// The capture page: shows the camera, sends frames to the program that served it, and shows what comes back.

import { addPicture, listPictures, reviewKey } from "./review.js";
import { attempt, attemptUnasked, byId, change, finish, isOver, now, onEnd, onFacts, open, problem, set } from "./program.js";
import { listLabels, listOffers, offerKey, undecided } from "./photos.js";

const video = byId("video"), marks = byId("marks");
const BETWEEN_LOOKS = 300, BETWEEN_PICTURES = 150, LONGEST_SIDE = 1280;
const COLOURS = { good: "#5ac85a", wrong: "#ff8c28", other: "#ffffff" };
let stream = null, starting = false, turn = 0;

function show() {
  const { facts } = now;
  if (isOver()) return;
  if (facts.consent.needed && stream) stopCamera();
  byId("consent").hidden = !facts.consent.needed;
  byId("studio").hidden = byId("end").hidden = byId("import").hidden = facts.consent.needed;
  if (facts.consent.needed && !byId("consent-text").childElementCount) {
    for (const [heading, sentences] of facts.consent.parts) {
      const term = document.createElement("dt"), text = document.createElement("dd");
      term.textContent = heading;
      text.textContent = sentences;
      byId("consent-text").append(term, text);
    }
  }
  if (!byId("emotions").childElementCount) {
    listEmotions();
    listLabels();
  }
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
  byId("undo").disabled = byId("stop").disabled = !stream;
}

function listEmotions() {
  now.facts.emotions.forEach((emotion, at) => {
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
  if (stream || starting || isOver()) return;
  if (!navigator.mediaDevices) return problem("This browser gives no camera to this page.");
  starting = true;
  try {
    stream = await navigator.mediaDevices.getUserMedia({
      video: { width: { ideal: 1280 }, height: { ideal: 720 }, facingMode: "user" }, audio: false });
  } catch (error) {
    return problem(error.name === "NotAllowedError" ? "The browser may not use the camera: allow it beside the address."
      : `There is no camera to use (${error.name}).`);
  } finally {
    starting = false;
  }
  if (isOver() || now.facts.consent.needed) return stopCamera();
  problem("");
  video.srcObject = stream;
  try {
    await video.play();
  } catch (error) {
    if (!stream) return;
    stopCamera();
    return problem(`The camera's picture cannot be shown (${error.name}).`);
  }
  if (!stream) return;
  byId("view").style.aspectRatio = `${video.videoWidth} / ${video.videoHeight}`;
  byId("off").hidden = true;
  show();
  look(++turn);
}

function stopCamera() {
  turn++;
  if (stream) stream.getTracks().forEach((track) => track.stop());
  stream = video.srcObject = null;
  byId("off").hidden = false;
  marks.getContext("2d").clearRect(0, 0, marks.width, marks.height);
  set("hint", "", "");
  show();
}

// One frame after the other, each when the one before was answered: a slow machine sees fewer, never a queue.
async function look(mine) {
  while (stream && mine === turn) {
    if (!document.hidden && video.videoWidth) {
      const answer = await attemptUnasked(async () => {
        const picture = await frame();
        if (mine !== turn) return null;
        return change("/api/frame", picture, picture.type);
      });
      if (mine !== turn) return;
      if (answer) mark(answer.sight);
    }
    await new Promise((go) => setTimeout(go, now.facts.burst ? BETWEEN_PICTURES : BETWEEN_LOOKS));
  }
}

function frame() {
  const scale = Math.min(1, LONGEST_SIDE / Math.max(video.videoWidth, video.videoHeight));
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(video.videoWidth * scale);
  canvas.height = Math.round(video.videoHeight * scale);
  canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
  return new Promise((give) => canvas.toBlob(give, now.facts.burst ? "image/png" : "image/jpeg", 0.9));
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

function pressed(event) {
  if (event.altKey || event.ctrlKey || event.metaKey || event.repeat || isOver() || !now.facts || now.facts.consent.needed) return;
  if (reviewKey(event) || offerKey(event)) return event.preventDefault();
  const tag = event.target.tagName;
  if (tag === "INPUT" || tag === "SELECT" || ((tag === "BUTTON") && (event.key === " " || event.key === "Enter"))) return;
  if (event.key === " " && stream) take(null);
  else if (/^[1-8]$/.test(event.key) && stream) take(now.facts.emotions[Number(event.key) - 1].name);
  else if (event.key === "n" && stream) attempt(() => change("/api/act", { do: "skip" }));
  else if (event.key === "u" && stream) undo();
  else return;
  event.preventDefault();
}

byId("consent-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const wish = { people: byId("people").value, agree: byId("agree").checked, version: now.facts.consent.version };
  if (!await attempt(() => change("/api/consent", wish))) return;
  byId("agree").checked = false;
  byId("start").focus();
  await listPictures();
});
byId("start").addEventListener("click", startCamera);
byId("stop").addEventListener("click", stopCamera);
byId("take").addEventListener("click", () => take(null));
byId("skip").addEventListener("click", () => attempt(() => change("/api/act", { do: "skip" })));
byId("undo").addEventListener("click", undo);
byId("done").addEventListener("click", async () => {
  const warning = undecided() && `${undecided()}. Finish again to leave them out.`;
  if (warning && byId("problem").textContent !== warning) return problem(warning);
  stopCamera();
  if (await attempt(async () => (await finish(), true)) === null) return;
  set("place", `Finished. The pictures are in ${now.facts.folder}; this page can be closed.`);
});
document.addEventListener("keydown", pressed);
onFacts(show);
onEnd(() => {
  for (const id of ["consent", "studio", "import", "review", "end"]) byId(id).hidden = true;
  if (now.facts) stopCamera();
  set("place", "");
});
attempt(async () => {
  await open();
  set("place", `Pictures go from this page to a program on this machine, into ${now.facts.folder}, and nowhere else.`);
  if (now.facts.consent.needed) return;
  await listPictures();
  await listOffers();
});
