"""What a machine has and what a model will take, as the workers' own programs print it and `roost doctor` reads it."""

from __future__ import annotations

import hashlib
from typing import Literal

from msgspec import Struct

from schemas.config import ModelConfig, WorkerConfig

Vendor = Literal["nvidia", "amd", "intel", "apple"]


class Node(Struct, frozen=True):
    """One NUMA node: its logical processors and memory."""

    id: int
    cpus: tuple[int, ...]
    memory_bytes: int = 0


class Cpu(Struct, frozen=True, kw_only=True):
    """`logical` and `physical` count the whole machine; `cores` are the physical ones that this process may use."""

    model: str = ""
    architecture: str = ""
    features: tuple[str, ...] = ()
    logical: int = 0
    physical: int = 0
    performance: int = 0
    """Physical performance cores; 0 where all cores are of one kind."""
    efficiency: int = 0
    allowed: int = 0
    """Logical processors that the affinity of this process allows."""
    quota: float = 0.0
    """Processors' worth of time that a cgroup allows; 0 without a limit."""
    nodes: tuple[Node, ...] = ()
    cores: tuple[tuple[int, ...], ...] = ()
    """Logical processors of each allowed physical core, performance cores first."""
    fast: int = 0
    """How many of `cores` are as fast as the fastest kind among them."""

    @property
    def threads(self) -> int:
        """Threads that compute best: one for each fast core of the largest node, within the quota.

        All of them wait for each other some hundred times a step, so that a slower one, or a wait for another node's
        memory, is paid by all.
        """
        fast = self.cores[: self.fast]
        biggest = max((sum(any(c in node.cpus for c in core) for core in fast) for node in self.nodes), default=0)
        count = biggest or len(fast) or self.allowed or 1
        return max(min(count, int(self.quota + 0.5)) if self.quota else count, 1)


class Limit(Struct, frozen=True):
    """A limit of memory in bytes, what counts towards it already, and who set it."""

    name: str
    bytes: int
    used: int


class Memory(Struct, frozen=True, kw_only=True):
    """Memory of the machine and the limits of this process, in bytes."""

    total: int
    available: int
    swap_total: int = 0
    swap_free: int = 0
    limits: tuple[Limit, ...] = ()

    @property
    def whole(self) -> int:
        """What this process could have if nothing else ran."""
        return min([self.total, *(limit.bytes for limit in self.limits)])

    @property
    def free(self) -> int:
        """What it can take now without swapping or meeting a limit."""
        return max(min([self.available, *(limit.bytes - limit.used for limit in self.limits)]), 0)


class Gpu(Struct, frozen=True, kw_only=True):
    """One card. `driver`: the kernel's driver is there and its device node too, so that a program could use it."""

    vendor: Vendor
    name: str
    place: str = ""
    """PCI address, or empty."""
    driver: bool
    memory_bytes: int = 0
    """Its own memory where the system tells it, else 0."""


class Machine(Struct, frozen=True, kw_only=True):
    """Processor, memory and graphics cards."""

    cpu: Cpu
    memory: Memory
    gpus: tuple[Gpu, ...] = ()


class Device(Struct, frozen=True, kw_only=True):
    """One device that llama.cpp can compute on. `name` is what `models[].devices` calls it: `cpu`, `cuda:0`."""

    name: str
    own_name: str
    """llama.cpp's own name, `CUDA0`."""
    kind: Literal["cpu", "gpu", "igpu", "accel", "meta"]
    description: str
    total: int
    free: int


class Build(Struct, frozen=True, kw_only=True):
    """The installed llama.cpp. `digest` changes with anything here but the free memory of devices."""

    version: str
    commit: str = ""
    instructions: tuple[str, ...] = ()
    repack: bool = True
    backends: tuple[str, ...] = ()
    devices: tuple[Device, ...] = ()
    vector_bytes: int = 0
    """Of ARM's SVE registers; 0 without."""

    @property
    def digest(self) -> str:
        told = (self.version, self.commit, self.instructions, self.repack, [d.description for d in self.devices])
        return hashlib.sha256(repr(told).encode()).hexdigest()[:12]

    @property
    def gpus(self) -> tuple[Device, ...]:
        return tuple(device for device in self.devices if device.kind in ("gpu", "igpu"))


class DemandAsked(Struct, frozen=True):
    """What `python -m workers.host.demand` reads."""

    models: tuple[ModelConfig, ...]
    worker: WorkerConfig = WorkerConfig()


class ModelDemand(Struct, frozen=True, kw_only=True):
    """One line of what it prints. `limit`: bytes it may take; `error`: why nothing can be told."""

    name: str
    type: str
    limit: int = 0
    weights: int = 0
    mapped: int = 0
    state: int = 0
    compute: int = 0
    total: int = 0
    least: int = 0
    what: str = ""
    error: str = ""
