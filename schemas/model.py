"""Models as the bus sees them: who serves which version, and how full."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from schemas.message import Kind
from schemas.release import Golden

ModelState = Literal["absent", "loading", "ready", "asleep", "failed", "unloading"]
"""`asleep`: not in memory; the next request loads it."""


class ModelStatus(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One model in one worker. In the table MODELS under `<model>.<worker>`."""

    name: str
    type: str
    worker: str
    state: ModelState
    v: int = 1
    version: str = ""
    """First 12 hex digits of the file's SHA-256, or what the backend says; of a release, its version, `+`, and that."""
    candidate: str = ""
    """The version that is loaded beside it and does not serve everybody yet."""
    reason: str = ""
    context: int = 0
    """Tokens that one conversation may hold; 0 where the backend has no such limit."""
    slots: int = 0
    busy: int = 0
    description: str = ""
    kinds: tuple[Kind, ...] = ("chat", "completion")
    """Kinds of requests that it can answer."""
    abilities: tuple[str, ...] = ()
    memory_bytes: int = 0
    """What it takes, by plan; 0 while it is not loaded."""
    load_s: float = 0.0
    """How long loading it took the last time."""
    tokens: int = 0
    """Tokens that it has generated since its worker started."""
    tokens_per_s: float = 0.0
    """Pace of one answer lately; 0 while unknown."""


class WorkerStatus(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One worker process. In the table WORKERS under its id; rewritten every few seconds while it lives."""

    id: str
    host: str
    pid: int
    started_at: float
    seen_at: float
    v: int = 1
    models: tuple[str, ...] = ()
    draining: bool = False


class ModelEvent(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A change of a model's version, on `roost.event.model.<name>.<what>`.

    `swapped` and `rolled_back` come after the link `current` has been changed: whoever serves the model looks at it.
    """

    model: str
    what: Literal[
        "fetching", "staged", "shadow", "canary", "swapped", "settled", "rolled_back", "refused", "loaded", "failed",
        "unloaded",
    ]  # fmt: skip
    at: float
    v: int = 1
    version: str = ""
    previous: str = ""
    reason: str = ""
    site: str = ""
    """The machine and data folder that it happened on."""
    done: int = 0
    """Bytes, while `fetching`."""
    size: int = 0
    until: float = 0.0
    """Unix seconds: of `shadow`, `canary` and `swapped`, the end of the time in which it is watched."""


class ShadowAnswer(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How a version that serves nobody yet answered a copy of a request; on `roost.event.shadow.<name>`.

    Figures only: what was asked and answered is nobody else's business.
    """

    model: str
    version: str
    worker: str
    at: float
    v: int = 1
    ok: bool = True
    text_chars: int = 0
    repeats: float = 0.0
    """Share of the answer that says again what it has said, 0 to 1."""
    alike: float = 0.0
    """How much it resembles the answer that was given, 0 to 1."""
    first_ms: float = 0.0
    token_ms: float = 0.0


class FailedAnswer(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An attempt at a request that failed, and not by its sender's fault; on `roost.event.failure.<name>`.

    TURNS has what was answered; a request that fails is tried again, and each attempt tells of the version.
    """

    model: str
    version: str
    worker: str
    at: float
    v: int = 1
    code: str = ""
    request: str = ""
    attempt: int = 1


class ModelOrder(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What the operator or the updater asks of a worker, on `roost.worker.<id>.models`.

    `prepare`: have a disposable process ready. `stage`: load the files that `link` will name (`path`) beside the lane
    that serves, after a trial in that process; warm it, ask the golden prompts. `share`: let what is staged answer
    `canary` percent of new conversations and copies of `shadow` percent of requests. `look`: serve what the links name
    now. `unstage`: free what is staged. Every one may be given twice.
    """

    do: Literal["reload", "unload", "prepare", "stage", "share", "look", "unstage"]
    v: int = 1
    model: str = ""
    """By default all of them."""
    link: str = ""
    """A path of the configuration, of the model or of one of its adapters."""
    path: str = ""
    """The folder that the link is to name."""
    goldens: tuple[Golden, ...] = ()
    in_place: bool = False
    """Free the lane that serves first; requests wait meanwhile."""
    trial: bool = True
    """Load it in a disposable process first; not needed for what has served here before."""
    canary: int = 0
    shadow: int = 0


class GoldenAnswer(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a staged model answered to one golden prompt."""

    text: str = ""
    finish: str = ""
    dimensions: int = 0
    palette: tuple[str, ...] = ()
    """Of a picture: its colours, `#rrggbb`, each on a hundredth of it at least."""
    error: str = ""
    seconds: float = 0.0


class ModelTold(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How an order went for one model in one worker; the answer to a `ModelOrder` is a list of these."""

    model: str
    worker: str
    text: str
    ok: bool = True
    v: int = 1
    code: str = ""
    """Why not: `no_memory` (with figures in `text`), `bad_model` (it is the release's fault), `unavailable` (later may
    work)."""
    version: str = ""
    """Of `stage`: what is staged; of `look`: what serves."""
    answers: tuple[GoldenAnswer, ...] = ()
    """In the order of the golden prompts."""
    seconds: dict[str, float] = {}
    """Stages (`trial`, `load`, `warm`, `golden`) and how long each took."""
