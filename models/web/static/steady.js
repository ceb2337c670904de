// Steadies what the model says of one face, as fl_client/webcam/smoothing.py does it, and says "unsure" where it should.

export const SMOOTHING = { seconds: 0.4, lead: 0.1, least: 0, slack: 0.1 };
export const AS_IT_IS = { seconds: 0, lead: 0, least: 0, slack: 0 };

export function softmax(logits) {
  const most = Math.max(...logits);
  const powers = Array.from(logits, (value) => Math.exp(value - most));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}

// The state after one more opinion: { probabilities, shown }; shown is an index, or null for "unsure".
export function steadied(before, probabilities, elapsed, settings) {
  let average = Array.from(probabilities);
  if (before && settings.seconds > 0) {
    const past = Math.exp(-Math.max(0, elapsed) / settings.seconds);
    average = average.map((now, i) => past * before.probabilities[i] + (1 - past) * now);
  }
  return { probabilities: average, shown: choose(before ? before.shown : null, average, settings) };
}

function choose(before, average, { lead, least, slack }) {
  let best = average.indexOf(Math.max(...average));
  if (before !== null && average[best] - average[before] <= lead) best = before;
  return average[best] >= least - (best === before ? slack : 0) ? best : null;
}
