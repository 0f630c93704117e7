"""The training loop of every stage: two processes of one thread each, gradients averaged, so many steps or seconds.

One thread per process keeps its pace beside other work, where one process of two threads waits at every barrier.
Time is that of the processors, so that a busy machine makes a run longer and not worse.
Always holds: a stage that was killed goes on from its last checkpoint (at most CHECKPOINT_S old) and keeps its budget.
"""

import contextlib
import copy
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from workers.diffusion.doodler import muon
from workers.diffusion.doodler.log import note
from workers.diffusion.precision import has_bfloat16

CHECKPOINT_S = 90.0
EMA_STEPS = 300

Loss = Callable[[torch.Generator, float], dict[str, Tensor]]
"""The terms of the loss of one batch; the second argument is the share of the stage that is done."""


@dataclass(frozen=True)
class Stage:
    """One stage: its steps, the most seconds of each processor, learning rates, samples a step and process."""

    name: str
    steps: int
    seconds: float
    lr: float
    """Of AdamW."""
    batch: int
    muon_lr: float = 0.0
    """Of Muon, which then trains the inner layers; 0: AdamW trains all."""
    ema: bool = False
    seed: int = 0

    def done(self, step: int, elapsed: float) -> float:
        """The share that is done, 1 at the end; the learning rate falls with it."""
        return max(step / self.steps, elapsed / self.seconds)


@contextlib.contextmanager
def quick() -> Iterator[None]:
    """In bfloat16 where the processor multiplies it by itself; elsewhere that would take ten times as long.

    There, the plain attention is twice as quick as the fused one in the backward pass of so few tokens.
    """
    if has_bfloat16():
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            yield
    else:
        yield


def train(rank: int, world: int, stage: Stage, module: nn.Module, loss: Loss, folder: Path) -> None:
    """Train `module` in place; the averaged weights are in it at the end, and in FOLDER/STAGE.pt."""
    path = folder / f"{stage.name}.pt"
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizers = _optimizers(rank, world, stage, module, parameters)
    mean = copy.deepcopy(module) if stage.ema else module
    step, before = 0, 0.0
    if path.exists():
        saved = torch.load(path, weights_only=True)
        module.load_state_dict(saved["module"])
        mean.load_state_dict(saved["mean"])
        for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        step, before = int(saved["step"]), float(saved["elapsed"])
    rng = torch.Generator().manual_seed(stage.seed * 1000 + rank + 10 * step)
    start, saved_at = time.process_time(), time.monotonic()
    noted_at = saved_at
    noted_step, elapsed, parent = step, before, torch.multiprocessing.parent_process()
    while (done := stage.done(step, elapsed)) < 1:
        share = min(1.0, (step + 1) / 50) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
        for optimizer, lr in zip(optimizers, (stage.lr, stage.muon_lr), strict=False):
            optimizer.param_groups[0]["lr"] = lr * share
        if parent is not None and not parent.is_alive():
            raise SystemExit("the training run that started this process is gone")
        terms = loss(rng, done)
        torch.stack(list(terms.values())).sum().backward()
        elapsed = _average(parameters, before + time.process_time() - start, world)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)
        step += 1
        if stage.ema:
            _follow(mean, module, min(1 - 1 / EMA_STEPS, step / (step + 9)))
        now = time.monotonic()
        if rank == 0 and now - noted_at > 10:
            rate = stage.batch * world * (step - noted_step) / (now - noted_at)
            note(folder, stage=stage.name, step=step, processor_s=round(elapsed, 1), samples_per_s=round(rate, 1),
                 **{k: round(float(v.detach()), 5) for k, v in terms.items()})  # fmt: skip
            noted_at, noted_step = now, step
        if rank == 0 and now - saved_at > CHECKPOINT_S:
            _save(path, module, mean, optimizers, step, elapsed)
            saved_at = now
    if rank == 0:
        _save(path, module, mean, optimizers, step, elapsed)
    module.load_state_dict(mean.state_dict())


def _optimizers(
    rank: int, world: int, stage: Stage, module: nn.Module, parameters: list[nn.Parameter]
) -> list[torch.optim.Optimizer]:
    inner = muon.inside(module) if stage.muon_lr else []
    ids = {id(p) for p in inner}
    rest = [p for p in parameters if id(p) not in ids]
    adam = torch.optim.AdamW(rest, lr=stage.lr, weight_decay=0.01, betas=(0.9, 0.99), fused=True)
    return [adam, muon.Muon(inner, stage.muon_lr, rank=rank, world=world)] if inner else [adam]


def finished(path: Path, steps: int, seconds: float) -> bool:
    """Whether the stage of this checkpoint has had its steps or its time."""
    if not path.exists():
        return False
    saved = torch.load(path, weights_only=True, mmap=True)
    return bool(saved["step"] >= steps or saved["elapsed"] >= seconds)


def load(module: nn.Module, path: Path) -> nn.Module:
    """The module with the averaged weights of a checkpoint."""
    module.load_state_dict(torch.load(path, weights_only=True)["mean"])
    return module.eval()


def _average(parameters: list[nn.Parameter], elapsed: float, world: int) -> float:
    flat = torch.cat([p.grad.reshape(-1) for p in parameters if p.grad is not None] + [torch.tensor([elapsed])])
    if world > 1:
        torch.distributed.all_reduce(flat)
        flat /= world
        at = 0
        for p in parameters:
            if p.grad is not None:
                p.grad.copy_(flat[at : at + p.numel()].view_as(p))
                at += p.numel()
    return float(flat[-1])


@torch.no_grad()
def _follow(mean: nn.Module, module: nn.Module, decay: float) -> None:
    torch._foreach_lerp_(list(mean.parameters()), list(module.parameters()), 1 - decay)


def _save(path: Path, module: nn.Module, mean: nn.Module, optimizers: list[Any], step: int, elapsed: float) -> None:
    state = {"module": module.state_dict(), "mean": mean.state_dict(), "step": step, "elapsed": elapsed,
             "optimizers": [optimizer.state_dict() for optimizer in optimizers]}  # fmt: skip
    torch.save(state, path.with_suffix(".draft"))
    os.replace(path.with_suffix(".draft"), path)


def _entry(rank: int, world: int, meeting: str, job: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
    job(rank, world, *arguments)


def together(job: Callable[..., None], folder: Path, world: int, *arguments: Any) -> None:
    """Run `job(rank, world, *arguments)` in `world` processes of one thread, and wait for them; one runs right here."""
    if world == 1:
        job(0, 1, *arguments)
        return
    meeting = folder / f".meeting-{os.getpid()}-{time.monotonic_ns()}"
    torch.multiprocessing.spawn(_entry, (world, str(meeting), job, arguments), nprocs=world)
    meeting.unlink(missing_ok=True)
