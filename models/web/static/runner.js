// The workers that run models (engine.js): one for each model, made ready while the one before goes on.
// Frames go to the worker and nowhere else. The newest frame wins: one waits at most, and gives way to a newer one.

import { ask, Refused } from "./ask.js";

const RUNTIME = "/camera/runtime/ort-wasm-simd-threaded.wasm";
const SPEC = "/camera/detector.json";
const MOST_STARTS = 3;
const NETWORK = "/camera/detector.onnx";

// A module with one SIMD instruction: what cannot be validated cannot be run.
const SIMD = Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11);

// Why no model can run in this browser, or an empty text.
export function lacking() {
  if (!globalThis.WebAssembly) return "This browser runs no WebAssembly (some turn it off for safety), which the model needs.";
  if (!WebAssembly.validate(SIMD)) return "This browser's WebAssembly lacks SIMD, which the model needs; a newer browser has it.";
  if (!globalThis.Worker || !globalThis.OffscreenCanvas) return "This browser is too old to run the model beside the page; a newer one can.";
  return "";
}

export class Runner {
  // say: gets a sentence while it waits for the server; heard: gets each answer about a frame; ended: called when a worker dies.
  constructor({ say, heard, ended }) {
    Object.assign(this, { say, heard, ended, worker: null, busy: false, idle: null, waiting: null, coming: null });
    this.detection = null;
  }

  // Load and compile what runs models, and the detector, before there is a model.
  prepare() {
    this.coming ??= this.#spawn();
    this.coming.catch(() => (this.coming = null));
    return this.coming;
  }

  // From now on frames go to this model: { manifest, onnx }. `faces` are those in view. What the model offers: { heatmap, guided }.
  async use({ manifest, onnx }, faces) {
    const coming = this.prepare();
    this.coming = null;
    const { worker, guided } = await coming;
    const { classes } = manifest.model;
    let facts;
    try {
      const message = { kind: "load", onnx, classes, preprocessing: manifest.preprocessing, warm: this.worker !== null };
      facts = await told(worker, message, dead(worker), [onnx]);
    } catch (error) {
      worker.terminate();
      throw new Refused(`The model cannot run here: ${error.message}`);
    }
    if (this.busy) await new Promise((done) => (this.idle = done));
    worker.postMessage({ kind: "adopt", faces: faces() });
    this.worker?.terminate();
    worker.onmessage = ({ data }) => this.#answered(data);
    worker.onerror = () => {
      Object.assign(this, { worker: null, busy: false });
      this.#rested();
      this.ended();
    };
    Object.assign(this, { worker, busy: false });
    this.#next();
    return { ...facts, guided };
  }

  // A picture and what to do with it; it is closed when it was looked at, or gave way.
  send(message) {
    this.waiting?.picture.close();
    this.waiting = message;
    this.#next();
  }

  forget() {
    this.waiting?.picture.close();
    this.waiting = null;
  }

  #next() {
    if (this.busy || !this.worker || !this.waiting) return;
    const message = this.waiting;
    Object.assign(this, { busy: true, waiting: null });
    this.worker.postMessage({ kind: "frame", ...message }, [message.picture]);
  }

  #answered(data) {
    this.busy = false;
    this.heard(data);
    if (!this.#rested()) this.#next();
  }

  // Lets the next model take over, if one waits for the end of a frame.
  #rested() {
    const { idle } = this;
    this.idle = null;
    idle?.();
    return idle !== null;
  }

  async #spawn() {
    for (let tries = 1; ; tries++) {
      const worker = new Worker(new URL("./engine.js", import.meta.url), { type: "module" });
      try {
        const failed = dead(worker);
        this.detection ??= await this.#detector();
        return { worker, ...(await told(worker, { kind: "prepare", detection: this.detection }, failed)) };
      } catch (error) {
        worker.terminate();
        const answer = await ask(RUNTIME, this.say);
        answer.body?.cancel();
        if (answer.status === 404) throw new Refused("This server lacks what runs models in a browser; tell whoever runs it.");
        if (tries === MOST_STARTS) throw new Refused(`What runs models does not start in this browser: ${error.message}`);
      }
    }
  }

  async #detector() {
    const [spec, onnx] = await Promise.all([SPEC, NETWORK].map((path) => ask(path, this.say)));
    return spec.ok && onnx.ok ? { spec: await spec.json(), onnx: await onnx.arrayBuffer() } : null;
  }
}

// Rejects if the worker ends, or never starts.
function dead(worker) {
  const failed = new Promise((_, reject) => {
    worker.onerror = (event) => {
      event.preventDefault();
      reject(new Error("the worker does not load"));
    };
  });
  failed.catch(() => {});
  return failed;
}

// A message to a worker, and its answer.
function told(worker, message, failed, given = []) {
  const answer = new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => (data.kind === "trouble" ? reject(new Error(data.sentence)) : resolve(data));
  });
  worker.postMessage(message, given);
  return Promise.race([answer, failed]);
}
