// The camera page: video and pictures to the worker, what it found onto the screen, newer models between two frames.
// A frame goes from here to engine.js, a worker of this page, and nowhere else; the only requests are those of verify.js.

import { draw, said } from "./overlay.js";
import { Models, Refused } from "./verify.js";

const POLL = 5000;
const SPOKEN_EVERY = 2500;
const LONGEST_PICTURE = 1600;

const at = (id) => document.getElementById(id);
const state = { engine: null, model: null, busy: false, paused: false, stream: null, view: null, faces: [], spoken: 0 };
const speed = { frames: [], latency: 0 };
const trusted = new URLSearchParams(location.hash.slice(1)).get("trust")?.toLowerCase().replace(/[^0-9a-f]/g, "") || null;
const models = new Models(trusted, localStorage);
const detection = loadDetection();

globalThis.emofl = { speed, state };

async function loadDetection() {
  const spec = await fetch("/camera/detector.json", { credentials: "omit" });
  if (!spec.ok) return null;
  const onnx = await fetch("/camera/detector.onnx", { credentials: "omit" });
  return onnx.ok ? { spec: await spec.json(), onnx: await onnx.arrayBuffer() } : null;
}

function tell(sentence) {
  at("trouble").textContent = sentence;
  at("trouble").hidden = !sentence;
}

const hint = (text) => {
  if (at("hint").textContent !== text) at("hint").textContent = text;
};

async function watchModels() {
  try {
    const found = await models.newer();
    if (found) await use(found);
    else if (!state.model) hint("Nothing is published yet; this page waits for the first model.");
  } catch (error) {
    if (error instanceof Refused) tell(`${error.message}${state.model ? " The one before stays in use." : ""}`);
    else if (!state.model) hint("The server does not answer; this page goes on trying.");
  }
  state.timer = setTimeout(watchModels, POLL);
}

// A worker of its own for each model: while it gets ready, the one before goes on, so that no frame is dropped.
async function use(found) {
  const { manifest } = found;
  const engine = new Worker(new URL("./engine.js", import.meta.url), { type: "module" });
  const ready = new Promise((resolve, reject) => {
    engine.onerror = () => reject(new Refused("What runs models in a browser could not be loaded."));
    engine.onmessage = ({ data }) =>
      data.kind === "ready" ? resolve(data) : reject(new Refused(`The model cannot run here: ${data.sentence}`));
  });
  const { classes } = manifest.model;
  const { onnx } = found;
  const threads = 1;
  const message = { kind: "load", onnx, detection: await detection, classes, preprocessing: manifest.preprocessing, threads };
  engine.postMessage(message, [onnx]);
  let facts;
  try {
    facts = await ready;
  } catch (error) {
    engine.terminate();
    throw error;
  }
  engine.postMessage({ kind: "adopt", faces: state.view?.live ? state.faces.map((face) => ({ ...face, heat: null })) : [] });
  state.engine?.terminate();
  Object.assign(state, { engine, model: { ...found, onnx: null, classes, ...facts }, busy: false });
  engine.onmessage = ({ data }) => answered(data);
  engine.onerror = () => tell("The part that runs the model has stopped; load the page anew.");
  introduce(found, facts);
  if (state.view && !state.view.live) again();
}

function introduce({ manifest, fingerprint, version }, facts) {
  tell("");
  const grouped = (text) => text.replace(/(.{4})(?=.)/g, "$1 ");
  const promises = [manifest.privacy, manifest.client_privacy].filter((one) => one?.private);
  at("badge").textContent = promises.map(short).join(", ") || "NON-PRIVATE";
  at("badge").classList.toggle("alarm", !promises.length);
  at("proof").textContent = [devices(manifest.cohort), "signature verified"].filter(Boolean).join(", ");
  at("version").textContent = `${manifest.run} · round ${manifest.round} · #${manifest.sequence}`;
  at("verified").textContent = `Verified in this page: the manifest's signature and the model's SHA-256 hold. ${whose(manifest)}.`;
  const stated = promises.length ? promises : [manifest.privacy];
  at("promise").textContent = stated.flatMap((one) => [one.statement, ...one.non_private.map((text) => `${text}.`)]).join(" ");
  at("fact-version").textContent = `${version}, published ${manifest.created.slice(0, 16).replace("T", " ")} UTC`;
  at("fact-key").textContent = grouped(fingerprint);
  at("fact-hash").textContent = manifest.files["model.onnx"].sha256;
  for (const id of ["badge", "proof", "version", "facts"]) at(id).hidden = false;
  at("heatmap").hidden = !facts.heatmap;
  at("start").disabled = false;
  if (!state.view) hint("Start the camera, or choose a picture.");
  at("status").textContent = `Model ${version} is verified and in use.`;
}

