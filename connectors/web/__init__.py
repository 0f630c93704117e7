"""The chat page: a page of our own, its JSON interface and its stream of events.

    __init__.py  routes, cookies and headers      login.py   who may enter, and from where
    api.py       what a page may ask              stream.py  followers of open requests, listening pages
    answer.py    one open request                 render.py  Markdown to safe blocks
    attachment.py  what images really are         preview.py  the frame for an answer's HTML
    models.py    models and their new versions    wish.py    what may be asked of a picture
    painting.py  how far a picture is
    static/      the page: HTML, CSS and ES modules as they are

What always holds: nothing but the login and the page's own files is answered without a valid cookie; nothing changes
on a request that another site could have sent; the browser loads nothing from another host.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec
from aiohttp import web
from cryptography.fernet import Fernet

from connectors import Capabilities, Connector, ConnectorSettings, Emit, Host, Outbound
from connectors.host.http import read_body
from connectors.web import attachment, files, login, preview
from connectors.web.api import Again, Api, Login, NewMessage, decode
from connectors.web.stream import Feed
from schemas.errors import AuthFailed, Rejected

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

COOKIE = "roost_session"
RENEW_S = 86_400
KEEP_ALIVE_S = 15.0
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "font-src 'self'",
        "manifest-src 'self'",
        "frame-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types roost",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


class WebConnector(Connector):
    """Serves the page to one user, the owner."""

    capabilities = Capabilities(authenticates=True, repeatable=True)

    class Settings(ConnectorSettings, frozen=True):
        login_attempts_max: int = 10
        """Wrong codes of everybody together; with 100 bits in the code this is about noise, not about luck."""
        login_window_s: float = 300.0
        session_age_s: int = 30 * 86_400
        """A cookie unused for this long is worth nothing."""

    settings: Settings

    def __init__(self, name: str, settings: ConnectorSettings, host: Host) -> None:
        super().__init__(name, settings, host)
        self._feed = Feed(host)
        self._api = Api(host, self._feed)
        self._files = files.load()
        self._code = host.secret("web-access-code", login.make_code)
        key = host.secret("web-cookie-key", lambda: Fernet.generate_key().decode())
        self._sessions = login.Sessions(key, self._code, self.settings.session_age_s)
        self._attempts = login.Attempts(self.settings.login_attempts_max, self.settings.login_window_s)

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        return (
            web.get("/", self._at_home(self._page)),
            web.get("/static/{path:.+}", self._at_home(self._file)),
            web.get("/preview", self._at_home(self._preview)),
            web.post("/api/login", self._at_home(self._login)),
            web.post("/api/logout", self._own(self._logout)),
            web.get("/api/me", self._own(self._me)),
            web.get("/api/models", self._own(self._models)),
            web.get("/api/events", self._own(self._events)),
            web.get("/api/conversations", self._own(self._conversations)),
            web.get("/api/conversations/{id}", self._own(self._conversation)),
            web.delete("/api/conversations/{id}", self._own(self._forget)),
            web.post("/api/conversations/{id}/messages", self._own(self._send)),
            web.post("/api/conversations/{id}/retry", self._own(self._retry)),
            web.get("/api/requests/{id}", self._own(self._state)),
            web.post("/api/requests/{id}/cancel", self._own(self._cancel)),
            web.post("/api/attachments", self._own(self._attach)),
            web.get("/api/attachments/{sha256}", self._own(self._attachment)),
        )

    async def run(self, emit: Emit) -> None:
        """Follow what is open until cancelled; messages come through `routes`."""
        await self._feed.run()

    async def send(self, message: Outbound) -> None:
        """Nothing to deliver: pages follow their answers, and one that is not looking finds them in the history."""

    # Who may call what

    def _at_home(self, handler: Handler) -> Handler:
        """For everybody, under our own name, and not on behalf of another site."""

        async def guarded(request: web.Request) -> web.StreamResponse:
            config = self.host.config.http
            if not login.known_host(request.host, config):
                raise Rejected(
                    f"the name {request.host!r} is not one of mine; add its origin to http.origins", code="forbidden"
                )
            if request.method not in ("GET", "HEAD") and not login.own_origin(
                request.headers, request.scheme, request.host, config.origins
            ):
                raise Rejected("this request comes from another site", code="forbidden")
            response = await handler(request)
            if not response.prepared:
                for name, value in HEADERS.items():
                    response.headers.setdefault(name, value)
            return response

        return guarded

    def _own(self, handler: Handler) -> Handler:
        """For the owner."""

        async def guarded(request: web.Request) -> web.StreamResponse:
            if not self._sessions.valid(request.cookies.get(COOKIE)):
                raise AuthFailed("log in with the access code")
            return await handler(request)

        return self._at_home(guarded)

    async def _body(self, request: web.Request) -> bytes:
        if request.content_type != "application/json":
            raise Rejected("expected Content-Type: application/json", code="bad_request")
        return await read_body(request, self.host.config.http)

    # The page and its files

    async def _page(self, request: web.Request) -> web.StreamResponse:
        return self._serve(request, "index.html")

    async def _file(self, request: web.Request) -> web.StreamResponse:
        return self._serve(request, request.match_info["path"])

    async def _preview(self, request: web.Request) -> web.StreamResponse:
        return preview.document()

    def _serve(self, request: web.Request, path: str) -> web.StreamResponse:
        """One static file; browsers ask each time whether it changed."""
        file = self._files.get(path)
        if file is None:
            raise Rejected("no such file", code="not_found")
        if request.if_none_match and any(tag.value == file.etag for tag in request.if_none_match):
            response = web.Response(status=304)
        else:
            response = web.Response(body=file.body, headers={"Content-Type": file.media_type})
            response.enable_compression()
        response.etag = file.etag
        response.headers["Cache-Control"] = "no-cache"
        return response

    # Login

    async def _login(self, request: web.Request) -> web.StreamResponse:
        body = decode(await self._body(request), Login)
        now = time.monotonic()
        self._attempts.check(now)
        if not login.same_code(body.code, self._code):
            self._attempts.fail(now)
            raise AuthFailed("this is not the access code", code="wrong_code")
        response = _json(self._api.me())
        self._set_cookie(request, response)
        return response

    def _set_cookie(self, request: web.Request, response: web.Response) -> None:
        origins = self.host.config.http.origins
        response.set_cookie(
            COOKIE,
            self._sessions.issue(),
            max_age=self.settings.session_age_s,
            path="/",
            secure=login.behind_https(request.scheme, request.host, origins),
            httponly=True,
            samesite="Strict",
        )

    async def _logout(self, request: web.Request) -> web.StreamResponse:
        response = web.Response(status=204)
        response.del_cookie(COOKIE, path="/", httponly=True, samesite="Strict")
        return response

    async def _me(self, request: web.Request) -> web.StreamResponse:
        response = _json(self._api.me())
        if self._sessions.age(request.cookies[COOKIE], time.time()) > RENEW_S:
            self._set_cookie(request, response)
        return response

    # Conversations

    async def _models(self, request: web.Request) -> web.StreamResponse:
        return _json(self._api.models())

    async def _conversations(self, request: web.Request) -> web.StreamResponse:
        return _json(await self._api.conversations())

    async def _conversation(self, request: web.Request) -> web.StreamResponse:
        return _json(await self._api.conversation(request.match_info["id"]))

    async def _forget(self, request: web.Request) -> web.StreamResponse:
        await self._api.forget(request.match_info["id"])
        return web.Response(status=204)

    async def _send(self, request: web.Request) -> web.StreamResponse:
        message = decode(await self._body(request), NewMessage)
        return _json(await self._api.send(request.match_info["id"], message), status=202)

    async def _retry(self, request: web.Request) -> web.StreamResponse:
        again = decode(await self._body(request), Again)
        return _json(await self._api.retry(request.match_info["id"], again), status=202)

    async def _state(self, request: web.Request) -> web.StreamResponse:
        return _json(await self._api.state(request.match_info["id"]))

    async def _cancel(self, request: web.Request) -> web.StreamResponse:
        await self._api.cancel(request.match_info["id"])
        return web.Response(status=204)

    # Attachments

    async def _attach(self, request: web.Request) -> web.StreamResponse:
        limit = self.host.config.limits.attachment_bytes_max
        if (request.content_length or 0) > limit:
            raise Rejected(f"the file is larger than {limit} bytes", code="too_large")
        data = await read_body(request, self.host.config.http)
        if len(data) > limit:
            raise Rejected(f"the file is larger than {limit} bytes", code="too_large")
        media_type = attachment.image_type(data)
        if media_type is None:
            raise Rejected("only PNG, JPEG, WebP and GIF images can be attached", code="bad_type")
        name = attachment.clean_name(request.headers.get("X-File-Name", ""))
        return _json(await self.host.store(data, media_type, name), status=201)

    async def _attachment(self, request: web.Request) -> web.StreamResponse:
        sha256 = request.match_info["sha256"]
        data = await self.host.fetch(sha256) if attachment.SHA256.fullmatch(sha256) else None
        if data is None:
            raise Rejected("no such attachment", code="not_found")
        return web.Response(body=data, headers=attachment.headers(data, sha256, request.query.get("save_as", "")))

    # Events

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Everything that happens, until the page goes, its session ends, or it cannot keep up."""
        await self._feed.sync()
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )
        response.headers.update(HEADERS)
        with self._feed.page() as page:
            await response.prepare(request)
            while self._sessions.valid(request.cookies.get(COOKIE)):
                try:
                    async with asyncio.timeout(KEEP_ALIVE_S):
                        data = await page.get()
                except TimeoutError:
                    data = b": keep-alive\n\n"
                if not data:
                    break
                await response.write(data)
        return response


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(
        status=status,
        body=msgspec.json.encode(value),
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
