"""Muon (Jordan et al. 2024): momentum whose matrices are made orthogonal, so that every direction of a layer learns.

In the same time it gets further than AdamW, which matters most where steps are few. torch.optim.Muon does the same for
linear layers only, and multiplies in bfloat16, which takes eight times as long where a processor lacks it.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
ROUNDS = 5
QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of the iteration: singular values between 0 and 1 come to lie between about 0.7 and 1.2 (Jordan)."""
LIKE_ADAM = 0.2
"""Root mean square of an update over the learning rate, about that of AdamW (Liu et al. 2025)."""
SIDE_MIN = 48
"""Smaller matrices read the data or speak to it, and are AdamW's."""


def inside(module: nn.Module) -> list[nn.Parameter]:
    """The weights of a module's inner linear and convolutional layers that are to be trained: what Muon is for."""
    found = []
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d) and part.weight.requires_grad:
            rows = part.weight.shape[0]
            if min(rows, part.weight.numel() // rows) >= SIDE_MIN:
                found.append(part.weight)
    return found


def orthogonal(matrix: Tensor) -> Tensor:
    """The nearest matrix whose singular values are all about 1, by Newton and Schulz's iteration."""
    a, b, c = QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    same = torch.eye(len(x))
    square, whole = x @ x.T, same
    for _ in range(ROUNDS):  # on the smaller side alone: every step commutes with the square
        step = a * same + b * square + c * (square @ square)
        square, whole = step @ square @ step, step @ whole
    x = whole @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov's momentum, made orthogonal. Of `world` processes with the same gradients each does its part of that."""

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.01, rank: int = 0, world: int = 1
    ) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})
        self._rank, self._world = rank, world

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        assert closure is None
        for group in self.param_groups:
            parameters: list[nn.Parameter] = sorted(group["params"], key=Tensor.numel)
            updates = torch.zeros(sum(p.numel() for p in parameters))
            parts = updates.split([p.numel() for p in parameters])
            for i, (p, part) in enumerate(zip(parameters, parts, strict=True)):
                assert p.grad is not None
                momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                momentum.lerp_(p.grad, 1 - MOMENTUM)
                if i % self._world == self._rank:
                    matrix = p.grad.lerp(momentum, MOMENTUM).flatten(1)
                    size = LIKE_ADAM * math.sqrt(max(matrix.shape))
                    part.copy_((size * orthogonal(matrix)).reshape(-1))
            if self._world > 1:
                torch.distributed.all_reduce(updates)
            for p, part in zip(parameters, parts, strict=True):
                p.mul_(1 - group["lr"] * group["weight_decay"]).add_(part.view(p.shape), alpha=-group["lr"])
