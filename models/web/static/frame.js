// One frame of a camera, or a picture, as the worker needs it: grey for tracks, crops and detector; colours only if asked for.

import { greyPicture } from "./crop.js";

// A camera's brightness plane is 20 times as fast to read as its colours. What its numbers mean differs between cameras and
// browsers, and is often not said: they are compared with the grey of the colours, now and then, and used where they agree.
const FORMATS = new Set(["I420", "I420A", "NV12"]);
const MEANINGS = [
  Uint8ClampedArray.from({ length: 256 }, (_, value) => value),
  Uint8ClampedArray.from({ length: 256 }, (_, value) => ((value - 16) * 255) / 219),
];
const COMPARED_EVERY = 600;
const STEP = 13;
const ALIKE = 2;
const MOST_OTHERS = 0.01;

let canvas, context, buffer;
let meaning = null;
let kind = "";
let left = 0;

// { grey, width, height, data (RGBA, made when it is first read), close() } of a VideoFrame or ImageBitmap. One that cannot be
// read is closed.
export async function openFrame(picture) {
  const frame = new Frame(picture);
  try {
    frame.grey = await greyOf(picture, frame);
    return frame;
  } catch (error) {
    frame.close();
    throw error;
  }
}

// From the brightness plane, or from the colours where it cannot be read or means something else.
async function greyOf(picture, frame) {
  const plane = FORMATS.has(picture.format) ? await brightness(picture, frame).catch(() => null) : null;
  if (!plane) return greyPicture(frame);
  const now = [picture.format, frame.width, frame.height, picture.rotation, picture.flip].join();
  if (now !== kind || left-- <= 0) {
    const grey = greyPicture(frame);
    meaning = meaningOf(plane, grey);
    [kind, left] = [now, COMPARED_EVERY];
    return grey;
  }
  return meaning ? translated(plane, meaning) : greyPicture(frame);
}

class Frame {
  #picture;
  #data = null;

  constructor(picture) {
    this.#picture = picture;
    this.width = picture.displayWidth ?? picture.width;
    this.height = picture.displayHeight ?? picture.height;
    this.grey = null;
  }

  get data() {
    return (this.#data ??= pixels(this.#picture, this.width, this.height));
  }

  close() {
    this.#picture.close();
  }
}

// The first plane of a frame that is shown as large as it is.
async function brightness(picture, { width, height }) {
  const seen = picture.visibleRect;
  if (seen.width !== width || seen.height !== height) return null;
  const size = picture.allocationSize();
  if (buffer?.length !== size) buffer = new Uint8Array(size);
  const [{ offset, stride }] = await picture.copyTo(buffer);
  if (stride === width) return buffer.subarray(offset, offset + width * height);
  const plane = new Uint8Array(width * height);
  for (let y = 0; y < height; y++) plane.set(buffer.subarray(offset + y * stride, offset + y * stride + width), y * width);
  return plane;
}

// What makes grey of a brightness plane, as the colours of the same frame have it; null where nothing does.
export function meaningOf(plane, grey) {
  const agrees = (table) => {
    let others = 0;
    let all = 0;
    for (let at = 0; at < grey.length; at += STEP, all++) if (Math.abs(table[plane[at]] - grey[at]) > ALIKE) others += 1;
    return others <= MOST_OTHERS * all;
  };
  return MEANINGS.find(agrees) ?? null;
}

function translated(plane, table) {
  if (table === MEANINGS[0]) return plane;
  for (let at = 0; at < plane.length; at++) plane[at] = table[plane[at]];
  return plane;
}

function pixels(picture, width, height) {
  if (canvas?.width !== width || canvas.height !== height) {
    canvas = new OffscreenCanvas(width, height);
    context = canvas.getContext("2d", { willReadFrequently: true, alpha: false });
  }
  context.drawImage(picture, 0, 0, width, height);
  return context.getImageData(0, 0, width, height).data;
}
