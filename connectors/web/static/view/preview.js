// An answer's HTML, shown in a frame of no origin. Nothing that the frame says is listened to.
import { el, iconButton, word } from "../dom.js";
import { icon } from "../icons.js";
import { t } from "../i18n.js";

const LANGUAGES = new Set(["html", "htm", "xhtml", "svg"]);
const DOCUMENT = /^\s*(<!doctype html|<html[\s>]|<svg[\s>])/i;

export function isPage(language, source) {
  return LANGUAGES.has(language.toLowerCase()) || DOCUMENT.test(source);
}

/** A frame that shows `html` once. It goes to no other address: the page's policy holds it. */
function frameOf(html) {
  const frame = el("iframe", {
    class: "preview-frame", src: "/preview", sandbox: "allow-scripts", referrerpolicy: "no-referrer", title: t("preview"),
  });
  // of no origin, it can be addressed by nothing but "*"; only its first document is told anything
  frame.addEventListener("load", () => frame.contentWindow.postMessage(html, "*"), { once: true });
  return frame;
}

/** Buttons for the head of a code block: preview or code, and wide. `sourceOf()` tells what to show. */
export function previewButtons(box, pre, sourceOf) {
  let frame = null;
  const name = el("span", { text: "preview" });
  const toggle = el("button", { type: "button", class: "code-tool code-preview", "aria-pressed": "false" }, icon("eye"), name);
  toggle.addEventListener("click", () => {
    if (frame) frame.remove();
    else box.append(frameOf(sourceOf()));
    frame = frame ? null : box.lastElementChild;
    pre.hidden = Boolean(frame);
    toggle.setAttribute("aria-pressed", String(Boolean(frame)));
    word(name, "text", frame ? "preview.code" : "preview");
    toggle.firstElementChild.replaceWith(icon(frame ? "code" : "eye"));
  });
  const wide = iconButton("wide", "preview.wide", () => openWide(sourceOf()), { class: "code-tool code-preview" });
  return [toggle, wide];
}

/** Over the whole window, until it is closed. */
function openWide(html) {
  const close = iconButton("close", "close", () => dialog.close());
  const head = el("div", { class: "preview-head" }, el("h2", { text: "preview" }), el("span", { class: "gap" }), close);
  const dialog = el("dialog", { class: "preview-wide", label: "preview" }, head, frameOf(html));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}
