"""The painter keeps the contract of a backend, and what it makes are pictures to others, too."""

from __future__ import annotations

import importlib
import io
from typing import Any

import pytest

from schemas.picture import Drawing
from tests.tools import painter
from workers.host.contract import RULES, BackendCase, Rule


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(painter.SITE)
    return importlib.import_module("roost_painter")


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_it_keeps_the_contract(rule: Rule, module: Any) -> None:
    rule.check(BackendCase(module.PainterBackend, drawing=Drawing(steps=4)))


@pytest.mark.parametrize("colour", [(255, 0, 0), (3, 77, 200), (128, 128, 128), (255, 255, 255), (0, 0, 0)])
def test_its_pictures_and_previews_have_their_colour(module: Any, colour: tuple[int, int, int]) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow comes with the extra `diffusion`")
    with image.open(io.BytesIO(module.png(64, 72, colour, "画", 99))) as picture:
        assert (picture.size, picture.getpixel((63, 71)), picture.text) == ((64, 72), colour, {"prompt": "画"})
    with image.open(io.BytesIO(module.jpeg(colour))) as preview:
        assert all(abs(a - b) <= 2 for a, b in zip(preview.getpixel((4, 4)), colour, strict=True))
    assert painter.seen(module.png(64, 72, colour)) == (64, 72, colour)
