// Which faces the model looks at in a frame, so that frames stay fluent on a slow machine and no label gets old.

// A frame is given to detector and model for about this many ms: there faces take turns.
export const BUDGET = 14;

// A face that has waited this many ms is looked at in the next frame, whatever the budget says.
export const OLDEST = 110;

// Those longest unseen first: all that are new or overdue, then as many as there is time for, and one at least in a frame
// without a detection. tracks: [{ seen: ms or null }]; spent: ms already used in this frame; perFace: ms that a look takes.
export function dueFaces(tracks, { time, spent, perFace, detected }) {
  const age = ({ seen }) => (seen === null ? Infinity : time - seen);
  const order = [...tracks].sort((a, b) => age(b) - age(a) || 0);
  return order.filter((track, i) => age(track) >= OLDEST || spent + (i + 1) * perFace <= BUDGET || (i === 0 && !detected));
}
