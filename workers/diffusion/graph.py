"""A small denoiser as a recorded graph: where calling hundreds of operations costs as much as computing them.

torch.compile would want a C++ compiler on the owner's machine, and torch.export calls as slowly; torch.jit.trace is
deprecated and does it, so it is taken where torch still has it. What it records stays until the process ends: so it
records operations alone, gets the weights with each call, and serves every model of the same configuration.
What always holds: the first call of each shape is computed both ways, and a graph that says anything else is not used.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

PARAMETERS_MAX = 16_000_000
"""Larger models compute for so long that nothing is gained."""
SHAPES_MAX = 64
"""More than these are compared anew."""
GRAPHS_MAX = 8
"""So many stay in the process at most; further models are computed plainly."""
CELLS = 8
"""So large is what is recorded with, at most."""
RUNS = 3
"""In the first two of each shape torch looks at the graph and improves it; from the third on it is quick."""
CLOSE = 1e-3
"""Greatest difference from the plain model, in parts of its greatest value."""

_graphs: dict[str, Any] = {}
"""The recorded graphs, by what was recorded."""


def hasten(model: Any) -> None:
    """Put a graph in front of a model of diffusers, if it is small; others stay as they are."""
    import torch

    if not isinstance(model, torch.nn.Module) or not hasattr(torch.jit, "trace"):
        return
    if sum(p.numel() for p in model.parameters()) > PARAMETERS_MAX:
        return
    known = {key: value for key, value in dict(model.config).items() if key[0] != "_"}
    config = json.dumps(known, sort_keys=True, default=str)
    model.forward = _Hastened(model, f"{type(model).__name__} {config}")


class _Hastened:
    """The `forward` of one module, which goes through a graph where it can."""

    def __init__(self, module: torch.nn.Module, name: str) -> None:
        self._module = module
        self._name = name
        self._plain = module.forward
        self._places = [
            (each, key) for each in module.modules() for key, p in each._parameters.items() if p is not None
        ]
        self._good: dict[object, bool] = {}
        """Of each shape, whether the graph says what the module says."""

    def __call__(self, *args: Any, **named: Any) -> Any:
        import torch

        given = {**{str(i): value for i, value in enumerate(args)}, **named}
        tensors = {key: value for key, value in given.items() if torch.is_tensor(value)}
        if any(key not in tensors and not isinstance(value, bool | None) for key, value in given.items()):
            return self._plain(*args, **named)
        call = f"{self._name} {[(key, key in tensors or value) for key, value in given.items()]}"
        shape = (call, tuple((each.shape, each.dtype) for each in tensors.values()))
        good = self._good.get(shape)
        if good is None:
            if len(self._good) >= SHAPES_MAX:
                self._good.clear()
            good = self._good[shape] = self._agrees(call, args, named, list(tensors.values()))
        if not good:
            return self._plain(*args, **named)
        return _graphs[call](*tensors.values(), *self._weights())

    def _weights(self) -> list[torch.Tensor]:
        return [module._parameters[key].detach() for module, key in self._places]

    def _agrees(self, call: str, args: Sequence[Any], named: dict[str, Any], tensors: list[torch.Tensor]) -> bool:
        wanted = _values(self._plain(*args, **named))
        try:
            if call not in _graphs:
                if len(_graphs) >= GRAPHS_MAX:
                    return False
                _graphs[call] = self._recorded(args, named, tensors)
            for _ in range(RUNS):
                got = _values(_graphs[call](*tensors, *self._weights()))
        except RuntimeError as error:  # not this shape, or not with this torch
            log.info("%s is computed without a graph: %s", self._name.partition(" ")[0], error)
            return False
        return len(wanted) == len(got) and all(_close(a, b) for a, b in zip(wanted, got, strict=True))

    def _recorded(self, args: Sequence[Any], named: dict[str, Any], tensors: list[torch.Tensor]) -> Any:
        """The graph of a call: takes its tensors, then the weights."""
        import torch

        def called(*given: torch.Tensor) -> Any:
            own = [module._parameters[key] for module, key in self._places]
            left = iter(given)
            inputs = [next(left) if torch.is_tensor(value) else value for value in args]
            more = {key: next(left) if torch.is_tensor(value) else value for key, value in named.items()}
            try:
                for (module, key), weight in zip(self._places, left, strict=True):
                    module._parameters[key] = weight
                return self._plain(*inputs, **more)
            finally:
                for (module, key), weight in zip(self._places, own, strict=True):
                    module._parameters[key] = weight

        with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            some = tuple(_cropped(each).clone() for each in tensors)
            return torch.jit.trace(called, (*some, *self._weights()), check_trace=False)


def _cropped(tensor: torch.Tensor) -> torch.Tensor:
    """A picture's corner: everything that is computed while a graph is recorded is in memory at once."""
    return tensor[..., :CELLS, :CELLS] if tensor.ndim == 4 else tensor


def _values(found: Any) -> Sequence[torch.Tensor]:
    return found if isinstance(found, tuple) else (found,)


def _close(wanted: torch.Tensor, got: torch.Tensor) -> bool:
    return got.shape == wanted.shape and bool((got - wanted).abs().max() <= CLOSE * wanted.abs().max())
