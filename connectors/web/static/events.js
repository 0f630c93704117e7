// The one stream of events. Connects again by itself; a page that nobody looks at lets go of its connection.

const NAMES = ["hello", "asked", "progress", "painting", "blocks", "final", "truncated", "deleted"];
const BANNER_AFTER_MS = 1500;
const HIDDEN_FOR_MS = 60_000;
const AGAIN_MS = [500, 1000, 2000, 4000];

/**
 * `handlers` has a function for each event name, `lost()` and `refused()`; returns `{stop}`.
 * `refused` asks whether trying again makes sense (false: the session has ended).
 */
export function listen(handlers) {
  let source = null;
  let tries = 0;
  let again = null;
  let banner = null;
  let hidden = null;
  let stopped = false;

  function close() {
    source?.close();
    source = null;
    clearTimeout(again);
    again = null;
  }

  function open() {
    close();
    if (stopped) return;
    source = new EventSource("/api/events");
    for (const name of NAMES)
      source.addEventListener(name, (event) => {
        if (name === "hello") found();
        handlers[name](JSON.parse(event.data));
      });
    source.onerror = lost;
  }

  function found() {
    tries = 0;
    clearTimeout(banner);
    banner = null;
  }

  async function lost() {
    close();
    banner ??= setTimeout(handlers.lost, BANNER_AFTER_MS);
    const wait = AGAIN_MS[Math.min(tries++, AGAIN_MS.length - 1)];
    again = setTimeout(async () => {
      if (await handlers.refused()) stop();
      else open();
    }, wait);
  }

  function seen() {
    clearTimeout(hidden);
    if (document.hidden) hidden = setTimeout(close, HIDDEN_FOR_MS);
    else if (!source && !again) open();
  }

  function now() {
    if (again) open();
  }

  function stop() {
    stopped = true;
    close();
    clearTimeout(banner);
    clearTimeout(hidden);
    document.removeEventListener("visibilitychange", seen);
    removeEventListener("online", now);
  }

  document.addEventListener("visibilitychange", seen);
  addEventListener("online", now);
  open();
  return { stop };
}
