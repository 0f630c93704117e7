"""More models than fit the memory: they take turns, and what cannot fit is refused with figures and harms nobody."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.path.test_live_reload import change, rows, shows
from tests.running import RunningRoost, running


def echo(name: str, size: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "echo", "size": size, **more}


def house(*models: dict[str, Any], memory: str = "1 GB") -> dict[str, Any]:
    return {"models": list(models), "connectors": [{"type": "nats"}], "worker": {"memory": memory}}


async def ask(roost: RunningRoost, nc: Any, text: str, model: str, timeout_s: float = 60) -> dict[str, Any]:
    return await roost.ask(nc, {"text": text, "model": model, "max_tokens": 4, "temperature": 0}, timeout_s=timeout_s)


async def test_models_that_do_not_fit_together_answer_in_turn(tmp_path: Path) -> None:
    with running(tmp_path, house(echo("a", "600 MB"), echo("b", "600 MB"), echo("c", "300 MB"))) as roost:
        nc = await roost.client()
        found = rows(roost)
        assert [found[name]["state"] for name in "abc"] == ["ready", "asleep", "ready"]
        assert found["b"]["reason"].startswith("loaded when it is asked for: needs 0.6 GB: weights 0.6; budget 1.0 GB,")
        assert found["a"]["memory_bytes"] == 600_000_000
        for turn in range(4):
            for name in "ab":
                assert (await ask(roost, nc, f"turn {turn} of {name}", name))["text"] == f"turn {turn} of {name}"
        found = rows(roost)
        assert [found[name]["state"] for name in "ab"] == ["asleep", "ready"]
        events = roost.cli("events", "tail", "--no-follow", "--since", "1h").stdout
        assert events.count("model.a.loaded") + events.count("model.b.loaded") == 8, events
        await nc.close()


async def test_busy_models_share_the_memory_in_turns_and_nobody_is_left_out(tmp_path: Path) -> None:
    models = (echo("a", "600 MB", delay_ms=50, slots=2), echo("b", "600 MB", delay_ms=50, slots=2))
    with running(tmp_path, house(*models)) as roost:
        nc = await roost.client()
        asked = [(f"{name} {i}", name) for i in range(40) for name in "ab"]
        answers = await asyncio.gather(*(ask(roost, nc, text, name) for text, name in asked))
        assert [a.get("text") for a in answers] == [text for text, _ in asked]
        await nc.close()


async def test_what_can_never_fit_is_refused_with_figures_and_fits_after_the_budget_is_raised(tmp_path: Path) -> None:
    models = (echo("small", "300 MB"), echo("huge", "4 GB"))
    figures = "needs 4.0 GB: weights 4.0; budget 1.0 GB, of which 0.3 are in use by small"
    with running(tmp_path, house(*models)) as roost:
        nc = await roost.client()
        shows(roost, "huge", state="failed", reason=figures.split(",")[0])
        assert figures.split(",")[0] in roost.cli("models").stdout
        told = (await ask(roost, nc, "hello", "huge"))["error"]
        assert told["code"] == "no_memory"
        assert told["message"].startswith("huge cannot be loaded: needs 4.0 GB: weights 4.0; budget 1.0 GB")
        assert (await ask(roost, nc, "fine", "small"))["text"] == "fine"
        change(roost, list(models), worker={"memory": "5 GB", "overcommit": False})
        shows(roost, "huge", state="ready", reason="")
        assert (await ask(roost, nc, "hello", "huge"))["text"] == "hello"
        change(roost, list(models), worker={"memory": "1 GB"})
        shows(roost, "huge", state="asleep")
        assert (await ask(roost, nc, "hello", "huge"))["error"]["code"] == "no_memory"
        await nc.close()


async def test_without_room_beside_the_old_one_a_changed_model_is_drained_and_its_requests_wait(tmp_path: Path) -> None:
    model = echo("talk", "600 MB", delay_ms=300, slots=2)
    with running(tmp_path, house(model)) as roost:
        nc = await roost.client()
        asked = [asyncio.create_task(ask(roost, nc, f"n{i}", "talk")) for i in range(20)]
        change(roost, [{**model, "slots": 3}])
        await asyncio.to_thread(shows, roost, "talk", state="ready", slots=3, reason="")
        assert [a.get("text") for a in await asyncio.gather(*asked)] == [f"n{i}" for i in range(20)]
        await nc.close()


@pytest.mark.timeout(300)
async def test_two_real_models_of_which_one_fits_answer_in_turn_in_bounded_memory(
    tmp_path: Path, starter_model: Path
) -> None:
    own = {"type": "llama", "path": str(starter_model), "slots": 2, "context": 512, "size": "220 MB"}
    models = [{"name": name, **own} for name in "ab"]
    with running(tmp_path, house(*models, memory="400 MB")) as roost:
        nc = await roost.client()
        seen: dict[str, set[str]] = {"a": set(), "b": set()}
        resident = []
        for _ in range(4):
            for name in "ab":
                answer = await ask(roost, nc, "Say a word.", name)
                assert "error" not in answer, answer
                seen[name].add(answer["text"])
                states = [row["state"] for row in rows(roost).values()]
                assert sorted(states) == ["asleep", "ready"], rows(roost)
                resident.append(psutil.Process(roost.pid("worker")).memory_info().rss)
        print(json.dumps({"resident": resident}))
        assert len(seen["a"] | seen["b"]) == 1
        assert max(resident) < 1.15 * max(resident[:2])
        await nc.close()
