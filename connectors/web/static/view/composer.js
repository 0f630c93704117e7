// The message box: grows with its text, keeps drafts, sends on Enter, stops while an answer comes.
import { el, iconButton, word } from "../dom.js";
import { icon } from "../icons.js";
import { recall, remember } from "../settings.js";
import * as talks from "../talks.js";
import { asked, modelFor } from "../pictures.js";
import { fieldOf } from "../wishes.js";
import { Files } from "./files.js";
import { Options } from "./options.js";

const TOUCH = matchMedia("(hover: none) and (pointer: coarse)");

export class Composer {
  constructor({ onsend }) {
    this.onsend = onsend;
    this.key = "new";
    this.problem = el("p", { class: "box-problem", role: "alert", hidden: true });
    this.files = new Files({ onchange: () => this.update(), onproblem: (text) => this.#say(text) });
    this.text = el("textarea", {
      id: "message", rows: "1", label: "box.label", hint: "box.hint", enterkeyhint: TOUCH.matches ? "enter" : "send",
      autocomplete: "off", oninput: () => this.#typed(), onkeydown: (event) => this.#key(event),
      onpaste: (event) => this.#paste(event),
    });
    this.options = new Options();
    const attach = iconButton("image", "box.attach", () => this.files.picker.click());
    this.action = el("button", { type: "submit", class: "action" });
    this.box = el(
      "form",
      { class: "box", novalidate: true, onsubmit: (event) => this.#submit(event) },
      this.files.node, this.text, this.options.node,
      el("div", { class: "box-row" }, attach, this.files.picker, el("span", { class: "gap" }), this.action),
    );
    this.note = el("p", { class: "box-note", text: TOUCH.matches ? "box.note" : "box.keys" });
    this.node = el("div", { class: "composer" }, this.problem, this.box, this.note);
    this.#drops();
    talks.on("exchange", () => this.update());
    talks.on("thread", () => this.update());
    talks.on("models", () => this.update());
    talks.on("start", ({ file }) => this.#start(file));
    talks.on("refused", (told) => this.#refused(told));
    addEventListener("roost-language", () => this.update(true));
    this.update(true);
  }

  /** Another conversation: bring its draft. */
  open(key) {
    this.key = key;
    this.text.value = recall(`draft.${key}`) ?? "";
    this.#say("");
    this.#grow();
    this.update();
  }

  /** A conversation got its lasting name; its draft goes along. */
  rename(key) {
    remember(`draft.${this.key}`, "");
    this.key = key;
    remember(`draft.${key}`, this.text.value);
  }

  focus() {
    this.text.focus({ preventScroll: true });
  }

  fill(text) {
    this.text.value = text;
    this.#typed();
    this.focus();
  }

  get stops() {
    const empty = !this.text.value.trim() && this.files.items.length === 0;
    return empty && Boolean(talks.openExchange(talks.state.current));
  }

  update(anew = false) {
    const stop = this.stops;
    if (anew || this.action.dataset.does !== (stop ? "stop" : "send")) {
      this.action.dataset.does = stop ? "stop" : "send";
      this.action.replaceChildren(icon(stop ? "stop" : "send"));
      word(this.action, "label", stop ? "box.stop" : "box.send");
    }
    const picture = asked(this.text.value);
    this.options.show(picture, this.files.items.length > 0);
    word(this.text, "hint", picture ? "box.hint.picture" : "box.hint");
    const nothing = !this.text.value.trim() && this.files.attachments.length === 0;
    this.action.disabled = !stop && (nothing || this.files.busy);
  }

  stop() {
    const open = talks.openExchange(talks.state.current);
    if (open) talks.cancel(open);
    return Boolean(open);
  }

  #submit(event) {
    event.preventDefault();
    if (this.stops) {
      this.stop();
      return;
    }
    const text = this.text.value.trim();
    if (this.action.disabled || (!text && this.files.attachments.length === 0)) return;
    const wanted = asked(text) ? this.options.take() : {};
    if (!wanted) return;
    const want = asked(text) ? { ...wanted, model: modelFor(text) } : null;
    const attachments = this.files.take();
    this.text.value = "";
    this.#typed();
    this.#say("");
    this.onsend(text, attachments, want);
    this.focus();
  }

  /** A picture to start from; what shall become of it is the next message. */
  #start(file) {
    this.files.place(file);
    if (!asked(this.text.value)) this.text.value = `/image ${this.text.value}`;
    this.#typed();
    this.focus();
  }

  /** An option was refused: the message comes back, and the reason stands beside the option. */
  #refused({ thread, exchange }) {
    const { text, attachments, error } = exchange;
    if (thread !== talks.state.current || this.text.value.trim() || this.files.items.length > 0 || !asked(text)) return;
    talks.discard(thread, exchange);
    this.text.value = text;
    for (const file of attachments) this.files.place(file);
    this.#typed();
    this.options.refuse(fieldOf(error.message), error.message);
  }

  #key(event) {
    // 229: the key belongs to an input method, which some browsers tell only this way
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229 || TOUCH.matches) return;
    event.preventDefault();
    if (!this.stops) this.box.requestSubmit();
  }

  #typed() {
    remember(`draft.${this.key}`, this.text.value);
    this.#grow();
    this.update();
  }

  #grow() {
    this.text.style.height = "auto";
    this.text.style.height = `${this.text.scrollHeight}px`;
  }

  #paste(event) {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length === 0) return;
    event.preventDefault();
    this.files.add(files);
  }

  #drops() {
    const over = (event) => event.dataTransfer?.types.includes("Files");
    addEventListener("dragover", (event) => {
      if (!over(event)) return;
      event.preventDefault();
      this.box.classList.add("dropping");
    });
    addEventListener("dragleave", (event) => !event.relatedTarget && this.box.classList.remove("dropping"));
    addEventListener("drop", (event) => {
      if (!over(event)) return;
      event.preventDefault();
      this.box.classList.remove("dropping");
      this.files.add(event.dataTransfer.files);
    });
  }

  #say(text) {
    this.problem.textContent = text;
    this.problem.hidden = !text;
  }
}
