"""Eight requests at once whose prompts begin with the same 512 tokens, which nobody has computed before.

Who computes the shared beginning once has first tokens soon. The beginning is another one in every round.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics

from benchmarks.load import Endpoint, ask, session, shared_prompt
from benchmarks.models import starter
from benchmarks.pairs import in_turn, ratio, rounds
from benchmarks.result import Row, main, note
from benchmarks.serve import Sizes, llama_server, roost

NAME = "first_token_shared_prefix"
STREAMS, TOKENS, WORDS = 8, 16, 390
SHARED_MIN = 512
SIZES = Sizes(slots=STREAMS, context=2048)
GOAL = 0.35
_number = itertools.count(1)


async def first_token(endpoint: Endpoint) -> float:
    """Median seconds to the first token of eight requests sent at once."""
    system = {"role": "system", "content": shared_prompt(WORDS, f"This is bakery number {next(_number)}. ")}
    async with session(endpoint) as http:
        asked = ({"role": "user", "content": f"Write a tale about lighthouse {i}."} for i in range(STREAMS))
        answers = await asyncio.gather(
            *(ask(http, endpoint, [system, question], TOKENS, f"u{i}") for i, question in enumerate(asked))
        )
    if min(a.prompt_tokens for a in answers) < SHARED_MIN:
        raise RuntimeError(f"the prompts have only {answers[0].prompt_tokens} tokens")
    note(f"{NAME}: first tokens after {', '.join(f'{a.first:.2f}' for a in sorted(answers, key=lambda a: a.first))} s")
    return statistics.median(a.first for a in answers)


async def ours() -> float:
    async with roost(starter(), SIZES) as endpoint:
        return await first_token(endpoint)


async def theirs() -> float:
    async with llama_server(starter(), SIZES) as endpoint:
        return await first_token(endpoint)


async def run(quick: bool) -> list[Row]:
    found = await in_turn(NAME, rounds(quick), {"Roost": ours, "llama-server": theirs})
    rows = [
        Row(benchmark=NAME, what=f"{who}: first token p50", value=1000 * statistics.median(values), unit="ms")
        for who, values in found.values.items()
    ]
    value = ratio(found.values["Roost"], found.values["llama-server"])
    what = "first token p50: Roost ÷ llama-server"
    return [*rows, Row(benchmark=NAME, what=what, value=value, unit="×", goal=GOAL, least=False), found.row(NAME)]


if __name__ == "__main__":
    main(run)
