// The worker: pixels in, faces out. It holds one model and one detector; a new model gets a worker of its own.
// Nothing leaves it but messages to its page: see camera.js.

import { cropFace, normalise } from "./crop.js";
import { makeDetector } from "./detector.js";
import { AS_IT_IS, SMOOTHING, softmax, steadied } from "./steady.js";
import { Tracker } from "./track.js";

const DETECT_EVERY = 5;

const tracker = new Tracker();
let ort, session, model, detector, canvas, context;
let sinceDetection = DETECT_EVERY;
let lastTime = null;

async function load({ onnx, detection, classes, preprocessing, threads }) {
  ort = await import("./runtime/ort.wasm.min.mjs");
  ort.env.wasm.numThreads = threads;
  ort.env.wasm.wasmPaths = new URL("./runtime/", import.meta.url).href;
  session = await ort.InferenceSession.create(new Uint8Array(onnx), { executionProviders: ["wasm"], logSeverityLevel: 4 });
  model = { classes, preprocessing };
  const heatmap = session.outputNames.includes("heatmap");
  const { size } = preprocessing;
  const tried = await classify([new Uint8Array(size * size)], heatmap);
  if (tried[0].logits.length !== classes.length) throw new Error("The model's output does not fit its manifest.");
  detector = await makeDetector(ort, detection);
  return { heatmap, guided: detector.guided === true };
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

function pixels(picture) {
  const width = picture.displayWidth ?? picture.width;
  const height = picture.displayHeight ?? picture.height;
  if (!canvas || canvas.width !== width || canvas.height !== height) {
    canvas = new OffscreenCanvas(width, height);
    context = canvas.getContext("2d", { willReadFrequently: true, alpha: false });
  }
  context.drawImage(picture, 0, 0, width, height);
  picture.close();
  return context.getImageData(0, 0, width, height);
}

async function look({ picture, time, still, heatmap, whole, least }) {
  const began = performance.now();
  const frame = pixels(picture);
  const read = performance.now();
  const tracks = still ? await lookOnce(frame, whole) : await lookOn(frame);
  const found = performance.now();
  const { size, crop_margin: margin } = model.preprocessing;
  const results = tracks.length
    ? await classify(tracks.map(({ exact }) => cropFace(frame, exact.map(Math.round), size, whole ? 0 : margin)), heatmap)
    : [];
  const elapsed = lastTime === null ? 0 : (time - lastTime) / 1000;
  lastTime = time;
  const settings = still ? AS_IT_IS : SMOOTHING;
  const faces = tracks.map((track, i) => {
    track.steady = steadied(track.steady, softmax(results[i].logits), elapsed, { ...settings, least });
    return { id: track.id, exact: track.exact, steady: track.steady, heat: results[i].heat };
  });
  const done = performance.now();
  faces.sort((a, b) => a.exact[0] - b.exact[0]);
  return { faces, spent: { read: read - began, find: found - read, classify: done - found }, width: frame.width, height: frame.height };
}

async function lookOnce(frame, whole) {
  const side = Math.max(frame.width, frame.height);
  const square = [Math.floor((frame.width - side) / 2), Math.floor((frame.height - side) / 2), side, side];
  const boxes = whole ? [square] : await detector.detect(frame, canvas);
  return boxes.map((exact, i) => ({ id: i + 1, exact, steady: null }));
}

async function lookOn(frame) {
  sinceDetection += 1;
  const lost = !tracker.follow(frame);
  if (lost || !tracker.tracks.length || sinceDetection >= DETECT_EVERY) {
    tracker.detected(await detector.detect(frame, canvas));
    sinceDetection = 0;
    tracker.remember(frame);
  }
  return tracker.tracks;
}

self.onmessage = async ({ data }) => {
  try {
    if (data.kind === "load") self.postMessage({ kind: "ready", ...(await load(data)) });
    else if (data.kind === "adopt") tracker.adopt(data.faces);
    else if (data.kind === "frame") self.postMessage({ kind: "faces", time: data.time, still: data.still, ...(await look(data)) });
  } catch (error) {
    self.postMessage({ kind: "trouble", during: data.kind, sentence: String(error?.message ?? error) });
  }
};
