// Speaks with the program on this machine that served the page, and with nobody else: the page's Content-Security-Policy
// forbids it. What the program says of the session is kept in `now.facts`.

export const byId = (id) => document.getElementById(id);
export const now = { facts: null };
let key = "";
const listeners = [];

export function onFacts(listener) {
  listeners.push(listener);
}

export function problem(text) {
  byId("problem").textContent = text || "";
  byId("problem").hidden = !text;
}

export async function ask(path, body, type) {
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
    throw new Error("The program on this machine does not answer: it has ended.");
  }
  if (!answer.ok) {
    const said = await answer.json().catch(() => ({}));
    throw Object.assign(new Error(said.error || `Refused (${answer.status}).`), { status: answer.status });
  }
  return answer;
}

export async function change(path, body, type) {
  const answer = await (await ask(path, body, type)).json();
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
    problem(error.message);
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
      key = (await (await ask("/api/open", { token })).json()).key;
      sessionStorage.setItem("emofl-key", key);
    } catch (error) {
      if (!key) throw error;
    }
  }
  if (!key) throw new Error("This page opens with the link that the terminal shows.");
  await change("/api/state");
}

export async function finish() {
  await ask("/api/done", {});
  sessionStorage.removeItem("emofl-key");
}

export function set(id, text, kind) {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
  if (kind !== undefined) element.className = kind;
}
