// The page behind the door: the list beside the conversation, the box beneath it.
import { el, iconButton, retell } from "../dom.js";
import { icon } from "../icons.js";
import { t, tellDocument } from "../i18n.js";
import * as talks from "../talks.js";
import { Composer } from "./composer.js";
import { Gallery } from "./gallery.js";
import { Picker } from "./picker.js";
import { Sidebar } from "./sidebar.js";
import { ThreadView } from "./thread.js";
import { Updates } from "./updates.js";

const NARROW = matchMedia("(max-width: 800px)");

export class Shell {
  constructor({ onlogout }) {
    this.thread = new ThreadView({ onsuggest: (text) => this.composer.fill(text) });
    this.composer = new Composer({ onsend: (...message) => this.#send(...message) });
    this.gallery = new Gallery();
    this.sidebar = new Sidebar({
      onnew: () => this.fresh(), onopen: () => this.drawer(false), onclose: () => this.drawer(false), onlogout,
    });
    this.menu = iconButton("menu", "chat.menu", () => this.drawer(true), {
      class: "icon menu", "aria-controls": "talks", "aria-expanded": "false",
    });
    this.banner = el("div", { class: "banner", role: "status", hidden: true });
    const head = el(
      "header",
      { class: "head" },
      this.menu, new Picker().node, el("span", { class: "gap" }), this.gallery.button,
      iconButton("plus", "chat.new", () => this.fresh(), { class: "icon head-new" }),
    );
    this.main = el("main", { class: "main" }, head, this.banner, new Updates().node, this.thread.node, this.composer.node);
    this.shade = el("div", { class: "shade", hidden: true, onclick: () => this.drawer(false) });
    const skip = el("a", { class: "skip", href: "#message", text: "skip", onclick: (e) => (e.preventDefault(), this.composer.focus()) });
    this.node = el("div", { class: "shell" }, skip, this.sidebar.node, this.shade, this.main);
    this.#listen();
    this.drawer(false);
  }

  #listen() {
    addEventListener("hashchange", () => this.route());
    addEventListener("keydown", (event) => this.#key(event));
    NARROW.addEventListener("change", () => this.drawer(false));
    talks.on("link", () => this.#linked());
    talks.on("list", () => this.#title());
    talks.on("renamed", ({ from, thread }) => this.#renamed(from, thread));
    talks.on("gone", ({ conversation }) => talks.state.current?.id === conversation && this.fresh());
    addEventListener("roost-language", () => this.#linked());
  }

  /** Show what the address names: a conversation, or a new one. */
  route() {
    const id = /^#\/c\/(.+)$/.exec(location.hash)?.[1];
    const wanted = id ? decodeURIComponent(id) : null;
    const { current } = talks.state;
    if (current && (wanted ? current.id === wanted : current.fresh && current.exchanges.length === 0)) return;
    const of = wanted ? talks.thread(wanted) : talks.newThread();
    if (current?.fresh && current.exchanges.length === 0) talks.state.threads.delete(current.id);
    talks.state.current = of;
    of.unread = false;
    this.thread.open();
    this.gallery.update();
    this.composer.open(wanted ?? "new");
    this.sidebar.show();
    this.#title();
    if (!of.fresh) talks.load(of);
    if (!NARROW.matches) this.composer.focus();
  }

  fresh() {
    this.drawer(false);
    if (location.hash && location.hash !== "#/") location.hash = "#/";
    else this.route();
    this.composer.focus();
  }

  /** The list as a drawer, where the page is narrow. */
  drawer(open) {
    const narrow = NARROW.matches;
    const was = this.node.classList.contains("drawer-open");
    this.node.classList.toggle("drawer-open", narrow && open);
    this.shade.hidden = !(narrow && open);
    this.sidebar.node.inert = narrow && !open;
    this.main.inert = narrow && open;
    this.menu.setAttribute("aria-expanded", String(narrow && open));
    if (narrow && open) this.sidebar.node.querySelector(".drawer-close").focus();
    else if (was) this.menu.focus();
  }

  #send(text, attachments, want) {
    const of = talks.state.current;
    talks.ask(of, text, attachments, want);
    this.sidebar.show();
    this.#title();
  }

  #renamed(from, thread) {
    if (talks.state.current !== thread) return;
    this.composer.rename(thread.id);
    history.replaceState(null, "", `#/c/${encodeURIComponent(thread.id)}`);
    this.sidebar.show();
  }

  #title() {
    const name = talks.state.current ? talks.title(talks.state.current) : "";
    document.title = name ? `${name} – Roost` : "Roost";
  }

  #key(event) {
    if (event.key === "Escape" && !event.isComposing && !document.querySelector("dialog[open]")) {
      if (this.node.classList.contains("drawer-open")) this.drawer(false);
      else this.composer.stop();
    } else if ((event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey && event.key.toLowerCase() === "k") {
      event.preventDefault();
      this.fresh();
    }
  }

  #linked() {
    const { linked } = talks.state;
    this.banner.hidden = linked;
    this.banner.replaceChildren(icon("offline"), el("span", {}, t("offline")));
  }
}

addEventListener("roost-language", () => {
  tellDocument();
  retell();
});
