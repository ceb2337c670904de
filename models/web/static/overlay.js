// What is drawn over a frame: boxes, labels, probability bars, heatmaps; colours and rules as fl_client/webcam/overlay.py.

export const COLOURS = {
  neutral: "#b2bac4",
  happiness: "#fac828",
  surprise: "#ff8c28",
  sadness: "#5aa0fa",
  anger: "#f04646",
  disgust: "#6ec85a",
  fear: "#be78f0",
  contempt: "#3cbebe",
};
export const EMOJI = {
  neutral: "😐",
  happiness: "😊",
  surprise: "😮",
  sadness: "😢",
  anger: "😠",
  disgust: "😖",
  fear: "😨",
  contempt: "😒",
};
const PLAIN = "#e1e1e1";
const UNSURE = "unsure";
const BARS = 3;
const MOST_FACES_WITH_BARS = 4;
const FONT = 'system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif';

export function said(face, classes) {
  const { probabilities, shown } = face.steady;
  const best = shown ?? probabilities.indexOf(Math.max(...probabilities));
  const sure = `${Math.round(100 * probabilities[best])} %`;
  return shown === null ? { label: UNSURE, sure, colour: PLAIN, emoji: "" } : named(classes[shown], sure);
}

function named(label, sure) {
  return { label, sure, colour: COLOURS[label] ?? PLAIN, emoji: EMOJI[label] ?? "" };
}

// Draws on a canvas whose size is the stage's, in device pixels. view: { width, height of the frame, mirror, guided, heatmap }.
export function draw(canvas, faces, classes, view) {
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  const scale = canvas.width / view.width;
  const letters = Math.max(12 * view.ratio, Math.min(0.03 * Math.sqrt(canvas.width * canvas.height * 0.75), 20 * view.ratio));
  const placed = faces.map((face) => ({ face, box: place(face.exact, view, scale) }));
  if (view.guided) drawGuide(context, placed[0]?.box, letters);
  if (view.heatmap) for (const { face, box } of placed) if (face.heat) drawHeat(context, face, box, view.mirror);
  for (const { face, box } of placed) drawBox(context, box, said(face, classes).colour, letters);
  const bars = faces.length <= MOST_FACES_WITH_BARS;
  for (const { face, box } of placed) drawFace(context, face, box, classes, letters, bars);
}

function place([x, y, width, height], view, scale) {
  const left = view.mirror ? view.width - x - width : x;
  return { x: left * scale, y: y * scale, width: width * scale, height: height * scale };
}

function drawBox(context, { x, y, width, height }, colour, letters) {
  const line = Math.max(2, letters / 6);
  context.lineJoin = "round";
  for (const [style, thick] of [["rgba(0, 0, 0, .55)", 2.2 * line], [colour, line]]) {
    context.strokeStyle = style;
    context.lineWidth = thick;
    context.strokeRect(x, y, width, height);
  }
}

function drawGuide(context, box, letters) {
  if (!box) return;
  context.strokeStyle = "rgba(255, 255, 255, .8)";
  context.lineWidth = letters / 8;
  context.setLineDash([letters / 2, letters / 2]);
  context.beginPath();
  context.ellipse(box.x + box.width / 2, box.y + box.height / 2, 0.5 * box.width, 0.62 * box.height, 0, 0, 2 * Math.PI);
  context.stroke();
  context.setLineDash([]);
}

function drawFace(context, face, box, classes, letters, bars) {
  const { label, sure, colour, emoji } = said(face, classes);
  const { width, height } = context.canvas;
  const pad = letters / 3;
  const line = 1.45 * letters;
  context.textBaseline = "middle";
  context.font = `650 ${letters}px ${FONT}`;
  const text = `${emoji} ${label} ${sure}`.trim();
  const wide = context.measureText(text).width + 2 * pad;
  const x = Math.max(0, Math.min(box.x, width - wide));
  const y = Math.max(0, box.y >= line ? box.y - line : box.y);
  context.fillStyle = colour;
  context.fillRect(x, y, wide, line);
  context.fillStyle = readableOn(colour);
  context.fillText(text, x + pad, y + line / 2);
  if (bars && box.width >= 4 * letters) drawBars(context, face, box, classes, 0.8 * letters, width, height);
}

function drawBars(context, face, box, classes, letters, width, height) {
  const order = face.steady.probabilities.map((part, i) => [part, classes[i]]).sort((a, b) => b[0] - a[0]).slice(0, BARS);
  const pad = letters / 2;
  const line = 1.35 * letters;
  context.font = `${letters}px ${FONT}`;
  const names = Math.max(...order.map(([, name]) => context.measureText(name).width));
  const figures = context.measureText("100 %").width;
  const wide = Math.max(box.width, names + figures + 4 * pad + 4 * letters);
  const high = BARS * line + pad;
  if (wide > width || high > height / 2) return;
  const x = Math.max(0, Math.min(box.x, width - wide));
  const y = Math.min(box.y + box.height + pad / 2, height - high);
  context.fillStyle = "rgba(10, 15, 14, .72)";
  context.fillRect(x, y, wide, high);
  const room = wide - names - figures - 4 * pad;
  order.forEach(([part, name], i) => {
    const middle = y + pad / 2 + (i + 0.5) * line;
    context.fillStyle = "#fff";
    context.fillText(name, x + pad, middle);
    const figure = `${Math.round(100 * part)} %`;
    context.fillText(figure, x + wide - pad - context.measureText(figure).width, middle);
    context.fillStyle = "rgba(255, 255, 255, .22)";
    context.fillRect(x + names + 2 * pad, middle - letters / 4, room, letters / 2);
    context.fillStyle = COLOURS[name] ?? PLAIN;
    context.fillRect(x + names + 2 * pad, middle - letters / 4, room * part, letters / 2);
  });
}

const patch = document.createElement("canvas");

// What speaks for the shown class, from clear to red, scaled to the largest value; what speaks against it stays clear.
function drawHeat(context, face, box, mirror) {
  const { rows, columns, values } = face.heat;
  const { probabilities, shown } = face.steady;
  const one = shown ?? probabilities.indexOf(Math.max(...probabilities));
  const map = values.subarray(one * rows * columns, (one + 1) * rows * columns);
  const most = Math.max(...map);
  if (most <= 0) return;
  [patch.width, patch.height] = [columns, rows];
  const paint = patch.getContext("2d");
  const image = paint.createImageData(columns, rows);
  for (let at = 0; at < map.length; at++) {
    const part = Math.max(0, map[at]) / most;
    const row = Math.floor(at / columns);
    const column = mirror ? columns - 1 - (at % columns) : at % columns;
    image.data.set([255, Math.round(210 * (1 - part)), 0, Math.round(190 * part)], 4 * (row * columns + column));
  }
  paint.putImageData(image, 0, 0);
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = "high";
  context.drawImage(patch, box.x, box.y, box.width, box.height);
}

function readableOn(colour) {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  return 0.299 * red + 0.587 * green + 0.114 * blue > 120 ? "#10201d" : "#ffffff";
}
