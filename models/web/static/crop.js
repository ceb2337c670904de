// From a face's box to the model's input, pixel for pixel as models/faces/crop.py, light.py and models/preprocess.py do it.
// tests/golden/crop.json holds both to the same values; tests/models/web/crop.test.mjs checks this file.

// left, top, side of the square around a box (x, y, width, height); it may reach beyond the picture.
export function faceSquare([x, y, width, height], margin = 0) {
  const side = Math.max(1, Math.floor(Math.max(width, height) * (1 + 2 * margin) + 0.5));
  return [x + Math.floor((width - side) / 2), y + Math.floor((height - side) / 2), side];
}

// The square as side x side bytes of a grey picture { grey, width, height }; beyond its edge the edge repeats.
export function greySquare({ grey, width, height }, [left, top, side]) {
  const square = new Uint8Array(side * side);
  const columns = new Int32Array(side);
  for (let i = 0; i < side; i++) columns[i] = Math.min(width - 1, Math.max(0, left + i));
  const inside = left >= 0 && left + side <= width;
  let to = 0;
  for (let j = 0; j < side; j++, to += side) {
    const row = width * Math.min(height - 1, Math.max(0, top + j));
    if (inside) square.set(grey.subarray(row + left, row + left + side), to);
    else for (let i = 0; i < side; i++) square[to + i] = grey[row + columns[i]];
  }
  return square;
}

// A picture { data (RGBA), width, height } as grey bytes: ITU-R BT.601 weights in 15 bits, as OpenCV.
export function greyPicture({ data, width, height }) {
  const grey = new Uint8Array(width * height);
  for (let to = 0, at = 0; to < grey.length; to++, at += 4) {
    grey[to] = (9798 * data[at] + 19235 * data[at + 1] + 3735 * data[at + 2] + 16384) >> 15;
  }
  return grey;
}

// A square of side x side bytes as size x size bytes: area average when shrinking, bilinear when enlarging.
export function resizeSquare(from, side, size) {
  if (side === size) return from;
  return (side < size ? bilinear : shrink)(from, [side, side], [size, size]);
}

// Grey bytes of [columns, rows] as fewer ones, each the mean of the area that it covers.
export function shrink(from, [columns, rows], [wide, high]) {
  return columns % wide === 0 && rows % high === 0
    ? shrinkWhole(from, columns, columns / wide, rows / high, wide, high)
    : shrinkParts(from, columns, areas(columns, wide), areas(rows, high), wide, high);
}

export function cropFace(picture, box, size, margin = 0) {
  const square = faceSquare(box, margin);
  return resizeSquare(greySquare(picture, square), square[2], size);
}

// See models/faces/light.py. A Gaussian of 0.6 pixels in 1/256, as OpenCV has it for bytes.
const LIGHT = { dim: 24, empty: 4, darkest: 0.01, brightest: 0.99, grain: [1, 42, 170, 42, 1] };

// size x size grey bytes -> the same, or if the face was taken in dim light: smoothed, and stretched to the whole range.
export function relit(face, size) {
  if (spreadOf(face) >= LIGHT.dim) return face;
  const smooth = smoothed(face, size, LIGHT.grain);
  const levels = Uint8Array.from(smooth).sort();
  const [low, high] = [LIGHT.darkest, LIGHT.brightest].map((part) => levels[halfToEven(part * (levels.length - 1))]);
  if (high - low <= LIGHT.empty) return face;
  const times = Math.fround(255 / (high - low));
  return smooth.map((level) => Math.min(255, Math.max(0, halfToEven(Math.fround((level - low) * times)))));
}

function spreadOf(values) {
  let [sum, squares] = [0, 0];
  for (const value of values) {
    sum += value;
    squares += value * value;
  }
  const scale = 1 / values.length;
  return Math.sqrt(Math.max(0, squares * scale - (sum * scale) ** 2));
}

// Weights in 1/256 along both sides; beyond the edge the picture is mirrored at its last pixel.
function smoothed(from, size, weights) {
  const reach = (weights.length - 1) / 2;
  const inside = (at) => (at < 0 ? -at : at >= size ? 2 * size - 2 - at : at);
  const across = new Int32Array(size * size);
  const to = new Uint8Array(size * size);
  const each = (set) => {
    for (let y = 0; y < size; y++) for (let x = 0; x < size; x++) set(y * size + x, y, x);
  };
  const sum = (value) => weights.reduce((total, weight, i) => total + weight * value(i - reach), 0);
  each((at, y, x) => (across[at] = sum((i) => from[y * size + inside(x + i)])));
  each((at, y, x) => (to[at] = (sum((i) => across[inside(y + i) * size + x]) + 32768) >> 16));
  return to;
}

