// Which model answers. Shown as a name alone while there is only one.
import { el } from "../dom.js";
import { icon } from "../icons.js";
import { language, t } from "../i18n.js";
import * as talks from "../talks.js";

export class Picker {
  constructor() {
    this.name = el("span", { class: "model-name" });
    // the list lies unseen over the name, so that it is as wide as the name and not as the longest entry
    this.select = el("select", { label: "model", onchange: () => talks.chooseModel(this.select.value) });
    this.node = el("div", { class: "picker" }, this.name, icon("chevron"), this.select);
    talks.on("models", () => this.show());
    addEventListener("roost-language", () => this.show());
  }

  show() {
    const { models } = talks.state;
    const preset = models.find((m) => m.default)?.name ?? models[0]?.name ?? "";
    const chosen = talks.chosenModel() || preset;
    this.node.classList.toggle("many", models.length > 1);
    this.select.hidden = models.length < 2;
    this.name.textContent = chosen;
    const shown = JSON.stringify([models, chosen, language()]);
    if (shown === this.shown) return; // an open list would close
    this.shown = shown;
    this.select.replaceChildren(...models.map((model) => option(model, chosen)));
    this.node.title = models.find((m) => m.name === chosen)?.description ?? "";
  }
}

function option(model, chosen) {
  const ready = model.state === "ready";
  const why = ready ? "" : ` (${t(`model.${model.state}`)}${model.reason ? `: ${model.reason}` : ""})`;
  return el("option", { value: model.name, disabled: !ready, selected: model.name === chosen }, model.name + why);
}
