"""A release that TUF vouches for is still checked: names, paths, sizes and kinds of files."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from schemas.errors import Untrusted
from schemas.release import Chunk, Chunking, Golden, Release, ReleaseFile, check_release

HASH = "0" * 64


def file(path: str = "model.gguf", size: int = 10, chunks: tuple[Chunk, ...] | None = None) -> ReleaseFile:
    pieces = (Chunk(HASH, 4), Chunk(HASH, 6)) if chunks is None else chunks
    return ReleaseFile(path=path, size=size, sha256=HASH, chunks=pieces)


GOOD = Release(name="small", version="1.2-rc.1", files=(file(), file("vae/b.json", 0, ())), created_at=1.0)


def test_a_good_release_passes() -> None:
    check_release(GOOD)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": "../up"}, "names have"),
        ({"name": "Large"}, "names have"),
        ({"version": ""}, "versions have"),
        ({"version": ".incoming-2"}, "versions have"),
        ({"version": "1/2"}, "versions have"),
        ({"files": ()}, "1 to"),
        ({"files": tuple(file(f"{n}.json") for n in range(513))}, "1 to"),
        ({"goldens": (Golden(prompt="?"),) * 65}, "golden"),
        ({"files": (file("a.json"), file("A.json"))}, "the same path"),
        ({"files": (file("a.json"), file("A.json/b.json"))}, "another's folder"),
        ({"files": (file("../a.json"),)}, "no path"),
        ({"files": (file("/a.json"),)}, "no path"),
        ({"files": (file("a//b.json"),)}, "no path"),
        ({"files": (file(".a.json"),)}, "no path"),
        ({"files": (file("a\\b.json"),)}, "no path"),
        ({"files": (file("RELEASE.json"),)}, "no path"),
        ({"files": (file("a\n.json"),)}, "no path"),
        ({"files": (file("weights.bin"),)}, "may hold code"),
        ({"files": (file("script"),)}, "may hold code"),
        ({"files": (file(size=-1),)}, "cannot be"),
        ({"files": (file(size=11),)}, "do not add up"),
        ({"files": (file(chunks=(Chunk(HASH, 0), Chunk(HASH, 10))),)}, "cannot be"),
        ({"files": (file(size=1 << 21, chunks=(Chunk(HASH, 1 << 21),)),)}, "cannot be"),
        ({"chunking": Chunking(least=1)}, "cannot be"),
        ({"chunking": Chunking(most=1 << 30)}, "cannot be"),
        ({"chunking": Chunking(least=1 << 20, average=1 << 19)}, "cannot be"),
    ],
)
def test_a_bad_one_is_refused(change: dict[str, object], reason: str) -> None:
    with pytest.raises(Untrusted, match=reason):
        check_release(replace(GOOD, **change))
