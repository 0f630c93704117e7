// Pictures of conversations: who makes them, which there are, and the same once more. No elements here.
import * as talks from "./talks.js";
import { commands, like } from "./wishes.js";

const SHAPE = /^(\d+)x(\d+)$/;

/** The model for which pictures are meant: the chosen one, or the first that can; undefined where none does. */
export function painter() {
  const able = talks.state.models.filter((model) => model.paints && talks.usable(model));
  return able.find((model) => model.name === talks.chosenModel()) ?? able[0];
}

const chosen = () => painter()?.name === talks.chosenModel();

/** Whether a message is to become a picture, as far as the page can tell. */
export const asked = (text) => Boolean(painter()) && (commands(text) || chosen());

/** Which model a message goes to: a command chooses by itself, so that it counts though another model is chosen. */
export const modelFor = (text) => (commands(text) && !chosen() ? "" : talks.chosenModel());

/** Pictures that a model made for one question: `{file, exchange}`. */
export const madeIn = (exchange) => exchange.files.filter((file) => file.drawn).map((file) => ({ file, exchange }));

/** All of a conversation, newest first. */
export const madeFor = (of) => (of?.exchanges ?? []).flatMap(madeIn).reverse();

/** Width and height of the pictures that an open question will get, as far as the page can tell. */
export function shapeOf({ drawing, model }) {
  const known = talks.state.models.find((other) => other.name === model);
  const [, width, height] = SHAPE.exec(drawing.size ?? "") ?? SHAPE.exec(known?.sizes[0] ?? "") ?? [0, 512, 512];
  return { width: Number(width), height: Number(height) };
}

/** Whether a picture is being made. */
export function isPainted({ status, state, html, painting, model }) {
  if (status !== "open" || html.length > 0) return false;
  return Boolean(painting) || (state !== "queued" && talks.state.models.some((other) => other.name === model && other.paints));
}

/** Draw it once more, as a new message: with `seed`, and the picture that it began with. */
export function drawAgain(of, { file, exchange }, seed) {
  const { drawn } = file;
  const known = talks.state.models.find((model) => model.name === drawn.model && talks.usable(model));
  const model = (known ?? painter())?.name ?? drawn.model ?? "";
  const begun = typeof drawn.strength === "number" ? exchange.attachments : [];
  const { strength, ...rest } = drawn;
  return talks.ask(of, drawn.prompt, begun, { ...like(begun.length > 0 ? drawn : rest, { seed }), model });
}

/** A name for a file: which model, which seed. The server puts the ending behind it. */
export const fileName = ({ drawn }) => [drawn.model || "picture", "seed", drawn.seed].join("-").replace(/[^\p{L}\p{N}._-]+/gu, "-");
