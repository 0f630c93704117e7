"""The slot of one model on this disk: a folder with `releases/<version>/`, and the links `current` and `standby`.

Blocking: callers use a thread. What always holds, wherever the process is killed: `current` names the old release or
the new one; what has the name `releases/<version>` and a RELEASE.json is whole and on the disk; the rest has a name
that `sweep` knows. Folders without RELEASE.json are the operator's: they are counted as installed, and never changed.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from schemas.errors import ConfigError, Retryable, Untrusted
from schemas.release import RELEASE_FILE, VERSION, Release, check_release
from updater.disk import linked, on_disk, sync_folder, written
from updater.state import Installed, SlotState, rebuilt
from updater.tree import filled, remove, size, sync_whole, weed

log = logging.getLogger(__name__)

Link = Literal["current", "standby"]
LINKS: tuple[Link, ...] = ("current", "standby")
STATE = "updates.json"
LOCK = ".lock"
INCOMING = ".incoming-"
REMOVED = ".removed-"
LOCKED_AFTER_S = 10.0


class Store:
    """One slot. Only who holds `lock` may change it; reading needs no lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.releases = folder / "releases"
        self._known: dict[str, tuple[tuple[int, ...], Release | None]] = {}

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other updaters out, until the block or this process ends; raises `Retryable` when one is at work."""
        with on_disk(self.folder):
            if not self.releases.is_dir():
                self.releases.mkdir(parents=True, exist_ok=True)
                sync_folder(self.folder)
                sync_folder(self.folder.parent)
            handle = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                who = os.pread(handle, 32, 0).decode("ascii", "replace").strip()
                raise Retryable(
                    f"{self.folder}: another updater (process {who or 'unknown'}) is at work there; stop it, "
                    "or give each Roost a models folder of its own",
                    after_s=LOCKED_AFTER_S,
                    code="locked",
                ) from None
            with on_disk(self.folder):
                os.ftruncate(handle, 0)
                os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(handle)

    def current(self) -> str:
        """The version that serves; empty where there is no link, or one to a release that is gone.

        Raises `ConfigError` when it is a file or folder, or points elsewhere than to `releases/<version>`.
        """
        return self._named("current")

    def standby(self) -> str:
        """The version beside it, likewise."""
        return self._named("standby")

    def installed(self) -> list[str]:
        """Versions that are whole on the disk, the operator's too; the oldest first, by sequence, then by time."""
        with on_disk(self.releases):
            if not self.releases.is_dir():
                return []
            found = [name for name in os.listdir(self.releases) if VERSION.fullmatch(name)]
            return sorted((version for version in found if filled(self.path(version))), key=self._age)

    def release(self, version: str) -> Release | None:
        """What an installed release says of itself; None for the operator's folders."""
        file = self.path(version) / RELEASE_FILE
        try:
            stat = file.stat()
        except OSError:
            return None
        mark = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        known = self._known.get(version)
        if known is None or known[0] != mark:
            known = self._known[version] = (mark, _read_release(file, version))
        return known[1]

    def path(self, version: str) -> Path:
        """The folder of an installed release."""
        return self.releases / version

    def incoming(self, release: Release) -> Path:
        """The folder in which `release` may grow, with nothing in it but beginnings of its files.

        Raises `ConfigError` where the operator has a folder of that name, and `Untrusted` where that version is
        installed with other files.
        """
        self._vacant(release)
        folder = self._incoming(release.version)
        with on_disk(folder):
            folder.mkdir(parents=True, exist_ok=True)
            weed(folder, {file.path for file in release.files})
            for file in release.files:
                (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
        return folder

    def finish(self, release: Release) -> Path:
        """Turn the incoming folder, in which all files are complete and verified, into an installed release.

        Raises `Untrusted` when a file is not there in its size, and what `incoming` raises.
        """
        target, folder = self.path(release.version), self._incoming(release.version)
        if self.release(release.version) == release and not folder.exists():
            return target
        self._vacant(release)
        with on_disk(folder):
            for file in release.files:
                sync_whole(folder / file.path, file.size)
            for place, _, _ in os.walk(folder, topdown=False):
                sync_folder(Path(place))
            written(folder / RELEASE_FILE, msgspec.json.encode(release))
            folder.rename(target)
            sync_folder(self.releases)
        return target

    def point(self, link: Link, version: str) -> None:
        """Let a link name an installed release: atomically, and on the disk when this returns.

        Raises `Retryable` when files of that release are gone, and `ConfigError` where `current` is no link of ours.
        """
        if not self.whole(version):
            raise Retryable(f"{self.path(version)} is not whole; it must be fetched again", code="not_installed")
        with on_disk(self.folder):
            if self._named(link) == version:
                sync_folder(self.folder)
            else:
                linked(self.folder / link, f"{self.releases.name}/{version}")

    def whole(self, version: str) -> bool:
        """All files of the release are there in their sizes; of an operator's folder: there is something."""
        folder, release = self.path(version), self.release(version)
        if release is None:
            return filled(folder)
        return all(size(folder / file.path) == file.size for file in release.files)

    def sweep(self, keep: int, spare: set[str]) -> list[str]:
        """Remove what a kill left behind, and old releases but the newest `keep`; returns the versions removed.

        Never removed: current, standby, pinned, both versions of the swap under way, those that `spare` names, and the
        operator's folders. An `.incoming-` folder stays only for the swap's version and for those that `spare` names.
        """
        state = self.load()
        coming = spare | ({state.swap.version} if state.swap else set())
        held = {self.current(), self.standby(), state.pinned, *coming, *([state.swap.previous] if state.swap else ())}
        ours = [version for version in self.installed() if self._made(version)]
        old = sorted((v for v in ours if v not in held), key=lambda v: v not in state.blocked)
        removed = old[: max(0, len(old) - keep)]
        with on_disk(self.folder):
            for name in (f".{STATE}.new", *(f".{link}.new" for link in LINKS)):
                (self.folder / name).unlink(missing_ok=True)
            for version in removed:
                self.path(version).rename(self.releases / f"{REMOVED}{version}")
            for name in os.listdir(self.releases) if self.releases.is_dir() else []:
                version = name.removeprefix(INCOMING)
                left = name.startswith(INCOMING) and (version not in coming or version in ours)
                if left or name.startswith(REMOVED):
                    remove(self.releases / name)
        return removed

    def load(self) -> SlotState:
        """The state; an unreadable one is set aside (`updates.json.unreadable`) and rebuilt from links and folders."""
        file = self.folder / STATE
        try:
            with on_disk(file):
                return msgspec.json.decode(file.read_bytes(), type=SlotState) if file.exists() else SlotState()
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            aside = file.with_name(f"{STATE}.unreadable")
            log.warning("%s cannot be read (%s): it is now %s, and was rebuilt", file, error, aside.name)
        releases = {v: Installed(release=r, at=self._since(v)) for v in self.installed() if (r := self.release(v))}
        link = self.folder / "current"
        since = link.lstat().st_mtime if link.is_symlink() else 0.0
        state = rebuilt(releases, self.current(), since, self.standby())
        with on_disk(file):
            file.replace(aside)
        self.save(state)
        return state

    def save(self, state: SlotState) -> None:
        """Replace `updates.json` atomically."""
        with on_disk(self.folder):
            written(self.folder / STATE, msgspec.json.format(msgspec.json.encode(state), indent=1))

    def _named(self, link: Link) -> str:
        path = self.folder / link
        try:
            target = Path(os.readlink(path))
        except FileNotFoundError:
            return ""
        except OSError:
            raise ConfigError(
                f"{path} is a file or folder of yours, not a link, and the updater replaces nothing of yours; move it "
                f"into a folder under {self.releases}, and let {path} be a link to that folder"
            ) from None
        place, version = self.folder / target.parent, target.name
        if place.resolve() != self.releases.resolve() or not VERSION.fullmatch(version):
            raise ConfigError(
                f"{path} points to {target}, which the updater did not make; point it to a folder in {self.releases}, "
                "or name your folder itself as `path` of the model"
            )
        return version if filled(self.path(version)) else ""

    def _vacant(self, release: Release) -> None:
        target = self.path(release.version)
        if not filled(target):
            return
        found = self.release(release.version)
        if found is None:
            raise ConfigError(
                f"{target} exists, and the updater did not make it; rename it (and let {self.folder / 'current'} point "
                f"to its new name) so that release {release.version} of {release.name} has a place"
            )
        if found == release:
            raise ConfigError(f"{target} lacks files of its release; remove that folder, and it is fetched again")
        raise Untrusted(
            f"{target} and the publisher's {release.name} {release.version} differ; a version never changes, so a new "
            "one must be published",
            code="release",
        )

    def _incoming(self, version: str) -> Path:
        return self.releases / f"{INCOMING}{version}"

    def _made(self, version: str) -> bool:
        return self.release(version) is not None and not self.path(version).is_symlink()

    def _since(self, version: str) -> float:
        return (self.path(version) / RELEASE_FILE).stat().st_mtime

    def _age(self, version: str) -> tuple[int, float]:
        release = self.release(version)
        return (-1, 0.0) if release is None else (release.sequence, release.created_at)


def _read_release(file: Path, version: str) -> Release | None:
    try:
        release = msgspec.json.decode(file.read_bytes(), type=Release)
        check_release(release)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, Untrusted) as error:
        log.warning("%s cannot be read (%s); its folder is left as it is", file, error)
        return None
    return release if release.version == version else None
