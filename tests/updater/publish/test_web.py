"""A web server as a place to send to: what a proxy on the way is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp import web

from tests.updater.source.servers import certificate, proxy_to, serving
from updater.publish.web import Web


async def test_the_token_is_for_the_server_and_not_for_a_proxy_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str | None] = []

    async def taken(request: web.Request) -> web.StreamResponse:
        heard.append(request.headers.get("Authorization"))
        return web.Response(status=201)

    context, authority = certificate(tmp_path, "updates.test")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    async with serving(taken, ssl_context=context) as behind, proxy_to(behind) as (proxy, heads):
        monkeypatch.setenv("https_proxy", f"http://ada:pass@127.0.0.1:{proxy}")
        async with Web("https://updates.test/models", "t0ken") as place:
            await place.write("metadata/timestamp.json", b"{}")
    assert heard == ["Bearer t0ken"]
    assert b"Basic YWRhOnBhc3M=" in heads[0]
    assert b"t0ken" not in heads[0]
