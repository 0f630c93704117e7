// Conversations as this page knows them: what the server told, and what is on its way there. No elements here.
//
// What always holds: an exchange (a question with its answer) exists once, whoever tells of it first: our own
// sending, an event, or the stored history. Blocks change only through `patch`.
import * as api from "./api.js";
import { language } from "./i18n.js";
import { recall, remember } from "./settings.js";
import { fieldOf, wantAgain } from "./wishes.js";

export const talks = new EventTarget(); // "list", "thread", "exchange", "blocks", "painting", "models", "link" …
export const state = { list: [], threads: new Map(), current: null, models: [], limits: {}, linked: true };

const byRequest = new Map();
const byId = new Map();

export function emit(name, detail = {}) {
  talks.dispatchEvent(new CustomEvent(name, { detail }));
}

export function on(name, handler) {
  talks.addEventListener(name, (event) => handler(event.detail));
}

/** status: sending → open → done, or failed (never stored); waiting while there is no connection. */
function newExchange(fields) {
  return {
    id: "", request: "", text: "", attachments: [], status: "open", state: "queued", place: null, html: [],
    answer: "", model: "", route: null, finish: "", notes: [], error: null, usage: null, timings: null, files: [], endedAt: 0,
    want: null, painting: null, drawing: {}, n: 1,
    ...fields,
  };
}

export function thread(id) {
  let found = state.threads.get(id);
  if (!found) {
    found = { id, exchanges: [], loaded: false, loading: false, failed: false, unread: false, sends: Promise.resolve() };
    state.threads.set(id, found);
  }
  return found;
}

export function newThread() {
  const made = thread(api.newId());
  made.loaded = true;
  made.fresh = true;
  return made;
}

export function openExchange(of) {
  return of?.exchanges.find((x) => x.status === "open" || x.status === "sending");
}

export function title(of) {
  const info = state.list.find((item) => item.conversation === of.id);
  return info?.title || of.exchanges[0]?.text.trim().split("\n")[0].slice(0, 80) || "";
}

// Models

export async function loadModels() {
  state.models = await api.models();
  emit("models");
}

/** Whether a new version of some model is on its way. */
export const updating = () => state.models.some(({ update }) => update && !["idle", "failed", "staged"].includes(update.phase));

// One that is asleep is loaded by its first message.
export const usable = (model) => model.state === "ready" || model.state === "asleep";

export function chosenModel() {
  const name = recall("model");
  const known = state.models.find((m) => m.name === name && usable(m));
  return known ? known.name : "";
}

export function chooseModel(name) {
  remember("model", name);
  emit("models");
}

// Loading

let listing = null;
export function loadList() {
  listing ??= new Promise((done) => setTimeout(done, 60)).then(async () => {
    listing = null;
    try {
      state.list = await api.conversations();
      emit("list");
    } catch (error) {
      if (error.code !== "network") console.warn("conversations:", error.message);
    }
  });
  return listing;
}

export async function load(of) {
  if (of.loading || of.fresh) return;
  of.loading = true;
  of.failed = false;
  const begun = Date.now();
  try {
    merge(of, await api.conversation(of.id), begun);
    of.loaded = true;
  } catch (error) {
    of.failed = !of.loaded && error.code !== "auth_failed";
  }
  of.loading = false;
  emit("thread", { thread: of });
}

/** Lay the stored history and the open requests over what the page has. */
function merge(of, talk, begun) {
  const before = of.exchanges;
  const told = new Map();
  for (const line of talk.entries) {
    const exchange = told.get(line.request) ?? byRequest.get(line.request) ?? newExchange({ request: line.request });
    told.set(line.request, exchange);
    byRequest.set(line.request, exchange);
    if (line.role === "user") Object.assign(exchange, { text: line.text, attachments: line.attachments });
    else {
      const { html, model, route, finish, notes, error, attachments } = line;
      Object.assign(exchange, { answer: line.text, model, route, finish, notes, error, files: attachments });
      if (html.join() !== exchange.html.join()) exchange.html = html; // else what is selected stays selected
      Object.assign(exchange, { status: "done", painting: null });
    }
    exchange.at = line.at;
  }
  for (const snapshot of talk.pending) {
    if (!told.has(snapshot.asked.request)) told.set(snapshot.asked.request, follow(snapshot, of));
  }
  const kept = before.filter((x) => !told.has(x.request) && (x.status !== "done" || x.endedAt >= begun));
  of.exchanges = [...told.values(), ...kept];
  for (const x of kept) if (x.status === "open" && x.request) settle(of, x);
}

