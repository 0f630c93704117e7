"""Requests in OpenAI's shape become messages, or refusals that name the parameter."""

import json

import pytest

from connectors.openai.decode import BadParameter
from connectors.openai.request import chat, chat_inbound, completion, completion_inbound, ignored
from schemas.message import Inbound, Message, Sampling

HELLO = [{"role": "user", "content": "hello"}]


def body(**fields: object) -> bytes:
    return json.dumps({"model": "m", "messages": HELLO} | fields).encode()


def inbound(**fields: object) -> Inbound:
    return chat_inbound(chat(body(**fields)), id="i", key="k")


def refused(raw: bytes) -> BadParameter:
    with pytest.raises(BadParameter) as caught:
        chat_inbound(chat(raw), id="i", key="k")
    return caught.value


def test_the_whole_conversation_comes_as_history() -> None:
    asked = inbound(messages=[
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "c", "refusal": None},
        {"role": "user", "content": "d"},
    ])  # fmt: skip
    assert asked.history == (
        Message("system", "be brief"), Message("user", "a\nb"), Message("assistant", "c"), Message("user", "d")
    )  # fmt: skip
    assert (asked.text, asked.system, asked.kind, asked.model) == ("", None, "auto", "m")


def test_parameters_become_sampling() -> None:
    asked = inbound(
        max_tokens=5, temperature=0, top_p=0.5, top_k=40, min_p=0.1, repeat_penalty=1.1, seed=7, stop=["a", "", "b"],
        ignore_eos=True,
    )  # fmt: skip
    assert asked.sampling == Sampling(
        max_tokens=5, temperature=0, top_p=0.5, top_k=40, min_p=0.1, repeat_penalty=1.1, seed=7, stop=("a", "b"),
        ignore_eos=True,
    )  # fmt: skip


def test_the_newer_parameters_become_sampling() -> None:
    asked = inbound(
        n=3, logit_bias={"50256": -100}, presence_penalty=0.5, frequency_penalty=-1, logprobs=True, top_logprobs=4,
        adapter="pirate",
    )  # fmt: skip
    assert asked.sampling == Sampling(
        n=3, logit_bias={"50256": -100}, presence_penalty=0.5, frequency_penalty=-1, logprobs=4, adapter="pirate"
    )
    assert inbound(logprobs=True).sampling.logprobs == 0
    assert inbound(logprobs=False).sampling.logprobs is None


def test_model_and_kind_are_told_as_the_router_reads_them() -> None:
    assert [inbound(model=model).model for model in ("auto", "", None, "m")] == ["auto", "", "", "m"]
    assert [inbound(kind=kind).kind for kind in (None, "auto", "code", "long")] == ["auto", "auto", "code", "long"]


def test_any_seed_of_64_bits_becomes_one_that_engines_take() -> None:
    assert [inbound(seed=seed).sampling.seed for seed in (0, -1, 2**63 - 1)] == [0, 2**32 - 1, 2**32 - 1]


def test_the_newer_name_of_the_token_limit_wins() -> None:
    assert inbound(max_tokens=5, max_completion_tokens=6).sampling.max_tokens == 6


def test_a_user_is_a_sender_below_the_key() -> None:
    assert inbound().sender.id == "k"
    assert inbound(user="ann").sender.id == "k/ann"


def test_unknown_fields_and_harmless_values_are_accepted() -> None:
    asked = inbound(
        store=False, metadata={"a": 1}, n=1, tools=[], functions=[], logprobs=False, logit_bias={},
        response_format={"type": "text"}, modalities=["text"], stop=None, user=None, stream_options={"x": 1},
        tool_choice="auto", parallel_tool_calls=True, service_tier="auto",
    )  # fmt: skip
    assert asked.sampling == Sampling()


