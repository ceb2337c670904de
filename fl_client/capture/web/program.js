// Speaks with the program on this machine that served the page, and with nobody else: the page's Content-Security-Policy
// forbids it. What the program says of the session is kept in `now.facts`.

export const byId = (id) => document.getElementById(id);
export const now = { facts: null };
let key = "", proof = "", over = "", leaving = false, unasked = false, consents = 0;
const listeners = [], atTheEnd = [];

export function onFacts(listener) {
  listeners.push(listener);
}

const ENDED = "The program on this machine has ended: the camera is off, and nothing more is sent. Start it again and open its new link.";

// Called once, when the session is over: nothing is sent any more.
export function onEnd(listener) {
  atTheEnd.push(listener);
}

export const isOver = () => over !== "";

// Whoever takes the port after the program gets no camera frame, no photo and no key.
function end(sentence) {
  if (over) return;
  over = sentence;
  key = "";
  if (!leaving) sessionStorage.clear();
  atTheEnd.forEach((listener) => listener());
}

export function problem(text) {
  unasked = false;
  byId("problem").textContent = text || "";
  byId("problem").hidden = !text;
}

export async function ask(path, body, type) {
  if (over) throw new Error(over);
  const asked = consents;
  const options = { headers: { "x-emofl-key": key }, cache: "no-store", credentials: "omit", redirect: "error" };
  if (body !== undefined) {
    options.method = "POST";
    options.headers["content-type"] = type || "application/json";
    options.body = type ? body : JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    end(ENDED);
    throw new Error(over);
  }
  if (proof && answer.status !== 401 && answer.headers.get("x-emofl-proof") !== proof) {
    end(ENDED);
    throw new Error(over);
  }
  if (!answer.ok) {
    const said = await answer.json().catch(() => ({}));
    if (answer.status === 401 && path !== "/api/open") end(`${said.error || "Refused."} The camera is off, and nothing more is sent.`);
    // A refusal from before the consent that was just given says nothing about it.
    const stale = said.consent_needed && asked !== consents;
    if (said.consent_needed && now.facts && !stale) {
      now.facts.consent.needed = true;
      listeners.forEach((listener) => listener());
    }
    throw Object.assign(new Error(said.error || `Refused (${answer.status}).`), { status: answer.status, stale });
  }
  return answer;
}

export async function change(path, body, type) {
  const asked = consents;
  const answer = await (await ask(path, body, type)).json();
  if (path === "/api/consent") consents++;
  else if (asked !== consents) return answer;
  if (answer.emotions) {
    now.facts = answer;
    listeners.forEach((listener) => listener());
  }
  return answer;
}

export async function attempt(deed) {
  try {
    const answer = await deed();
    problem("");
    return answer;
  } catch (error) {
    if (over || !error.stale) problem(over || error.message);
    return null;
  }
}

// As `attempt`, for what nobody asked for just now: what the owner was told otherwise stays.
export async function attemptUnasked(deed) {
  try {
    const answer = await deed();
    if (unasked) problem("");
    return answer;
  } catch (error) {
    if (over) problem(over);
    else if (!error.stale && (unasked || byId("problem").hidden)) {
      problem(error.message);
      unasked = true;
    }
    return null;
  }
}

// The link's token is good once; what it is exchanged for stays in this tab.
export async function open() {
  const token = location.hash.slice(1);
  key = sessionStorage.getItem("emofl-key") || "";
  if (token) {
    history.replaceState(null, "", location.pathname);
    try {
      const given = await (await ask("/api/open", { token })).json();
      key = given.key;
      sessionStorage.setItem("emofl-key", key);
      sessionStorage.setItem("emofl-proof", given.proof);
    } catch (error) {
      if (!key) throw error;
    }
  }
  proof = sessionStorage.getItem("emofl-proof") || "";
  if (!key || !proof) throw new Error("This page opens with the link that the terminal shows.");
  await change("/api/state");
}

export async function finish() {
  await ask("/api/done", {});
  end("The session is finished.");
}

// The yes may be taken back on another terminal, also while the camera is off and nothing else is asked.
async function watch() {
  if (now.facts && !over) await attemptUnasked(() => change("/api/state"));
}
setInterval(watch, 2000);
addEventListener("focus", watch);
document.addEventListener("visibilitychange", watch);

addEventListener("beforeunload", () => (leaving = true));
addEventListener("hashchange", () => location.reload());

export function set(id, text, kind) {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
  if (kind !== undefined) element.className = kind;
}
