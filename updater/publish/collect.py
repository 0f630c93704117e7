"""Which files a release is made of: from the paths that the publisher names to names within the release.

What always holds: every file is a regular one, lies below the path that was named, and has a name and a suffix that
`schemas.release` allows; two files never have the same name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

from schemas.errors import Rejected, Untrusted
from schemas.release import FILES_MAX, check_path

NAMED_MAX = 8
"""Refused files that one message names."""


def collect(
    paths: Sequence[Path], exclude: Sequence[str] = (), notice: Callable[[str], None] = lambda text: None
) -> list[tuple[str, Path]]:
    """(name in the release, file) of everything below `paths`; raises `Rejected` and says what is in the way."""
    found: dict[str, Path] = {}
    refused, hidden = [], []
    for path in paths:
        for name, file in _below(path):
            if any(fnmatch(name, pattern) or fnmatch(file.name, pattern) for pattern in exclude):
                continue
            if any(part.startswith(".") for part in name.split("/")):
                hidden.append(name)
                continue
            other = next((known for known in found if known.lower() == name.lower()), None)
            if other is not None:
                raise Rejected(f"{found[other]} and {file} would both be {name}", code="duplicate")
            try:
                check_path(name, "this release")
            except Untrusted as error:
                refused.append((name, error))
            found[name] = file
    if hidden:
        notice(f"left out, because hidden: {_some(sorted(hidden))}")
    if refused:
        first = refused[0][1]
        names = _some([name for name, _ in refused])
        raise Rejected(f"{first.message}. Refused: {names}; leave them out with --exclude PATTERN", code=first.code)
    if not 0 < len(found) <= FILES_MAX:
        raise Rejected(f"a release has 1 to {FILES_MAX} files; these paths have {len(found)}", code="files")
    return sorted(found.items())


def _below(path: Path) -> Iterator[tuple[str, Path]]:
    """A file by its own name (a link: by that of what it leads to), a folder's files by their paths in it."""
    try:
        root = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise Rejected(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}", code="missing") from None
    if not root.is_dir():
        yield root.name, _regular(root)
        return
    for folder, folders, files in os.walk(root, onerror=_fail):
        folders.sort()
        for name in [*folders, *files]:
            file = Path(folder) / name
            if file.is_symlink():
                target = _target(file)
                if not target.is_relative_to(root):
                    raise Rejected(
                        f"{file} is a link that leaves the folder (to {target}); copy what it leads to: cp -rL",
                        code="link",
                    )
                if target.is_dir():
                    raise Rejected(f"{file} is a link to a folder; put the folder itself there", code="link")
            if name in files:
                yield file.relative_to(root).as_posix(), _regular(file)


def _target(link: Path) -> Path:
    try:
        return link.resolve(strict=True)
    except (OSError, RuntimeError):
        raise Rejected(f"{link} is a link that leads nowhere", code="link") from None


def _regular(file: Path) -> Path:
    if not file.is_file():
        raise Rejected(f"{file} is no regular file", code="file")
    return file


def _fail(error: OSError) -> None:
    raise Rejected(f"{error.filename} cannot be read: {error.strerror}", code="missing")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
    return ", ".join(names[:NAMED_MAX]) + more
