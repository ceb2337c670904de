// Files from this page's own server: asked for again while it is busy, with a sentence for the person who waits.

const SHORTEST = 1;
const LONGEST = 30;

// What went wrong, in a sentence for the page.
export class Refused extends Error {}

// `path`, once the server has time for it. say: gets a sentence before each wait. Answers that are no 503 are the caller's.
export async function ask(path, say = () => {}) {
  for (let tries = 0; ; tries++) {
    let answer = null;
    try {
      answer = await fetch(path, { credentials: "omit" });
    } catch {
      say(`${unreachable()}; this page goes on trying.`);
    }
    if (answer && answer.status !== 503) return answer;
    const seconds = waitOf(answer, tries);
    if (answer) say(`The server is busy; it is asked again in ${seconds} s.`);
    await new Promise((done) => setTimeout(done, 1000 * seconds));
  }
}

export const unreachable = () => (navigator.onLine ? "The server does not answer" : "This device is offline");

// What the server asks for, within bounds, and longer each time; a little of it by chance, so that not all come back at once.
function waitOf(answer, tries) {
  const asked = Number(answer?.headers.get("retry-after")) || SHORTEST;
  const longer = Math.min(LONGEST, Math.max(SHORTEST, asked) * 1.5 ** Math.min(tries, 8));
  return Math.ceil(longer * (1 + Math.random() / 4));
}
