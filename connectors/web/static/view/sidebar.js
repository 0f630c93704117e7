// The list of conversations, and beneath it what belongs to the whole page.
import { el, iconButton } from "../dom.js";
import { icon } from "../icons.js";
import { switchLanguage, t } from "../i18n.js";
import { switchTheme } from "../settings.js";
import * as talks from "../talks.js";
import { confirm } from "./dialog.js";

const DAY_MS = 86_400_000;

export class Sidebar {
  constructor({ onnew, onopen, onclose, onlogout }) {
    this.onopen = onopen;
    this.onnew = onnew;
    this.list = el("ul", { class: "talks" });
    this.none = el("p", { class: "quiet none", text: "chat.none" });
    const brand = el(
      "div",
      { class: "brand" },
      el("img", { src: "/static/logo.svg", alt: "", width: 30, height: 30 }),
      el("span", {}, "Roost"),
      iconButton("close", "chat.menu.close", onclose, { class: "icon drawer-close" }),
    );
    const fresh = el("button", { type: "button", class: "new", onclick: onnew, title: "Ctrl + K" });
    fresh.append(icon("plus"), el("span", { text: "chat.new" }));
    this.node = el(
      "nav",
      { class: "sidebar", id: "talks", label: "chat.list" },
      brand, fresh,
      el("div", { class: "talks-box" }, this.none, this.list),
      footer(onlogout),
    );
    talks.on("list", () => this.show());
    talks.on("thread", () => this.show());
    talks.on("exchange", ({ ended }) => ended && this.show());
    addEventListener("roost-language", () => this.show());
  }

  show() {
    const rows = this.#rows();
    this.none.hidden = rows.length > 0;
    const held = document.activeElement?.closest?.(".talk")?.dataset.id;
    let group = "";
    this.list.replaceChildren(
      ...rows.flatMap((row) => {
        const key = groupOf(row.at);
        const head = key === group ? [] : [el("li", { class: "group" }, el("h2", { text: key }))];
        group = key;
        return [...head, this.#row(row)];
      }),
    );
    if (held) this.list.querySelector(`.talk[data-id="${CSS.escape(held)}"] a`)?.focus();
  }

  /** Stored conversations, and before them those that only this page knows yet. */
  #rows() {
    const { list, threads } = talks.state;
    const known = new Set(list.map((item) => item.conversation));
    const fresh = [...threads.values()].filter((of) => !known.has(of.id) && of.exchanges.length > 0).reverse();
    return [
      ...fresh.map((of) => ({ id: of.id, title: talks.title(of), at: Date.now() })),
      ...list.map((item) => ({ id: item.conversation, title: item.title, at: item.updated_at * 1000 })),
    ];
  }

  #row({ id, title }) {
    const of = talks.state.threads.get(id);
    const name = title || t("chat.untitled");
    const here = talks.state.current?.id === id;
    const link = el("a", { href: `#/c/${encodeURIComponent(id)}`, "aria-current": here ? "page" : null, title: name });
    link.append(el("span", { class: "talk-title" }, name));
    if (talks.openExchange(of)) link.append(mark("running", "chat.running"));
    else if (of?.unread) link.append(mark("unread", "chat.unread"));
    link.addEventListener("click", () => this.onopen());
    const remove = iconButton("trash", "chat.delete", () => this.#remove(id, name), { class: "icon small talk-delete" });
    return el("li", { class: here ? "talk here" : "talk", "data-id": id }, link, remove);
  }

  async #remove(id, title) {
    const lead = t("chat.delete.lead", { title: title.length > 60 ? `${title.slice(0, 60)}…` : title });
    if (!(await confirm({ title: "chat.delete.title", lead, yes: "chat.delete.yes" }))) return;
    try {
      await talks.remove(id);
    } catch (error) {
      console.warn("delete:", error.message);
      talks.loadList();
    }
  }
}

function mark(kind, key) {
  return el("span", { class: `mark ${kind}` }, el("span", { class: "unseen" }, t(key)));
}

function groupOf(at) {
  const midnight = new Date().setHours(0, 0, 0, 0);
  if (at >= midnight) return "when.today";
  if (at >= midnight - DAY_MS) return "when.yesterday";
  return at >= midnight - 7 * DAY_MS ? "when.week" : "when.older";
}

function footer(onlogout) {
  const theme = iconButton("sun", "theme", switchTheme, { class: "icon theme" });
  theme.append(icon("moon"));
  return el("div", { class: "foot" }, theme, languageButton(), el("span", { class: "gap" }),
    iconButton("leave", "logout", onlogout));
}

/** Names the other language in that language. */
export function languageButton() {
  const button = el("button", { type: "button", class: "icon language", label: "language.switch", onclick: switchLanguage });
  button.append(icon("language"), el("span", { text: "language" }));
  return button;
}
