// The camera page: frames of the camera and pictures to the model, what it found onto the screen, newer models between two frames.
// A frame goes from here to a worker of this page (runner.js) and nowhere else; the only requests are those of ask.js.

import { Refused, unreachable } from "./ask.js";
import { memory } from "./memory.js";
import { at, hint, press, pressed, state, tell } from "./page.js";
import { inWords } from "./promise.js";
import { lacking, Runner } from "./runner.js";
import { count, countAnew, speed } from "./speed.js";
import { clear, frameOf, show, speak } from "./stage.js";
import { Models } from "./verify.js";
import { NoCamera, Webcam } from "./webcam.js";

const POLL = 5000;
const LONGEST_PICTURE = 1600;
const UNREAD = "This frame could not be read";
const READY = "Start the camera, or choose a picture.";

const trusted = new URLSearchParams(location.hash.slice(1)).get("trust")?.toLowerCase().replace(/[^0-9a-f]/g, "") || null;
const wait = (sentence) => state.model || hint(sentence);
const models = new Models(trusted, memory(), wait);
const runner = new Runner({ say: wait, heard: answered, ended: () => tell("The part that runs the model has stopped; load the page anew.") });
const webcam = new Webcam(at("video"), () => {
  stopCamera();
  tell("The camera was taken away; start it again when it is back.");
});

// For tests and benchmarks, which may set `drawn` to hear of each frame.
globalThis.emofl = { speed, state, models, drawn: null };

let watching = 0;

async function watchModels() {
  const mine = ++watching;
  while (mine === watching) {
    try {
      const found = await models.newer();
      if (mine !== watching) return;
      if (found) {
        await use(found);
        if (mine !== watching) return;
        models.used();
      } else if (!state.model) hint("Nothing is published yet; this page waits for the first model.");
    } catch (error) {
      if (mine !== watching) return;
      const refused = error instanceof Refused;
      if (refused) {
        models.refuse(error);
        tell(`${error.message}${state.model ? " The one before stays in use." : ""}`);
      }
      if (!state.model) {
        hint(refused ? "No model is in use." : `${unreachable()} as it should (${error.message}); this page goes on trying.`);
        at("start").disabled = refused;
      }
    }
    await new Promise((done) => setTimeout(done, POLL));
  }
}

async function use(found) {
  const { classes } = found.manifest.model;
  const alike = () => String(state.model?.classes) === String(classes);
  const inView = () => (state.view?.live && alike() ? state.faces.map((face) => ({ ...face, heat: null })) : []);
  const facts = await runner.use(found, inView);
  if (!alike()) clear();
  state.model = { ...found, onnx: null, classes, ...facts };
  introduce();
  if (state.view && !state.view.live) again();
}

function introduce() {
  const words = inWords(state.model);
  tell("");
  at("badge").textContent = words.badge;
  at("badge").classList.toggle("alarm", words.alarm);
  at("proof").textContent = words.proof;
  at("version").textContent = words.version;
  at("verified").textContent = words.sentence;
  at("promise").textContent = words.statement;
  at("fact-version").textContent = words.facts.version;
  at("fact-key").textContent = words.facts.key;
  at("fact-hash").textContent = words.facts.hash;
  for (const id of ["badge", "proof", "version", "facts"]) at(id).hidden = false;
  at("heatmap").hidden = !state.model.heatmap;
  at("start").disabled = false;
  if (!state.view) hint(READY);
  at("status").textContent = `Model ${state.model.version} is verified and in use.`;
}

function send(picture, time, still) {
  const least = Number(at("least").value) / 100;
  const heatmap = pressed("heatmap") && !at("heatmap").hidden;
  runner.send({ picture, time, still, shot: state.shot, heatmap, whole: still && at("whole").checked, least });
}

function answered(data) {
  if (data.shot !== state.shot || !state.view) return;
  if (data.kind === "trouble") return tell(`${UNREAD}: ${data.sentence}`);
  if (at("trouble").textContent.startsWith(UNREAD)) tell("");
  state.faces = data.faces;
  Object.assign(state.view, { width: data.width, height: data.height });
  show();
  const now = performance.now();
  if (state.view.live) count(data, now);
  speak(now);
}

