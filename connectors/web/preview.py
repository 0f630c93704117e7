"""The frame that shows an answer's HTML: a document with a policy of its own, empty until the page hands it over.

What always holds: what runs in it is of no origin (a sandbox without `allow-same-origin`), so that it has no cookie, no
storage and no way into the page; its own policy allows no request, and the page's policy lets the frame go nowhere
else. The page listens to nothing that the frame says.

Two ways out are no requests that a content security policy sees: WebRTC, and the connection that a browser opens ahead
of a navigation which it then refuses. `Connection-Allowlist` closes both where the browser knows it, as Chromium does;
elsewhere WebRTC is taken away before anything else runs, as far as a script can, and the other stays open.
"""

from __future__ import annotations

from aiohttp import web

POLICY = "; ".join(
    (
        "sandbox allow-scripts",
        "default-src 'none'",
        "script-src 'unsafe-inline' 'unsafe-eval'",  # pocket calculators love eval, and here it can do no harm
        "style-src 'unsafe-inline'",
        "img-src data:",
        "font-src data:",
        "media-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'self'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Frame-Options": "SAMEORIGIN",
    "Connection-Allowlist": "()",
    "X-DNS-Prefetch-Control": "off",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), usb=(), serial=(), hid=(), bluetooth=(), midi=()",
    "Cache-Control": "no-cache",
}
DOCUMENT = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Preview</title>
<script>
for (const name of ["RTCPeerConnection", "webkitRTCPeerConnection", "WebTransport"]) delete self[name];
addEventListener("message", (event) => {
  if (event.source !== parent || event.source === self || typeof event.data !== "string") return;
  document.open(); // takes all listeners off
  addEventListener("click", (event) => {
    if (event.target.closest?.("a[href]:not([href^='#'])")) event.preventDefault(); // there is nowhere to go
  }, true);
  document.write(event.data);
  document.close();
});
</script>
</html>
"""


def document() -> web.Response:
    """The empty frame. The same for everybody: it holds nothing of anybody."""
    return web.Response(text=DOCUMENT, content_type="text/html", charset="utf-8", headers=HEADERS)
