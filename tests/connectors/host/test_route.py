"""Which model answers."""

from __future__ import annotations

import pytest

from connectors.host.route import route
from schemas.config import ModelConfig
from schemas.errors import Rejected

PICTURES = ModelConfig(name="pictures", type="diffusion")
CHAT = ModelConfig(name="chat", type="llama")
OTHER = ModelConfig(name="other", type="llama")
DEFAULT = ModelConfig(name="default", type="llama", default=True)


@pytest.mark.parametrize(
    ("wanted", "connector", "models", "chosen"),
    [
        ("other", "chat", [CHAT, OTHER], "other"),
        ("", "other", [CHAT, OTHER], "other"),
        ("", "", [CHAT, DEFAULT], "default"),
        ("", "", [PICTURES, CHAT, OTHER], "chat"),
        ("pictures", "", [PICTURES, CHAT], "pictures"),
        ("", "", [PICTURES], "pictures"),
    ],
)
def test_the_model_asked_for_then_the_connectors_then_the_default_then_the_first_for_chat(
    wanted: str, connector: str, models: list[ModelConfig], chosen: str
) -> None:
    assert route(wanted, connector, models) == chosen


@pytest.mark.parametrize(("wanted", "connector"), [("gpt-9", ""), ("", "gpt-9"), ("../../etc", "chat")])
def test_an_unknown_model_is_refused_with_the_ones_there_are(wanted: str, connector: str) -> None:
    with pytest.raises(Rejected, match="there are: chat, other") as refused:
        route(wanted, connector, [CHAT, OTHER])
    assert refused.value.code == "unknown_model"
