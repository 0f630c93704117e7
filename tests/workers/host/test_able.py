"""Wishes against abilities: values in, a refusal or nothing out."""

from __future__ import annotations

import pytest

from schemas.errors import Rejected
from schemas.message import Format, Message, Sampling, Tool
from tests.workers.host.talented import ALL
from workers import Job
from workers.host.able import check_able, wishes

CHAT = frozenset({"chat", "completion"})
WANTS_ALL = Sampling(
    tools=(Tool("f"),), format=Format(type="json"), logprobs=0, n=2, logit_bias={"1": 1.0}, adapter="a"
)


def job(sampling: Sampling = Sampling(), **fields: object) -> Job:  # noqa: B008
    return Job(request="r", messages=(Message("user", "hi"),), sampling=sampling, **fields)  # type: ignore[arg-type]


def test_a_plain_question_needs_no_ability() -> None:
    check_able(job(Sampling(temperature=0, presence_penalty=1.0, tool_choice="none")), "m", CHAT, ())


def test_each_ability_is_asked_for_by_some_field() -> None:
    assert {ability for ability, _ in wishes(job(WANTS_ALL))} == ALL
    check_able(job(WANTS_ALL), "m", CHAT, ALL)


@pytest.mark.parametrize("missing", sorted(ALL))
def test_one_missing_ability_refuses_by_its_name(missing: str) -> None:
    with pytest.raises(Rejected, match=f"^{missing}: the model 'm'") as refused:
        check_able(job(WANTS_ALL), "m", CHAT, ALL - {missing})
    assert refused.value.code == "unsupported"


@pytest.mark.parametrize("kind", ["chat", "completion", "embedding", "image"])
def test_a_kind_that_the_backend_does_not_do_is_refused(kind: str) -> None:
    with pytest.raises(Rejected, match=r"^kind: the model 'm'"):
        check_able(job(kind=kind), "m", (), ALL)
