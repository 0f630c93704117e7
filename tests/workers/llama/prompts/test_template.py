"""Chat templates, which are somebody else's code."""

from __future__ import annotations

import logging
from datetime import datetime

import pytest

from schemas.errors import Rejected
from schemas.message import Message
from workers.llama.prompts.template import LOOP_TURNS_MAX, ChatTemplate, folded

HELLO = [Message("user", "hello")]
TALK = [Message("system", "Be brief."), Message("user", "hi"), Message("assistant", "Hello."), Message("user", "bye")]


def test_a_template_sees_roles_contents_and_tokens() -> None:
    source = "{{ bos_token }}{% for m in messages %}[{{ m.role }}|{{ m['content'] }}]{% endfor %}{{ eos_token }}"
    assert ChatTemplate(source, "<s>", "</s>").render(TALK[:2]) == "<s>[system|Be brief.][user|hi]</s>"


@pytest.mark.parametrize("source", [None, "", "{% for %}", "{{ " + "(" * 3_000, "x" * 300_000])
def test_without_a_usable_template_chatml_is_used(source: str | None, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        template = ChatTemplate(source)
    assert template.fallback
    assert "ChatML" in caplog.text
    assert template.render(HELLO) == "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"


def test_a_template_without_system_role_gets_it_within_the_first_message() -> None:
    source = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}"
    )
    assert ChatTemplate(source).render(TALK) == "user:Be brief.\n\nhi;assistant:Hello.;user:bye;"


def test_a_template_that_wants_roles_in_turn_gets_them() -> None:
    source = (
        "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('in turn!') }}"
        "{% endif %}{{ m.content }};{% endfor %}"
    )
    assert ChatTemplate(source).render([*HELLO, Message("user", "again")]) == "hello\n\nagain;"


def test_a_refusal_is_told_to_the_sender() -> None:
    with pytest.raises(Rejected, match="no chats today") as caught:
        ChatTemplate("{{ raise_exception('no chats today') }}").render(HELLO)
    assert caught.value.code == "template"


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append({}) }}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% for i in range(10**9) %}{% endfor %}",
        "{{ 'x' * 10**9 }}",
        "{{ 10 ** 10 ** 10 }}",
        "{{ 'x'.ljust(1000000000) }}",
        "{{ '{:>1000000000}'.format('x') }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ messages[99].content.upper() }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    ],
)
def test_a_hostile_template_harms_only_its_own_request(source: str) -> None:
    with pytest.raises(Rejected):
        ChatTemplate(source).render(HELLO)


@pytest.mark.parametrize("name", ["raise_exception.__globals__", "strftime_now.__closure__", "range.__class__"])
def test_a_template_sees_nothing_behind_its_functions(name: str) -> None:
    assert ChatTemplate("{{ " + name + " }}").render(HELLO) == ""


def test_a_template_that_writes_without_end_is_stopped() -> None:
    source = "{% for i in range(" + str(LOOP_TURNS_MAX - 10) + ") %}" + "x" * 1_000 + "{% endfor %}"
    with pytest.raises(Rejected, match="characters"):
        ChatTemplate(source).render(HELLO)


def test_ordinary_template_language_works() -> None:
    source = (
        "{%- set ns = namespace(n=0) -%}{%- for m in messages -%}{%- set ns.n = ns.n + 1 -%}"
        "{%- if ns.n > 2 -%}{%- break -%}{%- endif -%}{{ m.content | trim }}{{ '-' * 3 }}{{ 7 % 4 }}{%- endfor -%}"
        "{{ {'a': ['ü', 1]} | tojson }}{{ strftime_now('%Y') }}{% if tools is defined %}T{% endif %}"
    )
    template = ChatTemplate(source, now=lambda: datetime(2031, 5, 6))
    assert template.render(TALK) == 'Be brief.---3hi---3{"a": ["ü", 1]}2031'


def test_folding_keeps_every_word_in_order() -> None:
    assert folded(TALK) == [Message("user", "Be brief.\n\nhi"), Message("assistant", "Hello."), Message("user", "bye")]
