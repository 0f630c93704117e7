"""Pictures by the real diffusion backend in a running Roost: what is broken beside it, or sent to it, hurts nobody."""

from __future__ import annotations

import base64
import importlib.util
import shutil
import struct
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import missing
from tests.running import ECHO, RunningRoost, running, wait_for
from tests.tools import pipelines

LIMIT_S = 90.0
"""The libraries are imported in the worker, on a machine that may be busy."""
UNET = Path("unet") / "diffusion_pytorch_model.safetensors"
WORDS = {"text": "a red boat", "kind": "image", "model": "draw"}
DRAW = {"type": "diffusion", "resolution": "64x64", "steps": 2, "threads": 1, "precision": "float32"}


@pytest.fixture(scope="module")
def draws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRoost]:
    """Echo, a sound pipeline, one whose copy was broken off, and one with pickled weights."""
    if importlib.util.find_spec("diffusers") is None:
        missing("diffusers is not installed; `make up` installs it where a model is of the type diffusion")
    folder = tmp_path_factory.mktemp("draws")
    good = pipelines.make(folder / "good")
    half = Path(shutil.copytree(good, folder / "half"))
    (half / UNET).write_bytes((good / UNET).read_bytes()[:-1_000])
    pickled = Path(shutil.copytree(good, folder / "pickled"))
    (pickled / UNET).rename((pickled / UNET).with_suffix(".bin"))
    named = {"draw": good, "half": half, "pickled": pickled}
    models = [ECHO, *({**DRAW, "name": name, "path": str(path)} for name, path in named.items())]
    with running(folder / "roost", {"models": models}) as started:
        yield started


@pytest.fixture
async def client(draws: RunningRoost) -> AsyncIterator[Any]:
    nc = await draws.client()

    async def known() -> bool:
        return "attachments" in await draws.ask(nc, WORDS, LIMIT_S)

    await wait_for(known, LIMIT_S, "a picture is drawn")
    yield nc
    await nc.close()


def bomb(side: int) -> bytes:
    """A PNG of some hundred bytes whose header promises `side` times `side` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(9_999))) + chunk(b"IEND", b"")
    )


def attached(data: bytes) -> list[dict[str, str]]:
    return [{"media_type": "image/png", "data": base64.b64encode(data).decode(), "name": "start.png"}]


async def test_broken_folders_and_hostile_requests_hurt_nobody_else(draws: RunningRoost, client: Any) -> None:
    worker = draws.pid("worker")
    rows = {row["name"]: row for row in draws.status()["models"]}
    assert rows["draw"]["state"] == "ready"
    assert (rows["half"]["state"], rows["pickled"]["state"]) == ("failed", "failed")
    assert "copy" in rows["half"]["reason"]
    assert str(UNET) in rows["half"]["reason"]
    assert "pickle" in rows["pickled"]["reason"]
    hostile: list[tuple[dict[str, Any], str, str]] = [
        ({"attachments": attached(bomb(30_000))}, "too_large", "attachments[0]: "),
        ({"attachments": attached(bomb(100_000))}, "too_large", "attachments[0]: "),
        ({"attachments": attached(b"no picture")}, "bad_picture", "attachments[0]: "),
        ({"drawing": {"size": "65x64"}}, "bad_value", "size: "),
        ({"drawing": {"size": "104x104"}}, "too_large", "size: 104x104 is too large"),
        ({"drawing": {"steps": 10_000}}, "bad_value", "steps: "),
    ]
    for wish, code, says in hostile:
        error = (await draws.ask(client, {**WORDS, **wish}, LIMIT_S))["error"]
        assert (error["code"], says in error["message"]) == (code, True), error
    for model in ("echo", ""):
        assert (await draws.ask(client, {"text": "are you there?", "model": model}))["text"] == "are you there?"
    (picture,) = (await draws.ask(client, {**WORDS, "seed": 7}, LIMIT_S))["attachments"]
    assert (picture["drawn"]["seed"], picture["drawn"]["width"]) == (7, 64)
    assert draws.pid("worker") == worker
