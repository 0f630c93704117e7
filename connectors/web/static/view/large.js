// One picture as large as the window, among others: arrow keys go on, Esc goes back.
import * as api from "../api.js";
import { el, iconButton } from "../dom.js";
import { t } from "../i18n.js";
import { explain, madeHow, tools } from "./picture.js";

export function openLarge(pictures, from) {
  let at = from;
  const count = el("p", { class: "large-count", role: "status" });
  const stage = el("div", { class: "large-stage" });
  const foot = el("div", { class: "large-foot" });
  const back = iconButton("back", "large.back", () => show(at - 1), { class: "icon large-step" });
  const forth = iconButton("forth", "large.forth", () => show(at + 1), { class: "icon large-step" });
  const head = el("div", { class: "large-head" }, count, el("span", { class: "gap" }), iconButton("close", "close", () => dialog.close()));
  const dialog = el("dialog", { class: "large", label: "large.label" }, head, el("div", { class: "large-middle" }, back, stage, forth), foot);

  function show(next) {
    if (next < 0 || next >= pictures.length) return;
    at = next;
    const { file } = pictures[at];
    const { prompt, negative, width, height } = file.drawn;
    const image = el("img", { src: api.attachmentUrl(file.sha256), alt: prompt, width, height });
    const node = el("div", { class: "large-one" }, image);
    const place = image;
    image.addEventListener("error", () => explain(foot, place, pictures[at]), { once: true });
    foot.classList.remove("gone");
    stage.replaceChildren(node);
    foot.replaceChildren(
      el("p", { class: "large-prompt" }, prompt),
      negative ? el("p", { class: "large-how" }, t("made.negative", { text: negative })) : "",
      el("p", { class: "large-how" }, madeHow([file])),
      tools(pictures[at], { named: true }),
    );
    count.textContent = pictures.length > 1 ? t("large.count", { at: at + 1, of: pictures.length }) : "";
    for (const button of [back, forth]) button.hidden = pictures.length < 2;
    back.disabled = at === 0;
    forth.disabled = at === pictures.length - 1;
  }

  const keys = { ArrowLeft: () => at - 1, ArrowRight: () => at + 1, Home: () => 0, End: () => pictures.length - 1 };
  dialog.addEventListener("keydown", (event) => {
    if (!keys[event.key] || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    show(keys[event.key]());
  });
  dialog.addEventListener("click", (event) => event.target.matches("dialog, .large-middle, .large-stage, .large-one") && dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  show(at);
  document.body.append(dialog);
  dialog.showModal();
}
