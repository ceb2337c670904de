// Follows faces between detections and gives each a number that stays. Pure: pictures and boxes in, tracks out.

const LEAST_OVERLAP = 0.2;
const PATIENCE = 3;
const WEIGHT = 0.6;
const POINTS = 20;

export function overlap(a, b) {
  const width = Math.min(a[0] + a[2], b[0] + b[2]) - Math.max(a[0], b[0]);
  const height = Math.min(a[1] + a[3], b[1] + b[3]) - Math.max(a[1], b[1]);
  if (width <= 0 || height <= 0) return 0;
  return (width * height) / (a[2] * a[3] + b[2] * b[3] - width * height);
}

export class Tracker {
  constructor() {
    this.tracks = [];
    this.next = 1;
  }

  // Take over what another tracker knew: [{ id, exact, steady, seen }].
  adopt(tracks) {
    this.tracks = tracks.map(({ id, exact, steady, seen }) => ({ ...fresh(id, exact), steady, seen }));
    this.next = 1 + Math.max(0, ...tracks.map(({ id }) => id));
  }

  // The boxes that a detector found in this frame.
  detected(boxes) {
    const pairs = [];
    this.tracks.forEach((track, at) => boxes.forEach((box, to) => pairs.push([overlap(track.exact, box), at, to])));
    pairs.sort((a, b) => b[0] - a[0]);
    const continued = new Map();
    const used = new Set();
    for (const [shared, at, to] of pairs) {
      if (shared < LEAST_OVERLAP || continued.has(at) || used.has(to)) continue;
      continued.set(at, to);
      used.add(to);
    }
    const kept = [];
    this.tracks.forEach((track, at) => {
      if (continued.has(at)) {
        const box = boxes[continued.get(at)];
        kept.push({ ...track, exact: track.exact.map((old, i) => old + WEIGHT * (box[i] - old)), missed: 0 });
      } else if (track.missed + 1 < PATIENCE) kept.push({ ...track, missed: track.missed + 1 });
    });
    boxes.forEach((box, to) => {
      if (!used.has(to)) kept.push(fresh(this.next++, [...box]));
    });
    this.tracks = kept;
  }

  // Move each track to where its face, as `remember` saw it, went since the last frame; false when one was lost.
  follow(picture) {
    let all = true;
    for (const track of this.tracks) {
      const moved = track.look && search(picture, track.exact, track.look);
      if (moved) track.exact = moved;
      else all = false;
    }
    return all;
  }

  remember(picture) {
    for (const track of this.tracks) track.look = sample(picture, track.exact);
  }
}

// steady: what is known of its emotion, seen: when the model last looked at it, look: what it looks like, heat: its last heatmap.
function fresh(id, exact) {
  return { id, exact, missed: 0, look: null, steady: null, seen: null, heat: null };
}

function sample({ grey, width, height }, [x, y, side], into = new Uint8Array(POINTS * POINTS)) {
  const step = side / POINTS;
  let at = 0;
  for (let j = 0; j < POINTS; j++) {
    const row = Math.min(height - 1, Math.max(0, Math.round(y + (j + 0.5) * step)));
    for (let i = 0; i < POINTS; i++) {
      const column = Math.min(width - 1, Math.max(0, Math.round(x + (i + 0.5) * step)));
      into[at++] = grey[row * width + column];
    }
  }
  return into;
}

const scratch = new Uint8Array(POINTS * POINTS);

function difference(picture, box, look) {
  sample(picture, box, scratch);
  let sum = 0;
  for (let i = 0; i < look.length; i++) sum += Math.abs(scratch[i] - look[i]);
  return sum / look.length;
}

// The least mean difference of grey values around the old place, from coarse to fine; null when nothing is alike.
function search(picture, box, look) {
  let [x, y, width, height] = box;
  let best = difference(picture, box, look);
  for (let step = Math.max(1, width / 12); step > 0.6; step = step > 1 ? Math.max(1, step / 2) : 0) {
    let [cx, cy] = [x, y];
    for (let j = -1; j <= 1; j++) {
      for (let i = -1; i <= 1; i++) {
        if (!i && !j) continue;
        const found = difference(picture, [cx + i * step, cy + j * step, width, height], look);
        if (found < best) [best, x, y] = [found, cx + i * step, cy + j * step];
      }
    }
  }
  return best < 40 ? [x, y, width, height] : null;
}
