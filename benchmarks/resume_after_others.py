"""A conversation of 1,500 tokens goes on after 100 others have passed: its first token ÷ computing it all again.

The cache holds two such conversations, so that what is resumed has long left it and comes back from where idle
conversations are kept. Recomputing is measured on a conversation of the same length that nobody has seen, in turn.
"""

from __future__ import annotations

import asyncio
import statistics

import aiohttp

from benchmarks.load import Endpoint, ask, session, shared_prompt
from benchmarks.models import starter
from benchmarks.pairs import rounds
from benchmarks.result import Row, main, note
from benchmarks.serve import Sizes, roost

NAME = "resume_after_others"
WORDS, TOKENS_MIN = 1_110, 1_500
OTHERS, OTHER_WORDS, OTHER_TOKENS, AT_ONCE = 100, 30, 4, 4
SIZES = Sizes(slots=AT_ONCE, context=2048)
CACHE = 4096
ANSWER = 8
GOAL = 0.25
Messages = list[dict[str, str]]


async def opened(http: aiohttp.ClientSession, endpoint: Endpoint, name: str) -> Messages:
    """A conversation with one long question and its answer, ready for the next question."""
    messages = [{"role": "user", "content": shared_prompt(WORDS, f"This is the bakery of {name}. ")}]
    answer = await ask(http, endpoint, messages, ANSWER, name)
    if answer.prompt_tokens < TOKENS_MIN:
        raise RuntimeError(f"the conversation has only {answer.prompt_tokens} tokens")
    return [*messages, {"role": "assistant", "content": answer.text}]


async def pass_by(http: aiohttp.ClientSession, endpoint: Endpoint) -> None:
    """A hundred short conversations of other senders, four at once."""
    left = iter(range(OTHERS))

    async def lane() -> None:
        for i in left:
            text = shared_prompt(OTHER_WORDS, f"Sender {i} asks about lighthouse {i * 7}. ")
            await ask(http, endpoint, [{"role": "user", "content": text}], OTHER_TOKENS, f"other-{i}")

    await asyncio.gather(*(lane() for _ in range(AT_ONCE)))


async def run(quick: bool) -> list[Row]:
    pairs = rounds(quick)
    resumed, computed = [], []
    more = {"role": "user", "content": "And what is the rule of the last day?"}
    async with roost(starter(), SIZES, cache=CACHE) as endpoint, session(endpoint) as http:
        note(f"{NAME}: {pairs} conversations, then {OTHERS} others")
        talks = {f"a{i}": await opened(http, endpoint, f"a{i}") for i in range(pairs)}
        await pass_by(http, endpoint)
        for name, messages in talks.items():
            resumed.append((await ask(http, endpoint, [*messages, more], ANSWER, name)).first)
            text = messages[0]["content"].replace(f"of {name}.", f"of z{name}.", 1)
            fresh = [{"role": "user", "content": text}, messages[1], more]
            computed.append((await ask(http, endpoint, fresh, ANSWER, f"z{name}")).first)
            note(f"{NAME}: first token {resumed[-1] * 1000:.0f} ms resumed, {computed[-1] * 1000:.0f} ms computed")
    value = statistics.median(a / b for a, b in zip(resumed, computed, strict=True))
    return [
        Row(benchmark=NAME, what="first token, resumed", value=1000 * statistics.median(resumed), unit="ms"),
        Row(benchmark=NAME, what="first token, computed again", value=1000 * statistics.median(computed), unit="ms"),
        Row(benchmark=NAME, what="first token: resumed ÷ computed", value=value, unit="×", goal=GOAL, least=False),
    ]


if __name__ == "__main__":
    main(run)
