"""Versions that are properly signed and no good: none ever serves, each is blocked with its reason, the old goes on.

One Roost for all of them, with a slot for each, so that what one does to the worker would be seen by the others.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from schemas.release import Expected, Golden, Release
from tests.running import wait_for
from tests.schemas.test_gguf import ARCHITECTURE, CONTEXT, GOOD, file, tensor
from tests.updater.publishing import publisher
from tests.updates.careless import signed, withdrawn
from tests.updates.following import Following, following, mark
from tests.updates.talkers import Talk, faults, talking

TWO = (Golden(prompt="good morning"), Golden(prompt="good night", expect=Expected(contains=(f"night{mark('1')}",))))
"""The trial asks once, so what happens at the second answer, or in these, happens in the worker."""

LOAD_S = 14.0
BEHAVIOUR: dict[str, tuple[dict[str, Any], str]] = {
    "garbage": ({"says": "garbage"}, "golden prompt 'good night': lacks 'night~1'"),
    "silent": ({"says": "empty"}, "golden prompt 'good morning': shorter than 1 characters"),
    "dies-loading": ({"crash": "load"}, "in its trial: it crashed (SIGABRT) while loading"),
    "dies-answering": ({"crash": "answer"}, "in its trial: it crashed (SIGABRT) while answering"),
    "hangs-loading": ({"hang": "load"}, f"in its trial: it did not get on within {LOAD_S / 2:g} s, while loading"),
    "takes-all": (
        {"demand": 1_000_000, "takes": 3_000_000_000},
        "in its trial: it took more memory than it had said it would",
    ),
    "dies-later": ({"crash": "answer", "after": 1}, "died while it loaded it"),
    "hangs-later": ({"hang": "answer", "after": 1}, f"it was not ready within {LOAD_S:g} s"),
}
"""What is wrong with the model, and what the operator reads."""


def longer(release: Release) -> Release:
    """The file has a hash that its chunks do not have."""
    (only,) = release.files
    return replace(release, files=(replace(only, sha256="0" * 64),))


FILES: dict[str, tuple[dict[str, bytes], str]] = {
    "no-gguf": ({"model.gguf": b"GGML" + GOOD[4:]}, "model.gguf is not a usable .gguf file"),
    "cut-off": ({"model.gguf": GOOD[:-40]}, "model.gguf is not a usable .gguf file"),
    "beyond": (
        {"model.gguf": file(ARCHITECTURE, CONTEXT, tensors=(tensor(offset=1 << 40),), data=64)},
        "model.gguf is not a usable .gguf file",
    ),
    "pickled": ({"model.gguf": b"\x80\x04\x95" + bytes(200)}, "model.gguf is a pickle"),
    "a-script": ({"run.sh": b"#!/bin/sh\n"}, "files of kind .sh may hold code and are refused"),
    "not-weights": ({"weights.safetensors": b"\xff" * 64}, "weights.safetensors is not a usable .safetensors file"),
    "outside": ({"../escape.json": b"{}"}, "'../escape.json' is no path for a file of a release"),
    "other-hash": ({"echo.json": b'{"mark": "~1"}'}, "echo.json"),
}
"""What is in the release, and what the operator reads."""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Following]:
    folder = tmp_path_factory.mktemp("bad")
    house = publisher(folder / "house")
    slots = [*BEHAVIOUR, *FILES, "damaged", "good"]
    with following(
        folder / "here", house, slots, updates={"load_s": LOAD_S}, entry={"delay_token_ms": 5},
        limits={"deliveries_max": 12}, bus={"listen": "127.0.0.1:0"},
    ) as roost:  # fmt: skip
        yield roost


async def refused(here: Following, name: str, reason: str, talk: Talk, bus: Any) -> None:
    """It is blocked with this reason, the operator is told, and what was asked meanwhile the old one answered."""
    assert reason in await here.blocked("1", name)
    assert here.serves(name) == "0"

    async def shown() -> bool:
        (row,) = (await here.order(bus, "status", name)).rows
        return (row.phase, row.current, row.newest) == ("failed", "0", "1") and reason in row.reason

    await wait_for(shown, 10, "the row tells why")
    wanted = f"{name} 1 is blocked"

    async def told() -> bool:
        return any(wanted in text and reason in text for text in (await here.alerts(bus)).get("update_refused", []))

    await wait_for(told, 10, "the operator is alerted")
    before = len(talk.replies)
    await wait_for(lambda: enough(talk, before), 30, "the old version answers on")
    assert here.litter(name) == []


async def enough(talk: Talk, before: int) -> bool:
    return len(talk.since(before)) >= 4


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", BEHAVIOUR)
async def test_a_model_that_misbehaves_never_serves(here: Following, name: str) -> None:
    wrong, reason = BEHAVIOUR[name]
    async with here.bus() as bus:
        async with talking(here, name, count=2, name=name) as talk:
            here.publish("1", name, goldens=TWO, **wrong)
            await here.order(bus, "check")
            await refused(here, name, reason, talk, bus)
        assert faults(talk, await here.turns(bus), ("0",)) == []
        history = (await here.order(bus, "history", name)).history
        assert [change.what for change in history] == ["fetched", "refused"]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", FILES)
async def test_files_that_are_not_what_they_should_be_are_refused_before_anything_loads_them(
    here: Following, name: str
) -> None:
    files, reason = FILES[name]
    async with here.bus() as bus:
        async with talking(here, name, count=2, name=name) as talk:
            signed(here.house, name, "1", files, change=longer if name == "other-hash" else lambda release: release)
            await here.order(bus, "check")
            try:
                await refused(here, name, reason, talk, bus)
            finally:
                withdrawn(here.house, name, "1")
        assert faults(talk, await here.turns(bus), ("0",)) == []
        assert not (here.slot(name) / "releases" / "1").exists()
        assert not (here.slot(name) / "escape.json").exists()


@pytest.mark.timeout(60)
async def test_a_chunk_that_is_not_what_it_is_called_is_not_taken_until_it_is_mended(here: Following) -> None:
    async with here.bus() as bus:
        async with talking(here, "damaged", count=2, name="damaged") as talk:
            release = here.publish("1", "damaged")
            (chunk,) = release.files[0].chunks
            piece = here.house.repository / chunk.path
            whole = piece.read_bytes()
            piece.write_bytes(whole.replace(b"~1", b"~x"))
            await here.order(bus, "check")
            await refused(here, "damaged", chunk.blake3[:12], talk, bus)
            piece.write_bytes(whole)
            assert (await here.order(bus, "unblock", "damaged", version="1")).ok
            await here.settled("1", "damaged")
        assert faults(talk, await here.turns(bus), ("0", "1")) == []


@pytest.mark.timeout(60)
async def test_after_all_that_a_good_version_is_taken_and_the_commands_tell_why_others_were_not(
    here: Following,
) -> None:
    async with here.bus() as bus:
        async with talking(here, "good", count=2, name="good") as talk:
            here.publish("1", "good", goldens=(*TWO, Golden(prompt="now")), load_ms=5)
            await here.order(bus, "check")
            await here.settled("1", "good")
        assert faults(talk, await here.turns(bus), ("0", "1")) == []
        assert await here.dead(bus) == 0
    here.publish("2", "good", goldens=TWO)
    checked = here.cli("update", "check", "good", "--wait", timeout_s=60)
    assert checked.returncode == 1, "a script learns that it was refused"
    assert "golden prompt 'good night'" in checked.stdout + checked.stderr
    shown = here.cli("update", "status")
    (line,) = [line for line in shown.stdout.splitlines() if line.startswith("good ")]
    assert "2 is blocked" in line
    assert "golden prompt 'good night'" in line
    assert json.loads(here.cli("update", "history", "good", "--json").stdout)["blocked"].keys() == {"2"}