// Bytes into a float32 batch at `offset`: input = (pixel / 255 - mean) / std.
export function normalise(grey, { mean, std }, batch, offset) {
  const scale = Math.fround(1 / (255 * std));
  const shift = Math.fround(mean / std);
  for (let i = 0; i < grey.length; i++) batch[offset + i] = Math.fround(Math.fround(grey[i] * scale) - shift);
}

export function halfToEven(value) {
  const low = Math.floor(value);
  const rest = value - low;
  return rest > 0.5 || (rest === 0.5 && low % 2 !== 0) ? low + 1 : low;
}

function shrinkWhole(from, columns, across, down, wide, high) {
  const part = Math.fround(1 / (across * down));
  const to = new Uint8Array(wide * high);
  for (let y = 0; y < high; y++) {
    for (let x = 0; x < wide; x++) {
      let sum = 0;
      for (let j = 0; j < down; j++) {
        const row = (y * down + j) * columns + x * across;
        for (let i = 0; i < across; i++) sum += from[row + i];
      }
      to[y * wide + x] = across === 2 && down === 2 ? (sum + 2) >> 2 : halfToEven(Math.fround(sum * part));
    }
  }
  return to;
}

// Which source pixel counts how much for which target pixel, along one side.
function areas(side, size) {
  const scale = side / size;
  const table = [];
  for (let to = 0; to < size; to++) {
    const begin = to * scale;
    const end = begin + scale;
    const width = Math.min(scale, side - begin);
    const last = Math.min(Math.floor(end), side - 1);
    const first = Math.min(Math.ceil(begin), last);
    if (first - begin > 1e-3) table.push([to, first - 1, Math.fround((first - begin) / width)]);
    for (let at = first; at < last; at++) table.push([to, at, Math.fround(1 / width)]);
    if (end - last > 1e-3) table.push([to, last, Math.fround(Math.min(end - last, 1, width) / width)]);
  }
  return table;
}

function shrinkParts(from, columns, across, down, wide, high) {
  const to = new Uint8Array(wide * high);
  const sums = new Float32Array(wide);
  const line = new Float32Array(wide);
  const targets = Int32Array.from(across, ([x]) => x);
  const sources = Int32Array.from(across, ([, at]) => at);
  const parts = Float32Array.from(across, ([, , part]) => part);
  let current = 0;
  const flush = () => {
    for (let x = 0; x < wide; x++) to[current * wide + x] = Math.min(255, halfToEven(sums[x]));
    sums.fill(0);
  };
  for (const [target, row, beta] of down) {
    if (target !== current) {
      flush();
      current = target;
    }
    line.fill(0);
    const begin = row * columns;
    for (let i = 0; i < targets.length; i++) line[targets[i]] += Math.fround(from[begin + sources[i]] * parts[i]);
    for (let x = 0; x < wide; x++) sums[x] += Math.fround(beta * line[x]);
  }
  flush();
  return to;
}

// Where each target pixel lies between two source pixels, in 11 bits. Columns beyond the side count the edge once; rows
// count it in two rounded parts, as OpenCV does.
function between(side, size, columns) {
  const scale = side / size;
  const inside = (at) => Math.min(side - 1, Math.max(0, at));
  const bits = (part) => Math.round(Math.fround(part * 2048));
  return Array.from({ length: size }, (_, to) => {
    let rest = Math.fround((to + 0.5) * scale - 0.5);
    const at = Math.floor(rest);
    rest = Math.fround(rest - at);
    if (columns && (at < 0 || at >= side - 1)) rest = 0;
    return [inside(at), inside(at + 1), bits(Math.fround(1 - rest)), bits(rest)];
  });
}

// Grey bytes of [columns, rows] as others, each between four neighbours.
export function bilinear(from, [columns, rows], [wide, high]) {
  const table = between(columns, wide, true);
  const lines = new Map();
  const line = (row) => {
    if (!lines.has(row)) {
      const values = new Int32Array(wide);
      const begin = row * columns;
      for (let x = 0; x < wide; x++) {
        const [a, b, u, v] = table[x];
        values[x] = from[begin + a] * u + from[begin + b] * v;
      }
      lines.set(row, values);
    }
    return lines.get(row);
  };
  const to = new Uint8Array(wide * high);
  between(rows, high, false).forEach(([a, b, u, v], y) => {
    const above = line(a);
    const below = line(b);
    for (let x = 0; x < wide; x++) {
      to[y * wide + x] = (((u * (above[x] >> 4)) >> 16) + ((v * (below[x] >> 4)) >> 16) + 2) >> 2;
    }
  });
  return to;
}