// As fl_client/webcam/badge.py: epsilon is rounded up, never down.
function short({ unit, epsilon }) {
  const text = epsilon.toFixed(2);
  return `${unit}-level epsilon ${Number(Number(text) < epsilon ? (epsilon + 0.005).toFixed(2) : text)}`;
}

function whose({ run, round, cohort }) {
  const by = cohort.accepted ? `, made of the updates of ${devices(cohort)}` : "";
  return `It is of run ${run}, round ${round}${by}`;
}

function devices({ asked, accepted, secure }) {
  if (!accepted) return "";
  return `${accepted} of ${asked} device${asked === 1 ? "" : "s"}${secure ? ", only their sum seen" : ""}`;
}

const pressed = (id) => at(id).getAttribute("aria-pressed") === "true";

function press(id, on) {
  at(id).setAttribute("aria-pressed", String(on));
}

async function send(picture, time, still) {
  state.busy = true;
  const least = Number(at("least").value) / 100;
  const heatmap = pressed("heatmap") && !at("heatmap").hidden;
  const message = { kind: "frame", picture, time, still, heatmap, whole: still && at("whole").checked, least };
  state.sent = performance.now();
  state.engine.postMessage(message, [picture]);
}

function answered(data) {
  state.busy = false;
  if (data.kind === "trouble") return tell(`This frame could not be read: ${data.sentence}`);
  if (data.still === Boolean(state.view?.live)) return;
  const now = performance.now();
  speed.latency = speed.latency ? 0.9 * speed.latency + 0.1 * (now - state.sent) : now - state.sent;
  speed.spent = data.spent;
  speed.frames.push(now);
  while (speed.frames[0] < now - 2000) speed.frames.shift();
  state.faces = data.faces;
  Object.assign(state.view, { width: data.width, height: data.height });
  show();
  if (state.view.live && speed.frames.length > 1) {
    const rate = (1000 * (speed.frames.length - 1)) / (now - speed.frames[0]);
    at("speed").hidden = false;
    at("speed").textContent = `${rate.toFixed(0)} FPS · ${speed.latency.toFixed(0)} ms`;
  } else at("speed").hidden = true;
  speak(now);
}

function show() {
  const overlay = at("overlay");
  const { width, height } = at("stage").getBoundingClientRect();
  const ratio = Math.min(2, devicePixelRatio || 1);
  const [columns, rows] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (overlay.width !== columns || overlay.height !== rows) [overlay.width, overlay.height] = [columns, rows];
  const mirror = state.view.live && pressed("mirror");
  const view = { ...state.view, mirror, ratio, heatmap: pressed("heatmap"), guided: state.model.guided && !at("whole").checked };
  draw(overlay, state.faces, state.model.classes, view);
  if (!state.faces.length) hint("No face in view");
  else hint(view.guided && state.view.live ? "There is no face detector here: put your face into the oval." : "");
}

// For those who do not see the canvas: a sentence now and then, and a list that is always right.
function speak(now) {
  const faces = state.view.live && pressed("mirror") ? [...state.faces].reverse() : state.faces;
  const sentences = faces.map((face, i) => {
    const { label, sure } = said(face, state.model.classes);
    return `Face ${i + 1}: ${label}, ${sure}`;
  });
  if (state.view.live && now - state.spoken < SPOKEN_EVERY) return;
  state.spoken = now;
  const words = sentences.join(". ") || "No face in view";
  if (at("status").textContent !== words) at("status").textContent = words;
  at("faces").replaceChildren(
    ...faces.map((face, i) => {
      const item = document.createElement("li");
      const order = face.steady.probabilities.map((part, c) => [part, state.model.classes[c]]).sort((a, b) => b[0] - a[0]);
      item.textContent = `${sentences[i]} (${order.slice(0, 3).map(([part, name]) => `${name} ${Math.round(100 * part)} %`).join(", ")})`;
      return item;
    }),
  );
}

function frameOf(width, height, live) {
  state.view = { width, height, live };
  state.faces = [];
  speed.frames.length = 0;
  at("stage").style.aspectRatio = `${width} / ${height}`;
  at("stage").style.maxWidth = `calc(78vh * ${width / height})`;
  at("stage").classList.toggle("mirrored", live && pressed("mirror"));
  at("video").hidden = !live;
  at("still").hidden = live;
}