// Another camera or picture: whatever is still looked at is none of its business.
function begin(width, height, live) {
  runner.forget();
  frameOf(width, height, live);
}

async function startCamera() {
  tell("");
  at("start").disabled = true;
  try {
    await webcam.start(at("camera").value);
  } catch (error) {
    if (!(error instanceof NoCamera)) throw error;
    stopCamera();
    return tell(error.message);
  } finally {
    at("start").disabled = false;
  }
  begin(at("video").videoWidth, at("video").videoHeight, true);
  state.paused = false;
  press("pause", false);
  at("pause").disabled = false;
  at("start").textContent = "Stop camera";
  webcam.watch(seen);
  const cameras = await webcam.all();
  at("camera").replaceChildren(...cameras.map(({ label, deviceId, chosen }) => new Option(label, deviceId, false, chosen)));
  at("cameras").hidden = cameras.length < 2;
}

function stopCamera() {
  webcam.stop();
  if (state.view?.live) {
    runner.forget();
    clear();
    state.shot += 1;
    state.view = null;
    if (state.model) hint(READY);
  }
  at("pause").disabled = true;
  at("start").textContent = "Start camera";
  at("speed").hidden = true;
}

async function seen(time) {
  const video = at("video");
  if (state.paused || !state.model || !state.view?.live) return;
  if (state.view.source !== `${video.videoWidth}x${video.videoHeight}`) begin(video.videoWidth, video.videoHeight, true);
  const { shot } = state;
  let picture;
  try {
    picture = await webcam.frame();
  } catch {
    // The camera gave no frame this time; the next one is on its way.
    return;
  }
  if (shot !== state.shot) return picture.close();
  send(picture, time, false);
}

async function choosePicture(file) {
  tell("");
  let picture;
  try {
    picture = await createImageBitmap(file);
  } catch {
    return tell("This file is no picture that the browser can read; PNG, JPEG and WebP are.");
  }
  stopCamera();
  const scale = Math.min(1, LONGEST_PICTURE / Math.max(picture.width, picture.height));
  const still = at("still");
  [still.width, still.height] = [Math.round(picture.width * scale), Math.round(picture.height * scale)];
  still.getContext("2d").drawImage(picture, 0, 0, still.width, still.height);
  picture.close();
  begin(still.width, still.height, false);
  await again();
}

// The picture once more: another model, or another setting.
async function again() {
  if (!state.model || !state.view || state.view.live) return;
  const { shot } = state;
  const picture = await createImageBitmap(at("still"));
  if (shot !== state.shot) return picture.close();
  send(picture, performance.now(), true);
}

at("start").onclick = () => (webcam.stream ? stopCamera() : startCamera());
at("pause").onclick = () => {
  state.paused = !state.paused;
  press("pause", state.paused);
  state.paused ? at("video").pause() : at("video").play();
  Object.assign(state, { spoken: -Infinity, listed: -Infinity });
  if (state.paused) countAnew();
  if (state.view && state.model) speak(performance.now());
};
at("mirror").onclick = () => {
  press("mirror", !pressed("mirror"));
  at("stage").classList.toggle("mirrored", Boolean(state.view?.live) && pressed("mirror"));
  if (state.view && state.model) show();
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
  models.forget();
  tell("");
  watchModels();
  at("verified").textContent = "The key is forgotten; the next one met is trusted.";
};
document.onkeydown = ({ key, target, ctrlKey, metaKey, altKey }) => {
  if (ctrlKey || metaKey || altKey || ["INPUT", "SELECT"].includes(target.tagName)) return;
  const button = { c: "start", p: "pause", m: "mirror", h: "heatmap" }[key.toLowerCase()];
  if (button && !at(button).hidden) at(button).click();
};
// The camera may start, and what runs models be compiled, while the model is on its way.
if (document.querySelector("[data-runtime]").dataset.runtime !== "yes") hint("");
else if (lacking()) {
  tell(lacking());
  hint("");
} else {
  at("start").disabled = false;
  runner.prepare().catch((error) => tell(error.message));
  watchModels();
}