/** A question that is neither stored nor open: ask what became of it. */
async function settle(of, exchange) {
  try {
    const { state: now, reply, reason } = await api.request(exchange.request);
    if (now === "queued" || now === "running" || exchange.status !== "open") return;
    Object.assign(exchange, { status: "done", painting: null, files: reply?.attachments ?? [] });
    exchange.error = reply?.error ?? (now === "dead" ? { code: "dead", message: reason ?? "" } : null);
    exchange.finish = reply?.finish ?? "error";
  } catch (error) {
    if (error.code !== "not_found") return;
    Object.assign(exchange, { status: "done", painting: null, error, finish: "error" });
  }
  emit("exchange", { thread: of, exchange });
}

// Events

function follow({ asked, state: now, place, html, painting }, of) {
  let exchange = byRequest.get(asked.request) ?? byId.get(asked.id);
  if (!exchange) {
    exchange = newExchange({ text: asked.text, attachments: asked.attachments ?? [], at: asked.at });
    of.exchanges.push(exchange);
  }
  byRequest.set(asked.request, exchange);
  Object.assign(exchange, { request: asked.request, status: "open", state: now, place, painting });
  Object.assign(exchange, { model: asked.model, n: Math.max(exchange.n, asked.n) });
  exchange.drawing = { ...exchange.drawing, ...asked.drawing }; // after a restart the server knows no more of it
  if (asked.attachments?.length) exchange.attachments = asked.attachments;
  if (exchange.html.length === 0) exchange.html = [...html];
  return exchange;
}

/** The server's own name for a conversation takes the place of the one we made. */
function rename(of, id) {
  if (of.id === id) return of;
  const known = state.threads.get(id);
  if (known) {
    known.exchanges.push(...of.exchanges.filter((x) => !known.exchanges.includes(x)));
    known.loaded ||= of.loaded;
  } else state.threads.set(id, of);
  state.threads.delete(of.id);
  const from = of.id;
  const kept = known ?? of;
  kept.id = id;
  kept.fresh = false;
  if (state.current === of) state.current = kept;
  emit("renamed", { from, thread: kept });
  return kept;
}

function ownerOf(exchange) {
  for (const of of state.threads.values()) if (of.exchanges.includes(exchange)) return of;
  return null;
}

export const handlers = {
  hello({ open }) {
    if (!state.linked) {
      state.linked = true;
      emit("link");
    }
    const alive = new Set(open.map((snapshot) => snapshot.asked.request));
    for (const snapshot of open) {
      const exchange = handlers.asked(snapshot);
      patch(exchange, 0, snapshot.html);
    }
    const current = state.current;
    for (const of of state.threads.values())
      if (of.exchanges.some((x) => x.status === "open" && x.request && !alive.has(x.request))) of.loaded = false;
    if (current && !current.fresh) load(current);
    resend();
    loadList();
    loadModels().catch(() => {});
  },

  asked(snapshot) {
    const { asked } = snapshot;
    const known = byRequest.get(asked.request) ?? byId.get(asked.id);
    let of = known && ownerOf(known);
    of = of ? rename(of, asked.conversation) : thread(asked.conversation);
    const exchange = follow(snapshot, of);
    emit("thread", { thread: of });
    loadList();
    return exchange;
  },

  progress({ request, state: now, place }) {
    const exchange = byRequest.get(request);
    if (!exchange || exchange.status === "done") return;
    Object.assign(exchange, { state: now, place });
    emit("exchange", { thread: ownerOf(exchange), exchange });
  },

  painting(painting) {
    const exchange = byRequest.get(painting.request);
    if (!exchange || exchange.status === "done") return;
    exchange.painting = painting;
    emit("painting", { exchange });
  },

  blocks({ request, from, html }) {
    const exchange = byRequest.get(request);
    if (exchange && exchange.status !== "done") patch(exchange, from, html);
  },

  final(told) {
    const exchange = byRequest.get(told.request);
    if (exchange) {
      patch(exchange, told.from, told.html);
      const { model, route, finish, notes = [], error, usage, timings } = told;
      Object.assign(exchange, { model, route, finish, notes, error, usage, timings, answer: told.text });
      Object.assign(exchange, { status: "done", painting: null, files: told.attachments ?? [], endedAt: Date.now() });
      const of = ownerOf(exchange);
      if (of && of !== state.current) of.unread = true;
      emit("exchange", { thread: of, exchange, ended: true });
    }
    loadList();
  },

  truncated({ conversation, request }) {
    const of = state.threads.get(conversation);
    const at = of?.exchanges.findIndex((x) => x.request === request) ?? -1;
    if (at >= 0) {
      // what is still being sent stays: the retry itself is among it
      of.exchanges = [...of.exchanges.slice(0, at), ...of.exchanges.slice(at).filter((x) => x.status === "sending")];
      emit("thread", { thread: of });
    }
  },

  deleted({ conversation }) {
    state.threads.delete(conversation);
    state.list = state.list.filter((item) => item.conversation !== conversation);
    emit("list");
    emit("gone", { conversation });
  },

  lost() {
    state.linked = false;
    emit("link");
  },
};

