"""The reader that publishing is for: python-tuf's own client, over a folder or over HTTP."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
from blake3 import blake3
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface, Updater

from schemas.release import Release, Versions, check_release, release_target, versions_target


class Folder(FetcherInterface):
    """Addresses are paths."""

    def _fetch(self, url: str) -> Iterator[bytes]:
        try:
            yield Path(url).read_bytes()
        except FileNotFoundError:
            raise DownloadHTTPError(f"no {url}", 404) from None


class Client:
    """One installation that was given `root` once and keeps its trusted state in `state`."""

    def __init__(self, where: Path | str, root: bytes, state: Path, names: tuple[str, ...] = ("small",)) -> None:
        self.where = str(where)
        self._fetcher = Folder() if isinstance(where, Path) else None
        self._root = root
        self._state = state
        self._names = names
        (state / "targets").mkdir(parents=True, exist_ok=True)

    def releases(self) -> dict[str, Release]:
        """What the client is willing to believe now, by `name version`; raises as the client does."""
        updater = Updater(
            str(self._state), f"{self.where}/metadata/", str(self._state / "targets"), f"{self.where}/targets/",
            fetcher=self._fetcher, bootstrap=self._root,
        )  # fmt: skip
        updater.refresh()
        found = {}
        for name in self._names:
            versions = self._get(updater, versions_target(name), Versions)
            for version in versions.versions if versions else ():
                release = self._get(updater, release_target(name, version), Release)
                assert release is not None, f"{name} {version} is listed and not there"
                check_release(release)
                found[f"{name} {version}"] = release
        return found

    def _get(self, updater: Updater, path: str, kind: type) -> object:
        target = updater.get_targetinfo(path)
        if target is None:
            return None
        with tempfile.NamedTemporaryFile(dir=self._state) as file:
            return msgspec.json.decode(Path(updater.download_target(target, file.name)).read_bytes(), type=kind)


def content(repository: Path, release: Release) -> dict[str, bytes]:
    """The files of a release, put together from chunks that are what they are called."""
    files = {}
    for file in release.files:
        whole = b""
        for chunk in file.chunks:
            piece = (repository / chunk.path).read_bytes()
            assert (blake3(piece).hexdigest(), len(piece)) == (chunk.blake3, chunk.size)
            whole += piece
        files[file.path] = whole
    return files


def names(releases: dict[str, Release]) -> list[str]:
    return sorted(releases)
