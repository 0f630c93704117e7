// One question with its answer.
import * as api from "../api.js";
import { announce, el, iconButton, word } from "../dom.js";
import { icon } from "../icons.js";
import { language, placeInQueue, problem, t, why } from "../i18n.js";
import { isPainted, madeIn } from "../pictures.js";
import * as talks from "../talks.js";
import { copied, showBlocks } from "./blocks.js";
import { PaintingView } from "./painting.js";
import { madeHow, showMade } from "./picture.js";

const SPOKEN_CHARS_MAX = 1500;

export class ExchangeView {
  constructor(exchange, owner) {
    this.exchange = exchange;
    this.owner = owner;
    this.pictures = el("div", { class: "pictures" });
    this.bubble = el("div", { class: "bubble" });
    this.sent = el("div", { class: "sent" });
    this.question = el("article", { class: "question", label: "you" }, this.pictures, this.bubble, this.sent);
    this.progress = el("div", { class: "progress" });
    this.body = el("div", { class: "markdown" });
    this.painting = new PaintingView(exchange);
    this.files = el("div", { class: "pictures" });
    this.made = el("div", { class: "made" });
    this.after = el("div", { class: "after" });
    this.answer = el(
      "article",
      { class: "answer", label: "answer" },
      el("img", { class: "face", src: "/static/logo.svg", alt: "", width: 28, height: 28 }),
      el("div", { class: "said" }, this.progress, this.painting.node, this.body, this.files, this.made, this.after),
    );
    this.node = el("section", { class: "exchange" }, this.question, this.answer);
    this.last = false;
    this.blocks(0);
    this.update();
  }

  /** Blocks from index `from` on have changed. */
  blocks(from) {
    this.html = this.exchange.html;
    showBlocks(this.body, this.html, from);
    if (this.exchange.html.length > 0) this.progress.hidden = true;
  }

  /** Everything but the blocks. */
  update({ ended = false } = {}) {
    const { exchange } = this;
    this.node.dataset.status = exchange.status;
    this.bubble.textContent = exchange.text;
    this.bubble.hidden = !exchange.text;
    pictures(this.pictures, exchange.attachments);
    pictures(this.files, exchange.files.filter((file) => !file.drawn));
    showMade(this.made, madeIn(exchange));
    this.#sent();
    this.answer.hidden = exchange.status !== "open" && exchange.status !== "done";
    this.answer.setAttribute("aria-busy", String(exchange.status === "open"));
    this.#progress();
    this.#after();
    if (ended) announce(this.#spoken());
  }

  /** What a screen reader says of the answer that has come. */
  #spoken() {
    const made = madeIn(this.exchange);
    if (made.length === 0) return t("answer.done", { text: this.body.textContent.slice(0, SPOKEN_CHARS_MAX) });
    return t(made.length === 1 ? "made.done" : "made.done.many", { n: made.length, prompt: made[0].file.drawn.prompt });
  }

  /** The picture in the making has come further. */
  paint() {
    this.#progress();
  }

  /** Retry belongs to the last answer only. */
  setLast(last) {
    if (last !== this.last) {
      this.last = last;
      this.#after();
    }
  }

