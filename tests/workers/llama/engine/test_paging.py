"""Saved conversations: whose they are, their budgets, and the files on disk."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from pathlib import Path

import pytest

from workers.llama.engine.paging import BLOCK, Key, Page, Pages


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def tokens(kind: int, length: int = 2 * BLOCK) -> array[int]:
    return array("i", [kind, *range(1, length)])


def put(pages: Pages, kind: int, *, owner: str = "a", size: int = 100, length: int = 2 * BLOCK) -> None:
    line = tokens(kind, length)
    pages.put(Key(owner), line, [(length, owner)], bytes([kind]) * size)


def until(pages: Pages, happened: Callable[[], bool]) -> None:
    for _ in range(500):
        if happened():
            return
        pages.wait(0.1)
    raise AssertionError("it does not happen")


def found(pages: Pages, kind: int, owner: str = "a", adapter: str = "") -> Page | None:
    hit = pages.find(Key(owner, adapter), tokens(kind))
    return hit[0] if hit else None


def test_a_state_comes_back_to_its_owner_alone() -> None:
    pages = Pages(1_000, 0, None)
    put(pages, 1)
    page = found(pages, 1)
    assert page is not None
    assert pages.state(page) == b"\x01" * 100
    assert found(pages, 1, owner="b") is None
    assert found(pages, 1, adapter="red") is None
    assert found(pages, 2) is None


def test_the_longest_common_beginning_counts_to_the_token() -> None:
    pages = Pages(1_000, 0, None)
    put(pages, 1)
    asked = tokens(1)
    asked[BLOCK + 10] = 77
    hit = pages.find(Key("a"), asked)
    assert hit is not None
    assert hit[1] == BLOCK + 10


def test_a_longer_state_of_the_same_conversation_replaces_the_shorter() -> None:
    pages = Pages(1_000, 0, None)
    put(pages, 1, length=2 * BLOCK)
    put(pages, 1, length=3 * BLOCK, size=150)
    assert len(pages) == 1
    assert pages.ram_bytes == 150


def test_ram_stays_within_its_budget_and_the_least_valuable_goes_first() -> None:
    clock = Clock()
    pages = Pages(250, 0, None, clock=clock)
    for kind in (1, 2, 3):
        clock.now += 10
        put(pages, kind)
    assert pages.ram_bytes <= 250
    assert found(pages, 1) is None
    assert found(pages, 3) is not None


def test_what_ram_cannot_hold_goes_to_disk_sealed_and_comes_back(tmp_path: Path) -> None:
    pages = Pages(450, 10_000, tmp_path)
    for kind in range(1, 9):
        put(pages, kind)
        until(pages, lambda: not any(p.moving and not p.moving.done() for p in pages._pages))
    page = found(pages, 1)
    assert page is not None
    assert page.state is None
    files = list(tmp_path.iterdir())
    assert files
    assert all(b"\x01" * 20 not in file.read_bytes() for file in files)
    until(pages, lambda: pages.state(page) is not None)
    assert bytes(pages.state(page) or b"") == b"\x01" * 100
    assert pages.ram_bytes <= 450
    pages.close()
    assert list(tmp_path.iterdir()) == []


def test_the_disk_stays_within_its_budget(tmp_path: Path) -> None:
    pages = Pages(250, 300, tmp_path)
    for kind in range(1, 12):
        put(pages, kind)
        until(pages, lambda: not any(p.moving and not p.moving.done() for p in pages._pages))
        assert pages.disk_bytes <= 300
    assert len(pages) <= 5


@pytest.mark.parametrize("harm", ["altered", "cut", "gone", "exchanged"])
def test_a_harmed_file_costs_that_page_and_nothing_else(tmp_path: Path, harm: str) -> None:
    pages = Pages(450, 10_000, tmp_path)
    for kind in range(1, 9):
        put(pages, kind)
        until(pages, lambda: not any(p.moving and not p.moving.done() for p in pages._pages))
    page, other = found(pages, 1), found(pages, 2)
    assert page is not None
    assert page.file is not None
    assert other is not None
    assert other.file is not None
    raw = page.file.read_bytes()
    if harm == "altered":
        page.file.write_bytes(raw[:40] + bytes([raw[40] ^ 1]) + raw[41:])
    elif harm == "cut":
        page.file.write_bytes(raw[:50])
    elif harm == "gone":
        page.file.unlink()
    else:
        page.file.write_bytes(other.file.read_bytes())
    until(pages, lambda: pages.state(page) is None and found(pages, 1) is None)
    assert found(pages, 2) is not None
    pages.close()


def test_a_full_disk_loses_pages_and_raises_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "not there"
    pages = Pages(250, 10_000, folder)
    for kind in range(1, 9):
        put(pages, kind)
        until(pages, lambda: not any(p.moving and not p.moving.done() for p in pages._pages))
    put(pages, 20)
    assert pages.ram_bytes <= 250
    assert found(pages, 20) is not None
    pages.close()


def test_short_sequences_and_oversize_states_are_not_kept() -> None:
    pages = Pages(250, 0, None)
    put(pages, 1, length=BLOCK - 1)
    put(pages, 2, size=251)
    put(pages, 3, size=0)
    assert len(pages) == 0