def test_parameters_that_have_no_effect_are_told() -> None:
    assert ignored(chat(body(mirostat=2, reasoning_effort="low", presence_penalty=1, typical_p=None))) == (
        "mirostat has no effect here", "reasoning_effort has no effect here"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "poet", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "assistant", "content": None, "tool_calls": [{}]}]}, "messages[0].tool_calls[0]"),
        ({"model": 5}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": "yes"}}, "stream_options.include_usage"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": -1}, "top_p"),
        ({"seed": 2**64}, "seed"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stop": 5}, "stop"),
        ({"n": 0}, "n"),
        ({"n": "2"}, "n"),
        ({"kind": "image"}, "kind"),
        ({"functions": [{}]}, "functions"),
        ({"logprobs": 3}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logit_bias": {"5": "much"}}, "logit_bias[...]"),
        ({"logit_bias": [[5, 1]]}, "logit_bias"),
        ({"lora": [{"id": 0, "scale": 1}]}, "lora"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"continue_final_message": True}, "continue_final_message"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, "chat_template_kwargs"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {"voice": "x"}}, "audio"),
    ],
)
def test_a_refusal_names_the_parameter(fields: dict[str, object], param: str) -> None:
    error = refused(body(**fields))
    assert error.param == param
    assert param in error.message


def test_an_image_is_refused_in_words() -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    error = refused(body(messages=[{"role": "user", "content": [part]}]))
    assert (error.param, error.code) == ("messages[0].content[0]", "unsupported")
    assert "no images" in error.message


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "not valid JSON"),
        (b"hello", "not valid JSON"),
        (b'{"messages": [', "not valid JSON"),
        (body() + b"{}", "not valid JSON"),
        (b'{"messages":[{"role":"user","content":"\xff\xfe"}]}', "not valid UTF-8"),
        (b'{"messages":[{"role":"user","content":"\\ud800"}]}', "not valid JSON"),
        (b"[" * 100_000, "expected"),
        (b'{"messages":[{"role":"user","content":"x"}],"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too deeply"),
        (
            b'{"messages":[{"role":"user","content":"x"}],"tools":['
            + b'{"a":' * 100_000
            + b"1"
            + b"}" * 100_000
            + b"]}",
            "too deeply",
        ),
        (b'{"messages":[{"role":"user","content":"x"}],"temperature":1e999}', "out of range"),
        (b"[]", "expected"),
        (b"null", "expected"),
    ],
)
def test_what_is_no_request_is_refused(raw: bytes, says: str) -> None:
    assert says.lower() in refused(raw).message.lower()


def test_a_missing_field_is_named() -> None:
    assert refused(b"{}").param == "messages"


def test_an_error_never_repeats_control_characters_or_long_words() -> None:
    error = refused(body(messages=[{"role": "\x1b[31m" + "a" * 1000, "content": "x"}]))
    assert "\x1b" not in error.message
    assert len(error.message) < 200


def test_a_prompt_is_a_text_or_a_list_of_one() -> None:
    for prompt in ("once", ["once"]):
        asked = completion_inbound(
            completion(json.dumps({"prompt": prompt, "max_tokens": 3}).encode()), id="i", key="k"
        )
        assert (asked.kind, asked.text, asked.history) == ("completion", "once", ())
        assert asked.sampling.max_tokens == 3


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": ""}, "prompt"), ({"prompt": ["a", "b"]}, "prompt"), ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": None}, "prompt"), ({"echo": True}, "echo"), ({"suffix": "x"}, "suffix"),
        ({"best_of": 2}, "best_of"), ({"logprobs": 21}, "logprobs"), ({"logprobs": True}, "logprobs"), ({"n": 0}, "n"),
    ],
)  # fmt: skip
def test_a_refused_completion_names_the_parameter(fields: dict[str, object], param: str) -> None:
    raw = json.dumps({"prompt": "x"} | fields).encode()
    with pytest.raises(BadParameter) as caught:
        completion_inbound(completion(raw), id="i", key="k")
    assert caught.value.param == param


def test_a_completion_may_want_several_answers_and_log_probabilities() -> None:
    asked = completion(json.dumps({"prompt": "x", "n": 2, "best_of": 2, "logprobs": 5}).encode())
    assert completion_inbound(asked, id="i", key="k").sampling == Sampling(n=2, logprobs=5)
