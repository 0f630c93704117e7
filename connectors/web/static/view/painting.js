// A picture that is being made: its box in the shape of the picture, what it looks like by now, and how far it is.
import { announce, el, iconButton } from "../dom.js";
import { icon } from "../icons.js";
import { leftOver, t } from "../i18n.js";
import { shapeOf } from "../pictures.js";
import * as talks from "../talks.js";
import { lay } from "./picture.js";

const SPOKEN_EVERY_MS = 10_000;

export class PaintingView {
  constructor(exchange) {
    this.exchange = exchange;
    this.image = el("img", { class: "preview-image", alt: "", hidden: true });
    this.canvases = el("div", { class: "made painting-canvases", "aria-hidden": "true" });
    this.bar = el("div", { class: "paint-bar", role: "progressbar", label: "paint.label", "aria-valuemin": 0 }, el("i"));
    this.text = el("span", { class: "paint-text" });
    const stop = iconButton("stop", "paint.stop", () => talks.cancel(exchange), { class: "icon small" });
    const row = el("div", { class: "paint-row" }, this.bar, this.text, stop);
    this.node = el("div", { class: "painting", hidden: true }, this.canvases, row);
    this.spokenAt = 0;
  }

  show(on) {
    this.node.hidden = !on;
    if (on) this.update();
    else this.canvases.replaceChildren();
  }

  update() {
    const { step = 0, steps = 0, left_s: left = null, preview = "" } = this.exchange.painting ?? {};
    this.#shape();
    if (preview) this.image.src = `data:image/jpeg;base64,${preview}`;
    this.image.hidden = !preview;
    this.canvases.classList.toggle("begun", Boolean(preview));
    const said = steps ? t("paint.step", { step, steps }) : t("paint.ready");
    const rest = left === null || step >= steps ? "" : leftOver(left);
    this.text.textContent = [said, rest].filter(Boolean).join(" · ");
    this.bar.firstChild.style.width = steps ? `${(100 * step) / steps}%` : "0";
    this.bar.setAttribute("aria-valuemax", steps || 1);
    this.bar.setAttribute("aria-valuenow", step);
    this.bar.setAttribute("aria-valuetext", this.text.textContent);
    this.#speak(step, steps);
  }

  /** As many empty boxes as there will be pictures, so that nothing jumps when they come. */
  #shape() {
    const n = Math.min(Math.max(1, this.exchange.n), 16);
    const { width, height } = shapeOf(this.exchange);
    lay(this.canvases, n, width, height);
    if (this.canvases.children.length === n) return;
    const boxes = Array.from({ length: n }, () => el("div", { class: "canvas" }, icon("image")));
    boxes[0].append(this.image);
    this.canvases.replaceChildren(...boxes);
  }

  #speak(step, steps) {
    const now = Date.now();
    if (!steps || step >= steps || now - this.spokenAt < SPOKEN_EVERY_MS) return;
    this.spokenAt = now;
    announce(`${t("paint.label")}: ${this.text.textContent}`);
  }
}
