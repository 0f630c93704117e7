// Making elements. Text goes in as text; there is no way to pass HTML here.
import { icon } from "./icons.js";
import { t } from "./i18n.js";

/**
 * el("button", {class: "quiet", onclick: fn, "aria-label": "x"}, child, "text", …)
 * `text`, `label`, `hint` take a key of i18n.js and follow the language.
 */
export function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "text" || key === "label" || key === "hint") word(node, key, value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Give `node` a text, a label (name and tooltip) or a hint (placeholder) in the reader's language. */
export function word(node, kind, key) {
  node.dataset[kind] = key;
  say(node, kind, key);
}

function say(node, kind, key) {
  if (kind === "text") node.textContent = t(key);
  else if (kind === "hint") node.placeholder = t(key);
  else {
    node.setAttribute("aria-label", t(key));
    if (node.tagName === "BUTTON") node.title = t(key);
  }
}

/** Say everything under `root` again, after the language changed. */
export function retell(root = document) {
  for (const kind of ["text", "label", "hint"])
    for (const node of root.querySelectorAll(`[data-${kind}]`)) say(node, kind, node.dataset[kind]);
}

/** A button with an icon alone; `label` is its name. */
export function iconButton(name, label, onclick, attributes = {}) {
  return el("button", { type: "button", class: "icon", label, onclick, ...attributes }, icon(name));
}

/** For screen readers: say it once, politely. */
let speaker = null;
export function announce(text) {
  speaker ??= document.body.appendChild(el("div", { class: "unseen", "aria-live": "polite", role: "status" }));
  speaker.textContent = text;
}

/** Copy text; resolves to whether it worked (a page over plain HTTP on a network has no clipboard API). */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const box = el("textarea", { class: "unseen", "aria-hidden": "true" });
    box.value = text;
    const back = document.activeElement;
    document.body.append(box);
    box.select();
    const done = document.execCommand("copy");
    box.remove();
    back?.focus();
    return done;
  }
}
