// All pictures of a conversation, newest first: a button in its head, and what it opens.
import { el, iconButton } from "../dom.js";
import { t } from "../i18n.js";
import { madeFor } from "../pictures.js";
import * as talks from "../talks.js";
import { showMade } from "./picture.js";

export class Gallery {
  constructor() {
    this.button = iconButton("gallery", "gallery.open", () => this.open(), { class: "icon head-gallery", hidden: true });
    for (const name of ["thread", "exchange", "gone"]) talks.on(name, () => this.update());
    addEventListener("roost-language", () => this.update());
  }

  /** There is a button only where there are pictures. */
  update() {
    const pictures = madeFor(talks.state.current);
    this.button.hidden = pictures.length === 0;
    if (this.grid) this.#fill(pictures);
  }

  open() {
    this.grid = el("div", { class: "gallery-grid" });
    this.count = el("p", { class: "quiet" });
    const head = el(
      "div",
      { class: "gallery-head" },
      el("h2", { id: "gallery-title", text: "gallery.title" }), this.count, el("span", { class: "gap" }),
      iconButton("close", "close", () => dialog.close()),
    );
    const dialog = el("dialog", { class: "gallery", "aria-labelledby": "gallery-title" }, head, this.grid);
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    dialog.addEventListener("close", () => {
      dialog.remove();
      this.grid = null;
    });
    this.#fill(madeFor(talks.state.current));
    document.body.append(dialog);
    dialog.showModal();
  }

  #fill(pictures) {
    showMade(this.grid, pictures);
    this.count.textContent = t(pictures.length === 1 ? "gallery.one" : "gallery.many", { n: pictures.length });
  }
}
