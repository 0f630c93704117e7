// A question that must be answered before something is lost.
import { el } from "../dom.js";

/** Ask; resolves to whether the reader agreed. Focus starts on the harmless button and returns where it was. */
export function confirm({ title, lead, yes }) {
  return new Promise((done) => {
    const head = el("h2", { id: "dialog-title", text: title });
    const no = el("button", { type: "submit", value: "no", class: "soft", text: "cancel", autofocus: true });
    const form = el(
      "form",
      { method: "dialog" },
      head,
      el("p", { id: "dialog-lead" }, lead),
      el("div", { class: "dialog-row" }, no, el("button", { type: "submit", value: "yes", class: "danger", text: yes })),
    );
    const dialog = el("dialog", { "aria-labelledby": "dialog-title", "aria-describedby": "dialog-lead" }, form);
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close("no"));
    dialog.addEventListener("close", () => {
      dialog.remove();
      done(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}
