"""What counts as work for a machine."""

from __future__ import annotations

from typing import Any

from ops.load import load_of
from schemas.model import ModelStatus, WorkerStatus


def model(worker: str, **more: Any) -> ModelStatus:
    return ModelStatus(name="m", type="echo", worker=worker, state="ready", **more)


def worker(id: str, host: str) -> WorkerStatus:
    return WorkerStatus(id=id, host=host, pid=1, started_at=0, seen_at=0)


WORKERS = [worker("here-0", "here.lan"), worker("there-0", "there")]


def test_an_empty_queue_is_no_work_whatever_late_rows_say() -> None:
    assert not load_of(0, [model("here-0", busy=3)], WORKERS, "here-lan").working


def test_what_nobody_has_begun_is_everybodys_work() -> None:
    for host in ("here-lan", "there"):
        assert load_of(1, [model("here-0"), model("there-0")], WORKERS, host).queued == 1


def test_what_runs_elsewhere_is_not_this_machines_work() -> None:
    models = [model("here-0"), model("there-0", busy=2)]
    assert not load_of(2, models, WORKERS, "here-lan").working
    assert load_of(2, models, WORKERS, "there").running == 2
    assert load_of(3, models, WORKERS, "here-lan").queued == 1


def test_tokens_are_those_of_this_machine() -> None:
    found = load_of(0, [model("here-0", tokens=7), model("there-0", tokens=9)], WORKERS, "here-lan")
    assert found.tokens == {"m.here-0": 7}
