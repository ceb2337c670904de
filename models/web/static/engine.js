// The worker: frames in, faces out. It holds one model and one detector; a new model gets a worker of its own.
// Nothing leaves it but messages to its page: see runner.js.

import { cropFace, normalise, relit } from "./crop.js";
import { makeDetector } from "./detector.js";
import { openFrame } from "./frame.js";
import { AS_IT_IS, SMOOTHING, softmax, steadied } from "./steady.js";
import { Tracker } from "./track.js";
import { BUDGET, dueFaces } from "./turns.js";

const DETECT_EVERY = 5;
const OPTIONS = { executionProviders: ["wasm"], logSeverityLevel: 4 };

// A network that does nothing (ONNX, one Identity): a session of it loads the runtime where there is no detector to do so.
const NOTHING = "CAc6NwoQCgF4EgF5IghJZGVudGl0eRIBZ1oPCgF4EgoKCAgBEgQKAggBYg8KAXkSCgoICAESBAoCCAFCBAoAEA0=";

const tracker = new Tracker();
let ort, session, model, detector;
let sinceDetection = DETECT_EVERY;
let shot = null;
let perFace = BUDGET / 2;

const runtime = import("./runtime/ort.wasm.min.mjs");
runtime.catch(() => {});

// What does not depend on the model: it is done while the model is on its way.
async function prepare({ detection }) {
  ort = await runtime;
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = new URL("./runtime/", import.meta.url).href;
  if (!detection) await ort.InferenceSession.create(Uint8Array.from(atob(NOTHING), (letter) => letter.charCodeAt(0)), OPTIONS);
  detector = await makeDetector(ort, detection);
  return { guided: detector.guided === true };
}

// warm: try it on an empty face first, which takes as long as the first frame would then wait.
async function load({ onnx, classes, preprocessing, warm }) {
  session = await ort.InferenceSession.create(new Uint8Array(onnx), OPTIONS);
  model = { classes, preprocessing };
  const heatmap = session.outputNames.includes("heatmap");
  const { shape } = session.outputMetadata.find(({ name }) => name === "logits") ?? {};
  if (shape?.at(-1) !== classes.length) throw new Error("its output does not fit its manifest");
  if (warm) await classify([new Uint8Array(preprocessing.size ** 2)], heatmap);
  return { heatmap };
}

// Grey squares -> [{ logits, heat }], all in one batch.
async function classify(squares, heatmap) {
  const { size } = model.preprocessing;
  const batch = new Float32Array(squares.length * size * size);
  squares.forEach((square, i) => normalise(square, model.preprocessing, batch, i * size * size));
  const faces = new ort.Tensor("float32", batch, [squares.length, 1, size, size]);
  const found = await session.run({ faces }, heatmap ? ["logits", "heatmap"] : ["logits"]);
  const classes = found.logits.dims[1];
  return squares.map((_, i) => ({
    logits: found.logits.data.subarray(i * classes, (i + 1) * classes),
    heat: heatmap ? oneHeatmap(found.heatmap, i) : null,
  }));
}

// (N, C, rows, columns) -> the maps of one face.
function oneHeatmap({ data, dims }, i) {
  const [, classes, rows, columns] = dims;
  const part = classes * rows * columns;
  return { rows, columns, values: data.slice(i * part, (i + 1) * part) };
}

async function look(asked) {
  const began = performance.now();
  const frame = await openFrame(asked.picture);
  try {
    const read = performance.now();
    const tracks = asked.still ? await lookOnce(frame, asked.whole) : await lookOn(frame, asked.shot);
    const found = performance.now();
    const now = { time: asked.time, spent: found - read, perFace, detected: sinceDetection === 0 };
    const due = asked.still ? tracks : dueFaces(tracks, now);
    await judge(frame, due, asked);
    const done = performance.now();
    const faces = tracks.map(({ id, exact, steady, heat, seen }) => ({ id, exact, steady, heat: asked.heatmap ? heat : null, seen }));
    faces.sort((a, b) => a.exact[0] - b.exact[0]);
    const spent = { read: read - began, find: found - read, classify: done - found };
    return { faces, spent, looks: due.length, width: frame.width, height: frame.height };
  } finally {
    frame.close();
  }
}

// The model's opinion of these faces, into their tracks.
async function judge(frame, tracks, { still, heatmap, whole, least, time }) {
  if (!tracks.length) return;
  const began = performance.now();
  const { size, crop_margin: margin } = model.preprocessing;
  const square = ({ exact }) => relit(cropFace(frame, exact.map(Math.round), size, whole ? 0 : margin), size);
  const results = await classify(tracks.map(square), heatmap);
  tracks.forEach((track, i) => {
    const elapsed = track.seen === null ? 0 : (time - track.seen) / 1000;
    track.steady = steadied(track.steady, softmax(results[i].logits), elapsed, { ...(still ? AS_IT_IS : SMOOTHING), least });
    track.heat = results[i].heat;
    track.seen = time;
  });
  if (!still) perFace += 0.1 * ((performance.now() - began) / tracks.length - perFace);
}

async function lookOnce(frame, whole) {
  const side = Math.max(frame.width, frame.height);
  const square = [Math.floor((frame.width - side) / 2), Math.floor((frame.height - side) / 2), side, side];
  const boxes = whole ? [square] : await detector.detect(frame);
  return boxes.map((exact, i) => ({ id: i + 1, exact, steady: null, seen: null }));
}

// Faces of another shot, such as another camera's, are followed no further.
async function lookOn(frame, asked) {
  if (shot !== null && shot !== asked) tracker.adopt([]);
  shot = asked;
  sinceDetection += 1;
  const lost = !tracker.follow(frame);
  if (lost || !tracker.tracks.length || sinceDetection >= DETECT_EVERY) {
    tracker.detected(await detector.detect(frame));
    sinceDetection = 0;
    tracker.remember(frame);
  }
  return tracker.tracks;
}

const tasks = {
  prepare: async (data) => ({ kind: "prepared", ...(await prepare(data)) }),
  load: async (data) => ({ kind: "ready", ...(await load(data)) }),
  adopt: async ({ faces }) => tracker.adopt(faces),
  frame: async (data) => ({ kind: "faces", time: data.time, shot: data.shot, ...(await look(data)) }),
};
let last = Promise.resolve();

// One after the other.
self.onmessage = ({ data }) => {
  last = last.then(async () => {
    try {
      const answer = await tasks[data.kind](data);
      if (answer) self.postMessage(answer);
    } catch (error) {
      self.postMessage({ kind: "trouble", during: data.kind, shot: data.shot, sentence: String(error?.message ?? error) });
    }
  });
};
