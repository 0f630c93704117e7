// The one place where HTML becomes elements: blocks that the server rendered and sanitised.
import { copy, el } from "../dom.js";
import { icon } from "../icons.js";
import { t } from "../i18n.js";
import { isPage, previewButtons } from "./preview.js";

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
  const button = el("button", { type: "button", class: "code-tool", onclick: () => copied(button, pre.textContent) });
  button.append(icon("copy"), el("span", { text: "code.copy" }));
  const tools = el("div", { class: "code-tools" }, button);
  const head = el("div", { class: "code-head" }, el("span", { class: "code-language" }, language), tools);
  pre.tabIndex = 0;
  pre.setAttribute("role", "region");
  pre.setAttribute("aria-label", language);
  const box = el("div", { class: "code", "data-language": language.toLowerCase() }, head);
  pre.replaceWith(box);
  head.after(pre);
  if (isPage(language, pre.textContent)) tools.prepend(...previewButtons(box, pre, () => wholePage(box, pre)));
}

/** The HTML with the style sheets and scripts that stand beside it in the same answer, where it brings none itself. */
function wholePage(box, pre) {
  const html = pre.textContent;
  const beside = (...languages) =>
    [...(box.closest(".markdown")?.querySelectorAll(".code") ?? [])]
      .filter((other) => languages.includes(other.dataset.language))
      .map((other) => other.querySelector("pre").textContent);
  const styles = /<style[\s>]/i.test(html) ? [] : beside("css");
  const scripts = /<script[\s>](?![^>]*\bsrc=)/i.test(html) ? [] : beside("js", "javascript");
  return html + styles.map((css) => `\n<style>\n${css}</style>`).join("") + scripts.map((js) => `\n<script>\n${js}</script>`).join("");
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
  const said = word?.textContent;
  const glyph = button.querySelector("svg");
  const done = icon("check");
  glyph.replaceWith(done);
  if (word) word.textContent = t("code.copied");
  button.classList.add("done");
  setTimeout(() => {
    done.replaceWith(glyph);
    if (word) word.textContent = said;
    button.classList.remove("done");
  }, COPIED_MS);
}
