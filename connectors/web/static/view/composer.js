// The message box: grows with its text, keeps drafts, sends on Enter, stops while an answer comes.
import { el, iconButton, word } from "../dom.js";
import { icon } from "../icons.js";
import { recall, remember } from "../settings.js";
import * as talks from "../talks.js";
import { Files } from "./files.js";

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
    const attach = iconButton("image", "box.attach", () => this.files.picker.click());
    this.action = el("button", { type: "submit", class: "action" });
    this.box = el(
      "form",
      { class: "box", onsubmit: (event) => this.#submit(event) },
      this.files.node, this.text,
      el("div", { class: "box-row" }, attach, this.files.picker, el("span", { class: "gap" }), this.action),
    );
    this.note = el("p", { class: "box-note", text: TOUCH.matches ? "box.note" : "box.keys" });
    this.node = el("div", { class: "composer" }, this.problem, this.box, this.note);
    this.#drops();
    talks.on("exchange", () => this.update());
    talks.on("thread", () => this.update());
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
    const attachments = this.files.take();
    this.text.value = "";
    this.#typed();
    this.#say("");
    this.onsend(text, attachments);
    this.focus();
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
