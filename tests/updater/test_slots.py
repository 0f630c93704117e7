"""Which slots a configuration has."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.config import AdapterConfig, Config, ModelConfig
from schemas.errors import ConfigError
from schemas.update import RolloutConfig
from updater.slots import slots_of


def model(name: str, path: str = "", lora: tuple[str, ...] = (), **rollout: Any) -> ModelConfig:
    adapters = tuple(AdapterConfig(path=one) for one in lora)
    return ModelConfig(name=name, type="llama", path=path, lora=adapters, rollout=RolloutConfig(**rollout))


def found(*models: ModelConfig) -> dict[str, Any]:
    return slots_of(Config(models=models))


def test_only_paths_that_end_in_current_in_a_folder_with_a_safe_name_are_slots() -> None:
    slots = found(
        model("a", "/m/talk/current"),
        model("b", "/m/talk/releases/1"),
        model("c", "/m/Big Model/current"),
        model("d"),
        model("e", "/m/x/current/model.gguf"),
    )
    assert list(slots) == ["talk"]
    assert slots["talk"].link == "/m/talk/current"
    assert slots["talk"].models == ("a",)


def test_a_slot_knows_all_models_that_use_it_by_path_or_adapter_each_once() -> None:
    slots = found(
        model("a", "/m/talk/current", lora=("/m/tone/current", "/m/tone/current")),
        model("b", "/m/talk/current"),
        model("c", "/m/other.gguf", lora=("/m/tone/current",)),
    )
    assert slots["talk"].models == ("a", "b")
    assert slots["tone"].models == ("a", "c")


def test_two_folders_of_one_name_are_refused_with_both_places() -> None:
    with pytest.raises(ConfigError, match=r"models\[1\] \(b\).*/n/talk.*/m/talk"):
        found(model("a", "/m/talk/current"), model("b", "/n/talk/current"))


def test_of_several_rollouts_the_most_careful_counts() -> None:
    slots = found(
        model("a", "/m/talk/current", auto=True, canary=5, in_place=True, watch_s=60, slower=3.0, running="requeue"),
        model("b", "/m/talk/current", auto=False, shadow=10, in_place=False, watch_s=600, slower=1.5),
    )
    rollout = slots["talk"].rollout
    assert (rollout.auto, rollout.in_place, rollout.running) == (False, False, "finish")
    assert (rollout.shadow, rollout.canary, rollout.watch_s, rollout.slower) == (10, 5, 600, 1.5)
