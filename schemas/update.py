"""Updates: how new versions of models are to be taken into use, and what the updater tells of it."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from schemas.strict import Size, Strict

Percent = Annotated[int, Meta(ge=0, le=100)]

Phase = Literal[
    "idle", "fetching", "staged", "loading", "shadow", "canary", "switching", "watching", "rolling_back", "failed"
]
"""`staged`: on disk, verified, waiting for the operator, a worker or memory; `loading`: beside the running version,
with trial and golden prompts; `watching`: it serves, and is compared with the version before it."""


class UpdatesConfig(Strict, frozen=True):
    """Where releases come from, and limits of fetching and keeping them."""

    source: str
    """A folder, `https://…` (or `http://` on loopback) of a repository, or `bus`: the object store RELEASES."""
    root: str
    """The publisher's root metadata (`root.json`), given to you on a way that you trust."""
    check_every_s: float = 3_600.0
    connections: Annotated[int, Meta(ge=1, le=32)] = 4
    """Chunks fetched at once."""
    rate: Size | None = None
    """Bytes a second; by default as fast as they come."""
    release_bytes_max: Size = "200 GB"
    """A larger release is refused before anything of it is fetched."""
    free_bytes_min: Size = "1 GB"
    """Space that must be left on the disk."""
    timeout_s: float = 30.0
    """A source that sends nothing for this long is taken for gone."""
    keep: Annotated[int, Meta(ge=0, le=100)] = 1
    """Releases kept beside the current one and the one before it."""
    load_s: float = 600.0
    """For how long a worker may try, load and warm a release."""


class RolloutConfig(Strict, frozen=True):
    """One model's way to a new version."""

    auto: bool = True
    """Take a release into use when it has been fetched and checked; otherwise `roost update apply NAME` does."""
    in_place: bool = False
    """Where two versions do not fit in memory, free the old one first; requests wait in the queue meanwhile."""
    running: Literal["finish", "requeue"] = "finish"
    """At the switch, answers under way end on the old version, or begin anew on the new one if nothing was sent yet."""
    shadow: Percent = 0
    """Share of live requests that the new version answers too, unseen, before it serves anybody."""
    canary: Percent = 0
    """Share of new conversations that the new version gets before it gets all."""
    trial_s: float = 300.0
    """How long shadow and canary last, each."""
    watch_s: float = 600.0
    """For how long after the switch the new version is compared with the old one."""
    answers_min: int = 20
    """Answers of the new version before it is judged."""
    errors_more: float = 0.05
    """Failed answers: by this share more than before, and it is rolled back."""
    empty_more: float = 0.05
    repeated_more: float = 0.05
    """Answers that say the same over and over."""
    slower: float = 2.0
    """Median time to the first token, or for each further one: this many times as long, and it is rolled back."""


class UpdateStatus(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One model on one machine. In the table UPDATES under `<name>.<site>`, where `name` is the slots' folder."""

    name: str
    site: str
    """The machine and data folder whose updater this is; ids of its workers begin with it."""
    phase: Phase
    at: float
    v: int = 1
    current: str = ""
    """The version that serves; empty where it is none of the updater's."""
    version: str = ""
    """The one at work, while `phase` is not `idle`."""
    newest: str = ""
    """The newest that the source has."""
    pinned: str = ""
    done: int = 0
    """Bytes of it that are on the disk."""
    size: int = 0
    fetched: int = 0
    """Bytes of it that had to be fetched; the rest was on this machine."""
    per_s: float = 0.0
    until: float = 0.0
    """Unix seconds; when the phase ends by itself."""
    reason: str = ""
    models: tuple[str, ...] = ()
    """Configured models that use it."""


class Change(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One line of a model's history."""

    at: float
    what: Literal["fetched", "swapped", "rolled_back", "refused", "pinned", "unpinned", "settled"]
    version: str = ""
    previous: str = ""
    reason: str = ""
    by: str = "updater"
    seconds: dict[str, float] = {}
    """Stages of it and how long each took."""
    fetched: int = 0
    """Bytes."""


class UpdateOrder(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What the operator (or `ops`, with the reason) asks of one machine's updater, on `roost.updater.<site>`."""

    do: Literal["check", "apply", "rollback", "pin", "unpin", "unblock", "history", "status"]
    v: int = 1
    name: str = ""
    """By default all, where that makes sense."""
    version: str = ""
    reason: str = ""
    by: str = "operator"


class UpdateTold(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How an order went."""

    ok: bool = True
    v: int = 1
    text: str = ""
    rows: tuple[UpdateStatus, ...] = ()
    history: tuple[Change, ...] = ()
    blocked: dict[str, str] = {}
    """Versions that must not serve here, with the reasons."""
    versions: tuple[str, ...] = ()
    """Of `history`: what lies on the disk."""


class ReleasePublished(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A hint that the source has something new, on `roost.event.release.published`. Nothing in it is trusted."""

    name: str
    at: float
    v: int = 1
    version: str = ""
