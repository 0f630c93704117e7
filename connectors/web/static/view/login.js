// The door.
import * as api from "../api.js";
import { el, iconButton } from "../dom.js";
import { icon } from "../icons.js";
import { problem, t } from "../i18n.js";
import { switchTheme } from "../settings.js";
import { languageButton } from "./sidebar.js";

export class LoginView {
  /** `onenter(me)` once the code was right. */
  constructor({ onenter }) {
    this.onenter = onenter;
    this.error = null;
    this.code = el("input", {
      id: "code", type: "password", autocomplete: "current-password", autocapitalize: "characters", spellcheck: "false",
      required: true, "aria-describedby": "code-problem code-where",
    });
    const show = iconButton("eye", "login.show", () => this.#reveal(show), { "aria-pressed": "false" });
    this.problem = el("p", { id: "code-problem", class: "box-problem", role: "alert", hidden: true });
    this.enter = el("button", { type: "submit", class: "primary", text: "login.enter" });
    const theme = iconButton("sun", "theme", switchTheme, { class: "icon theme" });
    theme.append(icon("moon"));
    this.node = el(
      "main",
      { class: "login" },
      el("div", { class: "login-corner" }, theme, languageButton()),
      el(
        "form",
        { class: "card", onsubmit: (event) => this.#submit(event) },
        el("img", { src: "/static/logo.svg", alt: "", width: 72, height: 72 }),
        el("h1", { text: "login.title" }),
        el("p", { class: "lead", text: "login.lead" }),
        el("input", { type: "text", name: "username", autocomplete: "username", value: "owner", hidden: true }),
        el("label", { for: "code", text: "login.code" }),
        el("div", { class: "code-field" }, this.code, show),
        this.problem, this.enter,
        el("p", { id: "code-where", class: "quiet", text: "login.where" }),
      ),
    );
    addEventListener("roost-language", () => this.#say());
  }

  focus() {
    this.code.focus();
  }

  #reveal(button) {
    const shown = this.code.type === "text";
    this.code.type = shown ? "password" : "text";
    button.setAttribute("aria-pressed", String(!shown));
  }

  async #submit(event) {
    event.preventDefault();
    if (this.enter.disabled) return;
    this.enter.disabled = true;
    this.error = null;
    try {
      this.onenter(await api.login(this.code.value));
      this.code.value = "";
    } catch (error) {
      this.error = error;
      this.code.select();
      this.code.focus();
    }
    this.enter.disabled = false;
    this.#say();
  }

  #say() {
    const { error } = this;
    this.problem.hidden = !error;
    this.code.setAttribute("aria-invalid", String(Boolean(error)));
    if (!error) return;
    if (error.code === "wrong_code") this.problem.textContent = t("login.wrong");
    else if (error.status === 429)
      this.problem.textContent = t("login.wait", { minutes: Math.max(1, Math.ceil(error.afterS / 60)) });
    else this.problem.textContent = problem(error);
  }
}
