"""Lines of the model picker, without a browser."""

from __future__ import annotations

from msgspec.structs import replace

from connectors.web.models import models, update
from schemas.model import ModelStatus
from schemas.update import UpdateStatus

ROW = UpdateStatus(
    name="slots",
    site="host-abcdef",
    phase="fetching",
    at=1.0,
    current="1.3.0",
    version="1.4.0",
    models=("fast", "slow"),
)


def test_of_several_machines_the_one_that_is_furthest_is_told() -> None:
    rows = [
        replace(ROW, site="a"),
        replace(ROW, site="b", phase="watching", current="1.4.0"),
        replace(ROW, site="c", phase="idle"),
        replace(ROW, site="d", models=("other",), phase="failed"),
    ]
    found = update("fast", rows)
    assert found is not None
    assert (found.phase, found.name, found.version) == ("watching", "slots", "1.4.0")
    assert update("fast", rows[2:]) is None
    assert update("nobody", rows) is None


def test_models_that_share_slots_tell_of_the_same_update() -> None:
    rows = [ModelStatus(name=name, type="llama", worker="w", state="ready") for name in ("fast", "slow", "other")]
    found = {model.name: model.update for model in models(rows, "fast", [ROW])}
    assert found["fast"] == found["slow"] is not None
    assert found["other"] is None
    idle = replace(ROW, phase="idle")
    assert models(rows, "fast", [idle])[0].update is None
    assert models(rows, "fast", [replace(idle, reason="worse")])[0].update is not None
