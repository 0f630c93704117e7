// What is asked of a picture beside its words, and what this browser remembers of it. No elements here.
import { recall, remember } from "./settings.js";

export const SEED_MAX = 2 ** 32 - 1;
const KEY = "drawing";
const COMMAND = /^\s*[/／]image(?:\s|$)/i;

/** Whether somebody types the command for a picture. */
export const commands = (text) => COMMAND.test(text);

export const newSeed = () => crypto.getRandomValues(new Uint32Array(1))[0];

/** The options as they were left: texts of the fields, by their names. */
export function options() {
  try {
    const kept = JSON.parse(recall(KEY) ?? "{}");
    return kept && typeof kept === "object" ? kept : {};
  } catch {
    return {};
  }
}

export function keep(fields) {
  remember(KEY, Object.values(fields).some(Boolean) ? JSON.stringify(fields) : "");
}

/** `{drawing, sampling}` of the fields; what is empty is left to the model. */
export function wanted({ size, n, seed, steps, negative, strength }) {
  const drawing = {};
  const sampling = {};
  if (size) drawing.size = size;
  if (steps) drawing.steps = Number(steps);
  if (negative?.trim()) drawing.negative = negative.trim();
  if (strength) drawing.strength = Number(strength);
  if (seed) sampling.seed = Number(seed);
  if (n && n !== "1") sampling.n = Number(n);
  return { drawing, sampling };
}

/** The same picture once more, from what is known of it; `sampling` says with which seed and how many. */
export function like(drawn, sampling) {
  const { width, height, steps, guidance = 0, negative, scheduler, strength, adapter } = drawn;
  const drawing = { size: `${width}x${height}`, steps, guidance };
  if (negative) drawing.negative = negative;
  if (scheduler) drawing.scheduler = scheduler;
  if (typeof strength === "number") drawing.strength = strength;
  return { drawing, sampling: adapter ? { ...sampling, adapter } : sampling };
}

/** What a retry asks of a picture: the same as before, but for the seed where a picture was made with it. The model is
 * named, as the stored question has no command any more. */
export function wantAgain({ files, want, route, model }) {
  const made = files.filter((file) => file.drawn);
  if (made.length > 0) return { ...like(made[0].drawn, { n: made.length }), model };
  if (want) return { ...want, model: model || want.model };
  return route?.kind === "image" ? { model } : null;
}

/** The option that a refusal speaks of; a refusal begins with the name of its field, or names its place. */
export function fieldOf(message) {
  const name = /^(?:drawing\.|sampling\.)?(\w+)\b[^:]{0,20}:/.exec(message)?.[1] ?? /`\$\.(?:drawing|sampling)\.(\w+)`/.exec(message)?.[1];
  return ["size", "n", "seed", "steps", "negative", "strength"].includes(name) ? name : "";
}
