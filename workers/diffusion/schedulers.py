"""Schedulers by short names: which ones a model can use, and a fresh one for each round.

What always holds: a scheduler that is offered is one that diffusers calls compatible with the folder's own, made from
the folder's own configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.errors import ConfigError, Rejected
from workers.diffusion.threads import apart

NAMES: Mapping[str, str] = {
    "ddim": "DDIMScheduler",
    "ddpm": "DDPMScheduler",
    "pndm": "PNDMScheduler",
    "lms": "LMSDiscreteScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler_a": "EulerAncestralDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "dpm2": "KDPM2DiscreteScheduler",
    "dpm2_a": "KDPM2AncestralDiscreteScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "dpm++_single": "DPMSolverSinglestepScheduler",
    "deis": "DEISMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
    "lcm": "LCMScheduler",
    "tcd": "TCDScheduler",
    "flow_euler": "FlowMatchEulerDiscreteScheduler",
    "flow_heun": "FlowMatchHeunDiscreteScheduler",
}
"""What requests and settings say, and what diffusers calls it."""
KARRAS = ("lcm", "tcd")
"""Made for the same models as the others, and not in diffusers' list of compatible ones."""


class Schedulers:
    """Those of one model."""

    def __init__(self, own: Any, chosen: str = "") -> None:
        """`own`: the folder's; `chosen`: the one that the settings name. Raises `ConfigError`."""
        import diffusers

        self._config = own.config
        fits = {kind.__name__: kind for kind in (*own.compatibles, type(own))}
        if "DDIMScheduler" in fits:
            fits |= {NAMES[name]: getattr(diffusers, NAMES[name]) for name in KARRAS}
        self._kinds = {name: fits[kind] for name, kind in NAMES.items() if kind in fits and _works(fits[kind])}
        self.own = next((name for name, kind in self._kinds.items() if kind is type(own)), type(own).__name__)
        self._kinds.setdefault(self.own, type(own))
        if chosen and chosen not in self._kinds:
            raise ConfigError(f"scheduler: this model has no {chosen!r}; it has: {self.known}")
        self.default = chosen or self.own

    @property
    def known(self) -> str:
        return ", ".join(sorted(self._kinds))

    def named(self, name: str) -> str:
        """The name of the one that a request means; raises `Rejected`."""
        if name and name not in self._kinds:
            raise Rejected(f"scheduler: this model has no {name[:80]!r}; it has: {self.known}", code="bad_value")
        return name or self.default

    def made(self, name: str) -> Any:
        """A new one: it holds the state of one round."""
        return self._kinds[name].from_config(self._config)

    def check_steps(self, name: str, steps: int) -> None:
        """Raises `Rejected` where it cannot take so many steps. For any thread."""
        apart(lambda: self._check_steps(name, steps))

    def _check_steps(self, name: str, steps: int) -> None:
        scheduler = self.made(name)
        if scheduler.config.get("use_dynamic_shifting"):
            return  # depends on the size, too, and takes any number
        try:
            scheduler.set_timesteps(steps)
        except (ValueError, IndexError, ZeroDivisionError, RuntimeError) as error:
            raise Rejected(f"steps: the scheduler {name} cannot take {steps}: {error}", code="bad_value") from None


def _works(kind: Any) -> bool:
    """Of one that needs a package that is not there, diffusers has a stand-in."""
    return not hasattr(kind, "_backends")
