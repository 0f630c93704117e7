"""What may be asked of a picture, and which sizes are offered."""

from __future__ import annotations

import pytest

from connectors.web.api import NewMessage, decode
from connectors.web.models import models
from connectors.web.wish import sizes
from schemas.config import ModelConfig
from schemas.errors import Rejected
from schemas.message import Sampling
from schemas.model import ModelStatus
from schemas.picture import Drawing, size_of


@pytest.mark.parametrize("own", ["512x512", "1024x1024", "768x512", "640x960", "256x256", "128x128"])
def test_the_models_own_size_comes_first_and_no_other_has_more_pixels(own: str) -> None:
    offered = sizes(own)
    assert offered[0] == own
    assert len(offered) == len(set(offered)) >= 5
    width, height = size_of(own) or (0, 0)
    for each in offered[1:]:
        w, h = size_of(each) or (0, 0)
        assert w % 8 == h % 8 == 0
        assert 0.75 * width * height <= w * h <= width * height
    assert {"square", "portrait", "landscape"} == {
        "square" if w == h else "portrait" if w < h else "landscape" for w, h in map(size_of, offered)
    }


def test_a_resolution_that_is_none_offers_nothing() -> None:
    assert sizes("big") == sizes("") == ()


def test_no_size_is_offered_that_the_door_would_refuse() -> None:
    assert sizes("64x64") == ("64x64",)


def test_wishes_are_read_as_they_are_written() -> None:
    body = b'{"id":"1","text":"x","drawing":{"size":"64x64","steps":3,"negative":"sea"},"sampling":{"seed":7,"n":2}}'
    message = decode(body, NewMessage)
    assert message.drawing.drawing() == Drawing(size="64x64", steps=3, negative="sea")
    assert message.sampling.sampling() == Sampling(seed=7, n=2)


@pytest.mark.parametrize(
    ("wish", "place"),
    [
        ('"drawing":{"step":3}', "step"),
        ('"drawing":{"steps":"3"}', "$.drawing.steps"),
        ('"drawing":[]', "$.drawing"),
        ('"sampling":{"seed":1.5}', "$.sampling.seed"),
        ('"sampling":{"temperature":1}', "temperature"),
        ('"sampling":{"tools":[]}', "tools"),
    ],
)
def test_a_wish_that_does_not_exist_or_has_another_type_is_refused_with_its_place(wish: str, place: str) -> None:
    with pytest.raises(Rejected, match=place.replace("$", r"\$")):
        decode(b'{"id":"1","text":"x",%s}' % wish.encode(), NewMessage)


def test_a_model_that_only_draws_says_so_with_its_sizes_and_steps() -> None:
    rows = [
        ModelStatus(name="talk", type="llama", worker="w", state="ready"),
        ModelStatus(name="brush", type="painter", worker="w", state="ready", kinds=("image",)),
        ModelStatus(name="sd", type="diffusion", worker="", state="absent"),
        ModelStatus(name="both", type="other", worker="w", state="ready", kinds=("chat", "image")),
    ]
    settings = {"resolution": "64x64", "steps": 5}
    found = models(rows, "talk", (), [ModelConfig(name="brush", type="painter", settings=settings)])
    assert [(m.name, m.paints, m.steps) for m in found] == [
        ("talk", False, 0), ("brush", True, 5), ("sd", True, 0), ("both", False, 0),
    ]  # fmt: skip
    assert [m.sizes[:1] for m in found] == [(), ("64x64",), ("512x512",), ()]
