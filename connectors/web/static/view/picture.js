// One picture that a model made, with what can be done with it; and several in a grid.
import * as api from "../api.js";
import { announce, el, iconButton } from "../dom.js";
import { icon } from "../icons.js";
import { language, t } from "../i18n.js";
import { drawAgain, fileName } from "../pictures.js";
import * as talks from "../talks.js";
import { newSeed } from "../wishes.js";
import { copied } from "./blocks.js";
import { openLarge } from "./large.js";

const ALONE_PX = 512;
const BESIDE_PX = 300;
const LEAST_PX = 256;

/** Give a grid the room of `n` pictures of this size. */
export function lay(grid, n, width, height) {
  const most = n > 1 ? BESIDE_PX : ALONE_PX;
  const scale = Math.min(most, Math.max(LEAST_PX, width, height)) / Math.max(width, height);
  grid.style.setProperty("--cell", `${Math.round(width * scale)}px`);
  grid.style.setProperty("--columns", n > 1 ? 2 : 1);
  grid.style.setProperty("--shape", `${width} / ${height}`);
}

/** Show these pictures in `grid`, anew only if they are others. */
export function showMade(grid, pictures) {
  const shown = [language(), ...pictures.map(({ file }) => file.sha256 + file.drawn.seed)].join();
  if (grid.dataset.shown === shown) return;
  grid.dataset.shown = shown;
  if (pictures.length > 0) lay(grid, pictures.length, pictures[0].file.drawn.width, pictures[0].file.drawn.height);
  grid.replaceChildren(...pictures.map((_, at) => figure(pictures, at)));
}

/** The picture at `at`; a click shows it large among the others. */
export function figure(pictures, at) {
  const { file } = pictures[at];
  const { prompt, width, height } = file.drawn;
  const image = el("img", { src: api.attachmentUrl(file.sha256), alt: prompt, width, height, loading: "lazy", decoding: "async" });
  const open = el("button", { type: "button", class: "made-open", onclick: () => openLarge(pictures, at) }, image);
  open.title = t("made.open");
  const node = el("figure", { class: "made-one" }, open, tools(pictures[at]));
  image.addEventListener("error", () => explain(node, open, pictures[at]));
  return node;
}

/** In the place of a picture that does not show: why, and what can be done. */
export async function explain(node, place, picture) {
  const { file } = picture;
  const code = await api.attachmentTrouble(file.sha256);
  const why = { not_found: "made.gone", untrusted: "made.altered", "": "made.broken" }[code] ?? "made.failed";
  const redo = el("button", { type: "button", class: "link", text: "made.same", onclick: () => again(picture, file.drawn.seed) });
  const retry = el("button", { type: "button", class: "link", text: "load.again", onclick: () => reload() });
  const box = el("div", { class: "made-gone" }, icon("image"), el("p", { text: why }), why === "made.failed" ? retry : redo);
  const reload = () => {
    const image = place.querySelector("img");
    box.replaceWith(place);
    node.classList.remove("gone");
    image.src = api.attachmentUrl(file.sha256);
  };
  place.replaceWith(box);
  node.classList.add("gone"); // what needs the bytes is hidden
}

/** What can be done with a picture. `named`: with words beside the icons. */
export function tools(picture, { named = false } = {}) {
  const { file } = picture;
  const tool = (glyph, key, onclick) => {
    const button = iconButton(glyph, key, onclick, { class: "icon small" });
    if (named) button.append(el("span", { text: `${key}.short` }));
    return button;
  };
  const save = el(
    "a",
    { class: "icon small needs-bytes", href: api.attachmentUrl(file.sha256, fileName(file)), download: true, label: "made.save" },
    icon("download"), named ? el("span", { text: "made.save.short" }) : null,
  );
  save.title = t("made.save");
  const words = tool("copy", "made.prompt", () => said(words, file.drawn.prompt));
  const seed = tool("seed", "made.seed", () => said(seed, String(file.drawn.seed)));
  const other = tool("dice", "made.again", () => again(picture, newSeed()));
  const start = tool("brush", "made.start", () => begin(file));
  start.classList.add("needs-bytes");
  return el("div", { class: "made-tools" }, save, words, seed, other, start);
}

async function said(button, text) {
  await copied(button, text);
  announce(t("code.copied"));
}

function again(picture, seed) {
  leave();
  drawAgain(talks.state.current, picture, seed);
}

function begin(file) {
  leave();
  talks.emit("start", { file });
}

/** Back to the conversation. */
function leave() {
  for (const dialog of [...document.querySelectorAll("dialog[open]")].reverse()) dialog.close();
}

/** How pictures of one question were made, in a line. */
export function madeHow(files) {
  const { model, version, width, height, steps, guidance, scheduler, strength, adapter } = files[0].drawn;
  const number = (n) => n.toLocaleString(language(), { maximumFractionDigits: 2 });
  const seeds = files.map((file) => file.drawn.seed);
  const row = seeds.length > 2 && seeds.every((seed, at) => seed === seeds[0] + at);
  const told = row ? `${seeds[0]}–${seeds.at(-1)}` : seeds.join(", ");
  const parts = [[model, version].filter(Boolean).join(" "), adapter, `${width} × ${height}`, t("made.steps", { n: steps })];
  if (guidance) parts.push(t("made.guidance", { n: number(guidance) }));
  if (typeof strength === "number") parts.push(t("made.strength", { n: number(strength) }));
  parts.push(scheduler, t(seeds.length > 1 ? "made.seeds" : "made.seeded", { n: told }));
  return parts.filter(Boolean).join(" · ");
}
