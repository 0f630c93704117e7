// Images that wait beside the message box: checked, uploaded, shown small.
import * as api from "../api.js";
import { el, iconButton } from "../dom.js";
import { problem, t } from "../i18n.js";
import { state } from "../talks.js";

const TYPES = ["image/png", "image/jpeg", "image/webp", "image/gif"];

export class Files {
  /** `onchange()` after every change; `onproblem(text)` says what could not be added. */
  constructor({ onchange, onproblem }) {
    this.items = [];
    this.onchange = onchange;
    this.onproblem = onproblem;
    this.node = el("div", { class: "thumbs", hidden: true });
    this.picker = el("input", { type: "file", accept: TYPES.join(), multiple: true, hidden: true, tabindex: "-1" });
    this.picker.addEventListener("change", () => {
      this.add(this.picker.files);
      this.picker.value = "";
    });
  }

  get busy() {
    return this.items.some((item) => !item.attachment);
  }

  get attachments() {
    return this.items.map((item) => item.attachment).filter(Boolean);
  }

  add(files) {
    for (const file of files) {
      const name = file.name || t("file.image");
      const { attachments_max: count, attachment_bytes_max: size } = state.limits;
      if (!TYPES.includes(file.type)) this.onproblem(t("file.type", { name }));
      else if (file.size > size) this.onproblem(t("file.size", { name, mb: Math.floor(size / 1e6) }));
      else if (this.items.length >= count) this.onproblem(t("file.count", { n: count }));
      else this.#upload(file, name);
    }
  }

  async #upload(file, name) {
    const item = this.#item(URL.createObjectURL(file), name);
    this.#show();
    try {
      item.attachment = await api.attach(file);
      item.node.classList.remove("busy");
      item.node.title = name;
    } catch (error) {
      this.#drop(item);
      this.onproblem(t("file.failed", { name, why: problem(error) }));
    }
    this.onchange();
  }

  /** Add what the server has already. */
  place(attachment) {
    const { attachments_max: count } = state.limits;
    if (this.items.some((item) => item.attachment?.sha256 === attachment.sha256)) return;
    if (this.items.length >= count) {
      this.onproblem(t("file.count", { n: count }));
      return;
    }
    const { drawn, ...file } = attachment;
    const item = this.#item(api.attachmentUrl(file.sha256), drawn?.prompt || file.name || t("file.image"));
    item.attachment = file;
    item.node.classList.remove("busy");
    item.node.title = item.name;
    this.#show();
  }

  #item(url, name) {
    const item = { url, name, attachment: null };
    const remove = iconButton("close", "cancel", () => this.#drop(item), { class: "icon tiny" });
    remove.setAttribute("aria-label", t("box.remove", { name }));
    item.node = el("div", { class: "thumb busy" }, el("img", { src: url, alt: name }), remove);
    item.node.title = t("box.uploading", { name });
    this.items.push(item);
    return item;
  }

  /** Take the attachments for sending; the row is empty afterwards. */
  take() {
    const taken = this.attachments;
    for (const item of [...this.items]) this.#drop(item);
    return taken;
  }

  #drop(item) {
    URL.revokeObjectURL(item.url);
    this.items = this.items.filter((other) => other !== item);
    this.#show();
  }

  #show() {
    this.node.replaceChildren(...this.items.map((item) => item.node));
    this.node.hidden = this.items.length === 0;
    this.onchange();
  }
}
