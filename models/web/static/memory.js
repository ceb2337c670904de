// Two lines in the browser's storage; where it keeps nothing for this page, they last until the page is left.
export function memory() {
  const kept = new Map();
  try {
    localStorage.setItem("emofl-tried", "");
    localStorage.removeItem("emofl-tried");
  } catch {
    return { get: (name) => kept.get(name), set: (name, value) => kept.set(name, value), clear: () => kept.clear() };
  }
  return {
    get: (name) => localStorage.getItem(name),
    set: (name, value) => localStorage.setItem(name, value),
    clear: () => Object.keys(localStorage).forEach((name) => name.startsWith("emofl-") && localStorage.removeItem(name)),
  };
}

