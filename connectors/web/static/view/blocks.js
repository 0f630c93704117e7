// The one place where HTML becomes elements: blocks that the server rendered and sanitised.
import { copy, el } from "../dom.js";
import { icon } from "../icons.js";
import { t } from "../i18n.js";

const policy = globalThis.trustedTypes?.createPolicy("roost", { createHTML: (html) => html });
const COPIED_MS = 1800;

/** Replace the children of `body` from index `from` on by `html`, one child for each block. */
export function showBlocks(body, html, from = 0) {
  while (body.children.length > from) body.lastElementChild.remove();
  for (const block of html.slice(from)) {
    const node = el("div", { class: "block" });
    node.innerHTML = policy ? policy.createHTML(block) : block;
    for (const pre of node.querySelectorAll("pre")) frame(pre);
    for (const table of node.querySelectorAll("table")) wrap(table);
    body.append(node);
  }
}

/** Around code: its language and a button to copy it. */
function frame(pre) {
  const code = pre.querySelector("code");
  const language = /language-(\S+)/.exec(code?.className ?? "")?.[1] ?? t("code.plain");
  const button = el("button", { type: "button", class: "code-copy", onclick: () => copied(button, pre.textContent) });
  button.append(icon("copy"), el("span", { text: "code.copy" }));
  const head = el("div", { class: "code-head" }, el("span", { class: "code-language" }, language), button);
  pre.tabIndex = 0;
  pre.setAttribute("role", "region");
  pre.setAttribute("aria-label", language);
  pre.replaceWith(el("div", { class: "code" }, head));
  head.after(pre);
}

function wrap(table) {
  const box = el("div", { class: "table", tabindex: "0" });
  table.replaceWith(box);
  box.append(table);
}

/** Copy and say so on the button for a moment. */
export async function copied(button, text) {
  if (!(await copy(text))) return;
  const word = button.querySelector("span");
  const glyph = button.querySelector("svg");
  const done = icon("check");
  glyph.replaceWith(done);
  if (word) word.textContent = t("code.copied");
  button.classList.add("done");
  setTimeout(() => {
    done.replaceWith(glyph);
    if (word) word.textContent = t("code.copy");
    button.classList.remove("done");
  }, COPIED_MS);
}
