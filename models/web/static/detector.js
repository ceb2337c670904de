// Finds faces in a frame, as models/detector/grid.py and blaze.py do it. Without a network a person puts the face into the middle.

import { bilinear, halfToEven, shrink } from "./crop.js";

const GUIDE = 0.62;

// detection: { spec, onnx } or null. Its detect({ grey, data (RGBA), width, height }) -> [[x, y, width, height], ...], framed as
// training crops.
export async function makeDetector(ort, detection) {
  if (!detection) return new Guide();
  const Kind = { grid: Grid, blaze: Blaze }[detection.spec.kind];
  if (!Kind) throw new Error("The face detector is of a kind that this page does not know.");
  const session = await ort.InferenceSession.create(new Uint8Array(detection.onnx), { executionProviders: ["wasm"], logSeverityLevel: 4 });
  return new Kind(ort, session, detection.spec);
}

class Guide {
  guided = true;

  async detect({ width, height }) {
    const side = Math.round(GUIDE * Math.min(width, height));
    return [[Math.round((width - side) / 2), Math.round((height - side) / 2), side, side]];
  }
}

// Two grids of cells, each of which says whether a face's middle lies in it, and where its square is.
export class Grid {
  // spec: { longest, threshold, multiple, same, levels: [{ output, stride, side }] }
  constructor(ort, session, spec) {
    Object.assign(this, { ort, session, spec });
  }

  async detect(frame) {
    const { planes, width, height, factor } = prepare(frame, [frame.grey], this.spec);
    const input = new this.ort.Tensor("float32", Float32Array.from(planes[0]), [1, 1, height, width]);
    const maps = await this.session.run({ picture: input });
    const found = this.spec.levels.flatMap((level) => candidates(maps[level.output], level, this.spec.threshold));
    return blend(found, factor, this.spec.same);
  }
}

// BlazeFace over the whole picture at once, in colour: several guesses per cell.
export class Blaze {
  // spec: { longest, threshold, multiple, same, values, framing, levels: [{ scores, boxes, stride }] }
  constructor(ort, session, spec) {
    Object.assign(this, { ort, session, spec });
  }

  async detect(frame) {
    const { planes, width, height, factor } = prepare(frame, [0, 1, 2].map((channel) => plane(frame, channel)), this.spec);
    const picture = new Uint8Array(3 * width * height);
    for (let channel = 0; channel < 3; channel++) {
      const values = planes[channel];
      for (let at = 0; at < values.length; at++) picture[3 * at + channel] = values[at];
    }
    const maps = await this.session.run({ picture: new this.ort.Tensor("uint8", picture, [1, height, width, 3]) });
    const found = this.spec.levels.flatMap((level) => guesses(maps[level.scores], maps[level.boxes], level.stride, this.spec));
    return blend(found, factor, this.spec.same);
  }
}

function plane({ data, width, height }, channel) {
  const values = new Uint8Array(width * height);
  for (let to = 0, at = channel; to < values.length; to++, at += 4) values[to] = data[at];
  return values;
}

function guesses({ data, dims }, boxes, stride, { threshold, values, framing: [right, down, times] }) {
  const [, perCell, rows, columns] = dims;
  const cells = rows * columns;
  const least = Math.log(threshold / (1 - threshold));
  const found = [];
  for (let at = 0; at < perCell * cells; at++) {
    if (data[at] <= least) continue;
    const cell = at % cells;
    const [x, y, wide, high] = [0, 1, 2, 3].map((i) => boxes.data[(Math.floor(at / cells) * values + i) * cells + cell]);
    const side = (wide + high) / 2;
    const middle = [cell % columns, Math.floor(cell / columns)].map((place) => place * stride + stride / 2);
    const square = [middle[0] + x + side * right, middle[1] + y + side * down, times * side];
    found.push({ score: 1 / (1 + Math.exp(-data[at])), square });
  }
  return found;
}

// Planes of bytes with their longer side at most `longest`, their sides multiples of `multiple`: what is added repeats the edge.
export function prepare({ width: columns, height: rows }, planes, { longest, multiple }) {
  const factor = Math.max(1, Math.max(columns, rows) / longest);
  const smaller = planes.map((values) => reduced(values, [columns, rows], longest, factor));
  const [right, down] = smaller[0].sides;
  const [width, height] = [right, down].map((side) => Math.ceil(side / multiple) * multiple);
  const made = smaller.map(({ values }) => {
    if (width === right && height === down) return values;
    const padded = new Uint8Array(width * height);
    for (let y = 0; y < height; y++) {
      const row = Math.min(y, down - 1) * right;
      for (let x = 0; x < width; x++) padded[y * width + x] = values[row + Math.min(x, right - 1)];
    }
    return padded;
  });
  return { planes: made, width, height, factor };
}

// As models/detector/candidates.py: halved as often as that fits, then bilinear.
function reduced(values, sides, longest, factor) {
  const target = sides.map((side) => Math.max(1, halfToEven(side / factor)));
  const far = () => Math.max(...sides) >= 2 * longest;
  while (far() && sides.every((side) => side % 2 === 0)) {
    const half = sides.map((side) => side / 2);
    [values, sides] = [shrink(values, sides, half), half];
  }
  if (Math.max(...sides) <= longest) return { values, sides };
  return { values: (far() ? shrink : bilinear)(values, sides, target), sides: target };
}

function candidates({ data, dims }, { stride, side }, threshold) {
  const [, , rows, columns] = dims;
  const cells = rows * columns;
  const least = Math.log(threshold / (1 - threshold));
  const found = [];
  for (let at = 0; at < cells; at++) {
    if (data[at] <= least) continue;
    const length = side * Math.exp(Math.min(4, Math.max(-4, data[3 * cells + at])));
    const x = ((at % columns) + 0.5) * stride + data[cells + at] * length;
    const y = (Math.floor(at / columns) + 0.5) * stride + data[2 * cells + at] * length;
    found.push({ score: 1 / (1 + Math.exp(-data[at])), square: [x, y, length] });
  }
  return found;
}

// One box per face, from left to right: candidates of one face are averaged by their scores.
export function blend(found, factor, same) {
  let order = [...found].sort((a, b) => b.score - a.score);
  const boxes = [];
  while (order.length) {
    const [best] = order;
    const mine = order.filter((one) => one === best || overlap(best.square, one.square) > same);
    order = order.filter((one) => !mine.includes(one));
    const sum = mine.reduce((total, { score }) => total + score, 0);
    const [x, y, side] = [0, 1, 2].map((i) => (factor * mine.reduce((total, { score, square }) => total + score * square[i], 0)) / sum);
    const whole = Math.max(1, halfToEven(side));
    boxes.push([halfToEven(x - whole / 2), halfToEven(y - whole / 2), whole, whole]);
  }
  return boxes.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
}

// The larger of intersection over union, and of how deep the smaller square lies in the larger, halved.
function overlap(a, b) {
  const reach = (a[2] + b[2]) / 2;
  const least = Math.min(a[2], b[2]);
  const [wide, high] = [0, 1].map((i) => Math.max(0, Math.min(reach - Math.abs(a[i] - b[i]), least)));
  const shared = wide * high;
  return Math.max(shared / (a[2] ** 2 + b[2] ** 2 - shared), shared / least ** 2 / 2);
}
