// The messages of the conversation in view.
import { announce, el, iconButton } from "../dom.js";
import { t } from "../i18n.js";
import * as talks from "../talks.js";
import { ExchangeView } from "./exchange.js";
import { Follower } from "./scroll.js";

const SUGGESTIONS = ["empty.1", "empty.2", "empty.3", "empty.4"];

export class ThreadView {
  constructor({ onsuggest }) {
    this.views = new Map();
    this.list = el("div", { class: "exchanges" });
    this.empty = emptyState(onsuggest);
    this.failed = el(
      "div",
      { class: "failed", hidden: true },
      el("p", { text: "load.failed" }),
      el("button", { type: "button", class: "soft", text: "load.again", onclick: () => talks.load(talks.state.current) }),
    );
    this.content = el("div", { class: "content" }, this.empty, this.failed, this.list);
    this.scroller = el("div", { class: "scroller", role: "region", label: "thread", tabindex: "0" }, this.content);
    this.jump = iconButton("down", "jump", () => this.follower.jump(true), { class: "icon jump", hidden: true });
    this.node = el("div", { class: "thread" }, this.scroller, this.jump);
    this.follower = new Follower(this.scroller, this.content, (away) => (this.jump.hidden = !away));
    talks.on("thread", ({ thread, own }) => thread === talks.state.current && this.show(own));
    talks.on("exchange", (told) => this.#exchange(told));
    talks.on("blocks", ({ exchange, from }) => this.views.get(exchange)?.blocks(from));
    talks.on("painting", ({ exchange }) => this.views.get(exchange)?.paint());
    addEventListener("roost-language", () => this.views.forEach((view) => view.update()));
  }

  /** Another conversation comes into view. */
  open() {
    this.views.clear();
    this.list.replaceChildren();
    this.show(true);
  }

  /** Bring the elements in line with the exchanges; those that stay are not touched. */
  show(jump = false) {
    const of = talks.state.current;
    const wanted = of?.exchanges ?? [];
    this.empty.hidden = !of || wanted.length > 0 || !of.loaded || of.failed;
    this.failed.hidden = !of?.failed;
    for (const [exchange, view] of this.views)
      if (!wanted.includes(exchange)) {
        view.node.remove();
        this.views.delete(exchange);
      }
    wanted.forEach((exchange, at) => {
      const view = this.#view(exchange);
      if (this.list.children[at] !== view.node) this.list.insertBefore(view.node, this.list.children[at] ?? null);
      view.update();
      view.setLast(at === wanted.length - 1);
    });
    if (jump) this.follower.jump();
  }

  #view(exchange) {
    let view = this.views.get(exchange);
    if (!view) {
      view = new ExchangeView(exchange, () => talks.state.current);
      this.views.set(exchange, view);
    } else if (view.html !== exchange.html) view.blocks(0);
    return view;
  }

  #exchange({ exchange, ended }) {
    const view = this.views.get(exchange);
    if (!view) return;
    const begun = exchange.state === "running" && view.spoken !== exchange.request;
    if (begun && exchange.status === "open") {
      view.spoken = exchange.request;
      announce(t("answer.begun"));
    }
    view.update({ ended });
  }
}

function emptyState(onsuggest) {
  const ideas = SUGGESTIONS.map((key) =>
    el("button", { type: "button", class: "idea", text: key, onclick: () => onsuggest(t(key)) }),
  );
  return el(
    "div",
    { class: "empty" },
    el("img", { src: "/static/logo.svg", alt: "", width: 64, height: 64 }),
    el("h1", { text: "empty.title" }),
    el("p", { text: "empty.lead" }),
    el("div", { class: "ideas" }, ...ideas),
  );
}
