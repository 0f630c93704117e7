// Which model answers. Shown as a name alone while there is only one.
import { el } from "../dom.js";
import { icon } from "../icons.js";
import { t } from "../i18n.js";
import * as talks from "../talks.js";

export class Picker {
  constructor() {
    this.name = el("span", { class: "model-name" });
    this.select = el("select", { label: "model", onchange: () => talks.chooseModel(this.select.value) });
    this.node = el("div", { class: "picker" }, this.name, this.select, icon("chevron"));
    talks.on("models", () => this.show());
    addEventListener("roost-language", () => this.show());
  }

  show() {
    const { models } = talks.state;
    const preset = models.find((m) => m.default)?.name ?? models[0]?.name ?? "";
    const chosen = talks.chosenModel() || preset;
    const many = models.length > 1;
    this.node.classList.toggle("many", many);
    this.select.hidden = !many;
    this.name.hidden = many;
    this.name.textContent = chosen;
    this.select.replaceChildren(...models.map((model) => option(model, chosen)));
    this.node.title = models.find((m) => m.name === chosen)?.description ?? "";
  }
}

function option(model, chosen) {
  const ready = model.state === "ready";
  const why = ready ? "" : ` (${t(`model.${model.state}`)}${model.reason ? `: ${model.reason}` : ""})`;
  return el("option", { value: model.name, disabled: !ready, selected: model.name === chosen }, model.name + why);
}
