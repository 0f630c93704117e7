// Beginning: the door, or the page behind it.
import * as api from "./api.js";
import { listen } from "./events.js";
import { tellDocument } from "./i18n.js";
import { forgetDrafts } from "./settings.js";
import * as talks from "./talks.js";
import { LoginView } from "./view/login.js";
import { Shell } from "./view/shell.js";

const root = document.getElementById("root");
const MODELS_EVERY_MS = 20_000;
const UPDATES_EVERY_MS = 2_000;
let stream = null;
let shell = null;
let looking = null;

function door() {
  stream?.stop();
  stream = null;
  clearTimeout(looking);
  talks.reset();
  document.title = "Roost";
  const view = new LoginView({ onenter: enter });
  root.replaceChildren(view.node);
  view.focus();
}

function enter(me) {
  talks.state.limits = me.limits;
  shell ??= new Shell({ onlogout: leave });
  root.replaceChildren(shell.node);
  shell.route();
  talks.loadList();
  stream = listen({ ...talks.handlers, refused });
  look(stream);
}

/** Ask for the models again and again, sooner while a new version is on its way. Ends with the session. */
async function look(session) {
  if (!document.hidden) await talks.loadModels().catch(() => {});
  if (stream !== session) return;
  looking = setTimeout(look, talks.updating() ? UPDATES_EVERY_MS : MODELS_EVERY_MS, session);
}

/** Whether the session has ended, as far as the server can be asked. */
async function refused() {
  try {
    await api.me();
    return false;
  } catch (error) {
    return error.status === 401;
  }
}

async function leave() {
  forgetDrafts();
  await api.logout().catch(() => {});
  history.replaceState(null, "", "/");
  door();
}

api.onLoggedOut(() => stream && door());
tellDocument();
try {
  enter(await api.me());
} catch (error) {
  door();
  if (error.status !== 401) console.warn("roost:", error.message);
}
