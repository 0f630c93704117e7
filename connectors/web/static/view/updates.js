// New versions of models: one line for each, while there is something to tell.
import { announce, el, iconButton } from "../dom.js";
import { icon } from "../icons.js";
import { bytes, clock, language, t } from "../i18n.js";
import { recall, remember } from "../settings.js";
import * as talks from "../talks.js";

const ENDED = new Set(["idle", "failed"]);
const COMPARED = new Set(["shadow", "canary", "watching"]);
const RESTING = new Set([...ENDED, "staged"]);

export class Updates {
  constructor() {
    this.node = el("section", { class: "updates", label: "update.list", hidden: true });
    this.lines = new Map();
    this.said = new Map();
    talks.on("models", () => this.show());
    addEventListener("roost-language", () => this.show());
  }

  show() {
    const slots = bySlot(talks.state.models).filter(({ update }) => recall(hidden(update)) !== mark(update));
    this.node.hidden = slots.length === 0;
    const lines = slots.map((slot) => this.#kept(slot));
    if (lines.some((line, i) => this.node.children[i] !== line) || lines.length !== this.node.children.length)
      this.node.replaceChildren(...lines);
    for (const slot of slots) this.#tell(slot);
  }

  /** The same element while nothing of it has changed, so that a button keeps its focus. */
  #kept(slot) {
    const shown = JSON.stringify([slot, language()]);
    const known = this.lines.get(slot.update.name);
    if (known?.shown === shown) return known.line;
    const line = this.#line(slot);
    this.lines.set(slot.update.name, { shown, line });
    return line;
  }

  #line({ models, update }) {
    const { phase, done, size, reason } = update;
    const fetching = phase === "fetching" && size > 0;
    const text = el(
      "p",
      { class: "update-text" },
      el("strong", {}, models.join(", ")),
      el("span", {}, words(update)),
      fetching ? el("span", { class: "update-share" }, share(update)) : null,
    );
    const bar = fetching ? el("progress", { class: "update-bar", label: "update.list", max: size, value: done }) : null;
    const why = reason ? el("p", { class: "update-why" }, reason) : null;
    const hide = RESTING.has(phase)
      ? iconButton("close", "update.hide", () => (remember(hidden(update), mark(update)), this.show()), { class: "icon small" })
      : null;
    const sign = icon(ENDED.has(phase) ? "alert" : COMPARED.has(phase) ? "eye" : "update");
    return el("div", { class: "update", "data-phase": phase }, sign, el("div", { class: "update-said" }, text, bar, why), hide);
  }

  /** For screen readers: a phase once, and no progress. */
  #tell({ models, update }) {
    if (this.said.get(update.name) === mark(update)) return;
    this.said.set(update.name, mark(update));
    announce(`${models.join(", ")}: ${words(update)} ${update.reason}`);
  }
}

/** Models that share their slots are updated together and told of once. */
function bySlot(models) {
  const found = new Map();
  for (const { name, update } of models) {
    if (!update) continue;
    if (found.has(update.name)) found.get(update.name).models.push(name);
    else found.set(update.name, { models: [name], update });
  }
  return [...found.values()];
}

const hidden = (update) => `update.${update.name}`;
const mark = ({ phase, version, current, reason }) => [phase, version, current, reason].join(" ");

function words({ phase, version, current, until }) {
  return t(`update.${phase}${phase === "watching" && until ? ".until" : ""}`, { version, current, until: clock(until) });
}

function share({ done, size }) {
  return t("update.share", { percent: Math.floor((100 * Math.min(done, size)) / size), size: bytes(size) });
}