  /** Under the question: that it is being sent, or why it was not. */
  #sent() {
    const { status, error } = this.exchange;
    this.sent.replaceChildren();
    if (status === "sending") this.sent.append(el("span", { class: "quiet late", text: "sending" }));
    if (status === "waiting") this.sent.append(el("span", { class: "quiet", text: "waiting" }));
    if (status === "failed")
      this.sent.append(
        el("div", { class: "problem", role: "alert" }, icon("alert"), el("span", {}, problem(error))),
        button("send.again", () => talks.post(this.owner(), this.exchange)),
        button("cancel", () => talks.discard(this.owner(), this.exchange)),
      );
  }

  /** Where the answer will be: its place in the queue, or three dots. */
  #progress() {
    const { status, state, place, html } = this.exchange;
    const painted = isPainted(this.exchange);
    this.painting.show(painted);
    const waiting = status === "open" && html.length === 0 && !painted;
    this.progress.hidden = !waiting;
    if (!waiting) return;
    const queued = state === "queued";
    const kind = !queued ? "unseen" : place ? "place" : "place late"; // without a place it is about to begin
    const dots = el("span", { class: "dots", "aria-hidden": "true" }, el("i"), el("i"), el("i"));
    const text = queued ? placeInQueue(place) : t("thinking");
    this.progress.replaceChildren(dots, el("span", { class: kind, role: "status" }, text));
    if (queued && place) this.progress.append(button("cancel", () => talks.cancel(this.exchange)));
  }

  /** Under the answer: what went wrong, notes, buttons, and how it was made. */
  #after() {
    const { exchange } = this;
    this.after.replaceChildren();
    if (exchange.status !== "done") return;
    for (const line of remarks(exchange)) this.after.append(el("p", { class: "note" }, line));
    if (exchange.error) this.after.append(trouble(exchange.error));
    const tools = el("div", { class: "tools" });
    if (exchange.answer) {
      const copier = iconButton("copy", "answer.copy", () => copied(copier, exchange.answer), { class: "icon small" });
      tools.append(copier);
    }
    if (this.last) {
      const again = () => talks.retry(this.owner(), exchange);
      const plain = iconButton("retry", "answer.retry", again, { class: "icon small" });
      tools.append(exchange.error ? button("answer.retry", again) : plain);
    }
    const drawn = madeIn(exchange);
    const made = [drawn.length > 0 ? madeHow(drawn.map(({ file }) => file)) : "", facts(exchange)].filter(Boolean).join(" · ");
    if (drawn.length > 0) this.after.prepend(el("p", { class: "made-how" }, made));
    else if (made) tools.append(el("span", { class: "facts" }, made));
    if (tools.childElementCount > 0) this.after.append(tools);
  }
}

function button(key, onclick) {
  return el("button", { type: "button", class: "link", text: key, onclick });
}

function pictures(box, attachments) {
  const wanted = attachments.map((a) => a.sha256).join();
  if (box.dataset.shown === wanted) return;
  box.dataset.shown = wanted;
  box.replaceChildren(
    ...attachments.map((a) => {
      const url = api.attachmentUrl(a.sha256);
      const image = el("img", { src: url, alt: a.name || t("file.image"), loading: "lazy" });
      return el("a", { href: url, target: "_blank", rel: "noopener" }, image);
    }),
  );
}

/** Sentences about how the answer ended. */
function remarks({ finish, notes, html, files, error, route, model }) {
  const lines = [...(notes ?? [])];
  if (route?.reason === "failover") lines.unshift(t("why.failover", { wanted: route.wanted, model }));
  if (finish === "cancelled") lines.push(t("answer.stopped"));
  else if (finish === "length") lines.push(t("answer.length"));
  else if (html.length === 0 && files.length === 0 && !error) lines.push(t("answer.empty"));
  return lines;
}

function trouble(error) {
  const title = el("strong");
  word(title, "text", "problem.title");
  return el("div", { class: "problem", role: "alert" }, icon("alert"), el("div", {}, title, el("p", {}, problem(error))));
}

function facts({ model, route, usage, timings, error, files }) {
  const parts = [];
  if (error) return model;
  const number = (n, digits) => n.toLocaleString(language(), { maximumFractionDigits: digits });
  const reason = why(route);
  if (files.some((file) => file.drawn)) parts.push(reason); // the line above has the model
  else if (model) parts.push(reason ? `${model} (${reason})` : model);
  if (usage?.completion_tokens) parts.push(t("answer.tokens", { n: number(usage.completion_tokens, 0) }));
  if (timings?.total_ms) parts.push(t("answer.seconds", { n: number(timings.total_ms / 1000, 1) }));
  return parts.filter(Boolean).join(" · ");
}
