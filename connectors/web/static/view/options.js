// What may be asked of a picture, under the message box: there only while a picture is meant.
import { el, word } from "../dom.js";
import { t } from "../i18n.js";
import { painter } from "../pictures.js";
import { SEED_MAX, keep, options, wanted } from "../wishes.js";

const NUMBERS = ["1", "2", "3", "4"];

export class Options {
  constructor() {
    this.kept = options();
    this.fields = {
      size: el("select", { id: "option-size" }),
      n: el("select", { id: "option-n" }, ...NUMBERS.map((n) => el("option", { value: n }, n))),
      seed: digits("option-seed", String(SEED_MAX).length),
      steps: digits("option-steps", 4),
      strength: el("input", { id: "option-strength", type: "range", min: "0.05", max: "1", step: "0.05", value: "0.75" }),
      negative: el("input", { id: "option-negative", type: "text", autocomplete: "off", hint: "draw.negative.hint" }),
    };
    word(this.fields.seed, "hint", "draw.seed.hint");
    this.problem = el("p", { class: "option-problem", id: "option-problem", role: "alert", hidden: true });
    this.more = el(
      "button",
      { type: "button", class: "link", text: "draw.more", "aria-expanded": "false", "aria-controls": "options-more", onclick: () => this.#open() },
    );
    this.strength = this.#row("strength");
    this.rest = el("div", { class: "options-row", id: "options-more", hidden: true }, this.#row("steps"), this.#row("negative"));
    this.node = el(
      "div",
      { class: "options", role: "group", label: "draw.options", hidden: true },
      el("div", { class: "options-row" }, this.#row("size"), this.#row("n"), this.#row("seed"), this.strength, this.more),
      this.rest, this.problem,
    );
    for (const [name, field] of Object.entries(this.fields)) {
      if (this.kept[name]) field.value = this.kept[name];
      field.addEventListener("input", () => this.#changed(field));
      field.addEventListener("change", () => this.#changed(field));
    }
    if (this.kept.steps || this.kept.negative) this.#open();
    addEventListener("roost-language", () => this.#sizes(true));
  }

  #row(name) {
    const field = this.fields[name];
    return el("div", { class: `option option-${name}` }, el("label", { for: field.id, text: `draw.${name}` }), field);
  }

  #open() {
    this.rest.hidden = !this.rest.hidden;
    this.more.setAttribute("aria-expanded", String(!this.rest.hidden));
    word(this.more, "text", this.rest.hidden ? "draw.more" : "draw.less");
  }

  /** `on`: a picture is meant; `begun`: there is a picture to start from. */
  show(on, begun) {
    this.node.hidden = !on;
    if (!on) return;
    this.strength.hidden = !begun;
    this.#sizes();
  }

  #sizes(anew = false) {
    const { sizes = [], steps = 0 } = painter() ?? {};
    this.fields.steps.placeholder = steps || t("draw.steps.hint");
    if (!anew && this.shown === sizes.join()) return;
    this.shown = sizes.join();
    const { size } = this.fields;
    const before = size.value || this.kept.size;
    size.replaceChildren(...sizes.map((each, at) => el("option", { value: at ? each : "" }, named(each))));
    size.value = sizes.includes(before) && before !== sizes[0] ? before : "";
  }

  #values() {
    return Object.fromEntries(Object.entries(this.fields).map(([name, field]) => [name, field.value.trim()]));
  }

  #changed(field) {
    const { strength, ...kept } = this.#values();
    this.kept = { ...kept, n: kept.n === "1" ? "" : kept.n };
    keep(this.kept);
    if (field.getAttribute("aria-invalid")) this.refuse("", "");
  }

  /** `{drawing, sampling}`, or null after saying which field cannot be sent. */
  take() {
    this.refuse("", "");
    const values = this.#values();
    for (const name of ["seed", "steps"])
      if (!/^\d*$/.test(values[name])) {
        this.refuse(name, t("draw.digits"));
        return null;
      }
    return wanted({ ...values, strength: this.strength.hidden ? "" : values.strength });
  }

  /** Say `text` beside the field `name`, and go there; without a name, take back what was said. */
  refuse(name, text) {
    for (const field of Object.values(this.fields)) {
      field.removeAttribute("aria-invalid");
      field.removeAttribute("aria-describedby");
    }
    this.problem.textContent = text;
    this.problem.hidden = !text;
    const field = this.fields[name];
    if (!field) return;
    if (this.rest.contains(field) && this.rest.hidden) this.#open();
    field.setAttribute("aria-invalid", "true");
    field.setAttribute("aria-describedby", "option-problem");
    field.closest(".options-row").after(this.problem);
    field.focus();
  }
}

function digits(id, length) {
  return el("input", { id, type: "text", inputmode: "numeric", autocomplete: "off", maxlength: length + 2 });
}

function named(size) {
  const [width, height] = size.split("x").map(Number);
  const ratio = width / height;
  const shape = ratio === 1 ? "square" : ratio < 0.7 ? "tall" : ratio < 1 ? "portrait" : ratio < 1.5 ? "landscape" : "wide";
  return `${t(`draw.${shape}`)} ${width} × ${height}`;
}