function patch(exchange, from, html) {
  exchange.html.splice(from, Infinity, ...html);
  emit("blocks", { exchange, from });
}

// Doing

/** Put a question at the end of `of` and send it. `want` is for pictures: `{drawing, sampling, model}`. Returns at once. */
export function ask(of, text, attachments, want = null) {
  const exchange = newExchange({ id: api.newId(), text, attachments, want, status: "sending", at: Date.now() / 1000 });
  of.exchanges.push(exchange);
  emit("thread", { thread: of, own: true });
  return post(of, exchange);
}

/** Send one question; those of one conversation go one after the other, so that they stay in order. */
export function post(of, exchange) {
  exchange.status = "sending";
  exchange.error = null;
  emit("exchange", { thread: of, exchange });
  const { id, text, again, want } = exchange;
  const { drawing = {}, sampling = {} } = want ?? {};
  const message = { id, drawing, sampling, language: language() };
  const attachments = exchange.attachments.map(({ drawn, ...file }) => file);
  return queue(of, exchange, (now) =>
    again
      ? api.retry(now.id, { ...message, request: again, model: want?.model ?? (chosenModel() || exchange.wish) })
      : api.send(now.id, { ...message, text, attachments, model: want?.model ?? chosenModel() }),
  );
}

const RESEND_MS = 4000;
let resending = null;

/** Send again what had no connection; the same ids keep anything from being asked twice. */
function resend() {
  clearTimeout(resending);
  for (const of of state.threads.values()) for (const x of of.exchanges) if (x.status === "waiting") post(of, x);
}
addEventListener("online", resend);

function queue(of, exchange, send) {
  byId.set(exchange.id, exchange);
  of.sends = of.sends.then(async () => {
    let now = ownerOf(exchange) ?? of;
    try {
      const taken = await send(now);
      now = rename(ownerOf(exchange) ?? now, taken.conversation);
      taking(now, exchange, taken);
    } catch (error) {
      exchange.status = error.code === "network" ? "waiting" : "failed";
      exchange.error = error;
      if (exchange.status === "failed" && exchange.want && fieldOf(error.message)) emit("refused", { thread: now, exchange });
      if (exchange.status === "waiting") {
        clearTimeout(resending);
        resending = setTimeout(resend, RESEND_MS);
      }
    }
    emit("exchange", { thread: now, exchange });
    emit("list");
  });
  return of.sends;
}

function taking(of, exchange, taken) {
  const twin = byRequest.get(taken.request);
  if (twin && twin !== exchange) {
    // an event without our id was faster and made its own
    of.exchanges = of.exchanges.filter((x) => x !== exchange);
    emit("thread", { thread: of });
    return;
  }
  byRequest.set(taken.request, exchange);
  exchange.request = taken.request;
  if (exchange.status === "sending") {
    Object.assign(exchange, { status: "open", state: taken.state, place: taken.place });
    if (taken.state === "answered" || taken.state === "dead") load(of);
  }
}

/** Ask the question of `exchange` again; it and what follows are dropped. */
export function retry(of, exchange) {
  const at = of.exchanges.indexOf(exchange);
  const { text, attachments, request, route, model } = exchange;
  const wish = route?.reason === "command" ? model : ""; // what is stored has no command any more
  const want = wantAgain(exchange);
  const fresh = newExchange({ id: api.newId(), text, attachments, want, status: "sending", again: request, wish });
  fresh.at = Date.now() / 1000;
  of.exchanges = [...of.exchanges.slice(0, at), fresh];
  emit("thread", { thread: of, own: true });
  return post(of, fresh);
}

export async function cancel(exchange) {
  if (!exchange.request) return;
  try {
    await api.cancel(exchange.request);
  } catch (error) {
    console.warn("cancel:", error.message);
  }
}

export async function remove(conversation) {
  await api.forget(conversation);
  handlers.deleted({ conversation });
}

export function discard(of, exchange) {
  of.exchanges = of.exchanges.filter((x) => x !== exchange);
  emit("thread", { thread: of });
}

/** Forget everything, on logout. */
export function reset() {
  state.threads.clear();
  byRequest.clear();
  byId.clear();
  clearTimeout(resending);
  Object.assign(state, { list: [], current: null, models: [], linked: true });
}
