// What this browser remembers: theme, language, model, drafts. Works without storage, then for this page only.

const memory = new Map();

export function recall(key) {
  try {
    return localStorage.getItem(`roost.${key}`);
  } catch {
    return memory.get(key) ?? null;
  }
}

export function remember(key, value) {
  try {
    if (value) localStorage.setItem(`roost.${key}`, value);
    else localStorage.removeItem(`roost.${key}`);
  } catch {
    memory.set(key, value || null);
  }
}

/** Forget every draft, on logout: drafts are private text, and so is what a picture should not show. */
export function forgetDrafts() {
  try {
    for (const key of Object.keys(localStorage)) if (/^roost\.(draft\.|drawing$)/.test(key)) localStorage.removeItem(key);
  } catch {
    memory.clear();
  }
}

export function theme() {
  return document.documentElement.dataset.theme;
}

export function switchTheme() {
  remember("theme", theme() === "dark" ? "light" : "dark");
  dispatchEvent(new Event("roost-theme"));
}
