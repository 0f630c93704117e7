// Calls to our own server. Failures are `Problem`s with a stable code; `network` when there was no answer at all.

export class Problem extends Error {
  constructor(code, message, status = 0, afterS = 0) {
    super(message);
    this.code = code;
    this.status = status;
    this.afterS = afterS;
  }
}

let loggedOut = () => {};

/** Called whenever the server says that the session has ended. */
export function onLoggedOut(handler) {
  loggedOut = handler;
}

async function call(method, path, body, headers = {}) {
  const json = body !== undefined && !(body instanceof Blob);
  let response;
  try {
    response = await fetch(`/api/${path}`, {
      method,
      headers: json ? { "Content-Type": "application/json", ...headers } : headers,
      body: json ? JSON.stringify(body) : body,
      credentials: "same-origin",
    });
  } catch {
    throw new Problem("network", "no answer");
  }
  if (response.status === 204) return null;
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  const { code = "internal", message = response.statusText } = answer.error ?? {};
  if (response.status === 401 && path !== "login") loggedOut();
  throw new Problem(code, message, response.status, Number(response.headers.get("Retry-After")) || 0);
}

const id = encodeURIComponent;

export const login = (code) => call("POST", "login", { code });
export const logout = () => call("POST", "logout", {});
export const me = () => call("GET", "me");
export const models = () => call("GET", "models");
export const conversations = () => call("GET", "conversations");
export const conversation = (c) => call("GET", `conversations/${id(c)}`);
export const forget = (c) => call("DELETE", `conversations/${id(c)}`);
export const send = (c, message) => call("POST", `conversations/${id(c)}/messages`, message);
export const retry = (c, again) => call("POST", `conversations/${id(c)}/retry`, again);
export const request = (r) => call("GET", `requests/${id(r)}`);
export const cancel = (r) => call("POST", `requests/${id(r)}/cancel`, {});
export const attach = (file) =>
  call("POST", "attachments", file, {
    "Content-Type": file.type || "application/octet-stream",
    "X-File-Name": id(file.name || ""),
  });
export const attachmentUrl = (sha256, saveAs = "") => `/api/attachments/${id(sha256)}${saveAs ? `?save_as=${id(saveAs)}` : ""}`;
/** Why an attachment does not show: the code of the refusal, empty if it is there. */
export const attachmentTrouble = (sha256) => call("GET", `attachments/${id(sha256)}`).then(() => "", (error) => error.code);

/** A random id. `crypto.randomUUID` is missing where the page comes over plain HTTP from another machine. */
export function newId() {
  if (crypto.randomUUID) return crypto.randomUUID();
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
}
