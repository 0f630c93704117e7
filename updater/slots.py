"""Which slots a configuration has, and how their models want to be updated. Pure.

A slot is a folder `…/<name>/` that a model, or one of its LoRA adapters, names as `…/<name>/current`. Several models
may use one; the most careful wish of all of them counts.
"""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from schemas.config import Config, ModelConfig
from schemas.errors import ConfigError
from schemas.strict import NAME
from schemas.update import RolloutConfig

LINK = "current"


class Slot(Struct, frozen=True, kw_only=True):
    """One folder of releases, and who uses it."""

    name: str
    folder: Path
    models: tuple[str, ...]
    """Configured models that use it, in the order of the file."""
    rollout: RolloutConfig = RolloutConfig()

    @property
    def link(self) -> str:
        """As the configuration names it."""
        return str(self.folder / LINK)


def slots_of(config: Config) -> dict[str, Slot]:
    """The slots by name; raises `ConfigError` where two folders have the same."""
    found: dict[str, Slot] = {}
    rollouts: dict[str, list[RolloutConfig]] = {}
    for i, model in enumerate(config.models):
        for folder in _folders(model):
            slot = found.setdefault(folder.name, Slot(name=folder.name, folder=folder, models=()))
            if slot.folder != folder:
                raise ConfigError(
                    f"models[{i}] ({model.name}): the slots {folder} and {slot.folder} share a name, and a source has "
                    "one model of a name, so rename one of the folders"
                )
            found[folder.name] = Slot(name=slot.name, folder=folder, models=(*slot.models, model.name))
            rollouts.setdefault(folder.name, []).append(model.rollout)
    return {
        name: Slot(name=name, folder=slot.folder, models=slot.models, rollout=careful(rollouts[name]))
        for name, slot in found.items()
    }


def _folders(model: ModelConfig) -> list[Path]:
    """Folders of slots that a model uses, each once."""
    paths = [Path(path) for path in (model.path, *(adapter.path for adapter in model.lora)) if path]
    return list(dict.fromkeys(p.parent for p in paths if p.name == LINK and NAME.fullmatch(p.parent.name)))


def careful(rollouts: list[RolloutConfig]) -> RolloutConfig:
    """One rollout for all: what any wants to see tried or watched is; what all permit is done unasked."""
    return RolloutConfig(
        auto=all(one.auto for one in rollouts),
        in_place=all(one.in_place for one in rollouts),
        running="finish" if any(one.running == "finish" for one in rollouts) else "requeue",
        shadow=max(one.shadow for one in rollouts),
        canary=max(one.canary for one in rollouts),
        trial_s=max(one.trial_s for one in rollouts),
        watch_s=max(one.watch_s for one in rollouts),
        answers_min=max(one.answers_min for one in rollouts),
        errors_more=min(one.errors_more for one in rollouts),
        empty_more=min(one.empty_more for one in rollouts),
        repeated_more=min(one.repeated_more for one in rollouts),
        slower=min(one.slower for one in rollouts),
    )