async function startCamera() {
  tell("");
  if (!navigator.mediaDevices) return tell("This browser gives no camera to pages that are not loaded by HTTPS.");
  stopCamera();
  const chosen = at("camera").value;
  const wanted = { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30 } };
  const video = chosen ? { ...wanted, deviceId: { exact: chosen } } : { ...wanted, facingMode: "user" };
  try {
    state.stream = await navigator.mediaDevices.getUserMedia({ video, audio: false });
  } catch (error) {
    const denied = error.name === "NotAllowedError";
    return tell(denied ? "The camera was not allowed; a picture works without it." : "There is no camera that can be used; a picture works without it.");
  }
  at("video").srcObject = state.stream;
  await at("video").play();
  frameOf(at("video").videoWidth, at("video").videoHeight, true);
  state.paused = false;
  press("pause", false);
  at("pause").disabled = false;
  at("start").textContent = "Stop camera";
  await listCameras();
  nextFrame();
}

function stopCamera() {
  for (const track of state.stream?.getTracks() ?? []) track.stop();
  state.stream = null;
  at("video").srcObject = null;
  at("pause").disabled = true;
  at("start").textContent = "Start camera";
  at("speed").hidden = true;
}

async function listCameras() {
  const found = (await navigator.mediaDevices.enumerateDevices()).filter(({ kind, deviceId }) => kind === "videoinput" && deviceId);
  const chosen = state.stream.getVideoTracks()[0].getSettings().deviceId;
  at("camera").replaceChildren(...found.map(({ label, deviceId }, i) => new Option(label || `Camera ${i + 1}`, deviceId, false, deviceId === chosen)));
  at("cameras").hidden = found.length < 2;
}

// The newest frame wins: one that comes while the worker is busy is left out.
function nextFrame() {
  const video = at("video");
  const stream = state.stream;
  const tick = async (now, facts) => {
    if (stream !== state.stream || !stream) return;
    video.requestVideoFrameCallback ? video.requestVideoFrameCallback(tick) : requestAnimationFrame(tick);
    if (state.busy || state.paused || !state.engine || !video.videoWidth) return;
    if (video.videoWidth !== state.view.width) frameOf(video.videoWidth, video.videoHeight, true);
    state.busy = true;
    send(await grab(video), now, false);
  };
  video.requestVideoFrameCallback ? video.requestVideoFrameCallback(tick) : requestAnimationFrame(tick);
}

const grab = (video) => (globalThis.VideoFrame ? new VideoFrame(video) : createImageBitmap(video));

async function choosePicture(file) {
  tell("");
  let picture;
  try {
    picture = await createImageBitmap(file);
  } catch {
    return tell("This file is no picture that the browser can read.");
  }
  stopCamera();
  const scale = Math.min(1, LONGEST_PICTURE / Math.max(picture.width, picture.height));
  const still = at("still");
  [still.width, still.height] = [Math.round(picture.width * scale), Math.round(picture.height * scale)];
  still.getContext("2d").drawImage(picture, 0, 0, still.width, still.height);
  picture.close();
  frameOf(still.width, still.height, false);
  await again();
}

// The picture once more: another model, or another setting.
async function again() {
  if (!state.engine) return;
  if (state.view.live) return;
  send(await createImageBitmap(at("still")), performance.now(), true);
}

at("start").onclick = () => (state.stream ? (stopCamera(), hint("Start the camera, or choose a picture.")) : startCamera());
at("pause").onclick = () => {
  state.paused = !state.paused;
  press("pause", state.paused);
  state.paused ? at("video").pause() : at("video").play();
};
at("mirror").onclick = () => {
  press("mirror", !pressed("mirror"));
  at("stage").classList.toggle("mirrored", Boolean(state.view?.live) && pressed("mirror"));
  if (state.view) show();
};
at("heatmap").onclick = () => {
  press("heatmap", !pressed("heatmap"));
  if (state.view) state.view.live ? show() : again();
};
at("camera").onchange = startCamera;
at("upload").onchange = ({ target }) => {
  if (target.files[0]) choosePicture(target.files[0]);
  target.value = "";
};
at("whole").onchange = () => state.view && again();
at("least").oninput = ({ target }) => {
  at("least-said").textContent = `${target.value} %`;
  if (state.view) again();
};
at("forget").onclick = () => {
  for (const name of Object.keys(localStorage)) if (name.startsWith("emofl-")) localStorage.removeItem(name);
  models.last = null;
  tell("");
  clearTimeout(state.timer);
  watchModels();
  at("verified").textContent = "The key is forgotten; the next one met is trusted.";
};
document.onkeydown = ({ key, target, ctrlKey, metaKey, altKey }) => {
  if (ctrlKey || metaKey || altKey || ["INPUT", "SELECT"].includes(target.tagName)) return;
  const button = { c: "start", p: "pause", m: "mirror", h: "heatmap" }[key.toLowerCase()];
  if (button && !at(button).hidden) at(button).click();
};
addEventListener("resize", () => state.view && state.model && show());
if (document.querySelector("[data-runtime]").dataset.runtime === "yes") watchModels();
else hint("");
