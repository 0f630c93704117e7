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
    const chosen = talks.chosenModel();
    const automatic = models.length > 1 && !chosen;
    this.node.classList.toggle("many", models.length > 1);
    this.select.hidden = models.length < 2;
    this.name.textContent = automatic ? t("model.auto") : chosen || (models[0]?.name ?? "");
    const named = models.map(({ update, ...model }) => model); // the progress of an update is not shown here
    const shown = JSON.stringify([named, chosen, language()]);
    if (shown === this.shown) return; // an open list would close
    this.shown = shown;
    const any = el("option", { value: "", selected: automatic }, t("model.auto"));
    this.select.replaceChildren(any, ...models.map((model) => option(model, chosen)));
    this.node.title = automatic ? t("model.auto.why") : (models.find((m) => m.name === chosen)?.description ?? "");
  }
}

function option(model, chosen) {
  const ready = model.state === "ready";
  const why = ready ? "" : ` (${t(`model.${model.state}`)}${model.reason ? `: ${model.reason}` : ""})`;
  return el("option", { value: model.name, disabled: !talks.usable(model), selected: model.name === chosen }, model.name + why);
}
