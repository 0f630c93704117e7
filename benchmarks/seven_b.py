"""A model of Llama-2-7B's shape (random Q4_0 weights): pace, warm conversations, loading, and 3 GB of memory.

What it says makes no sense, but it computes, loads and fills memory as such a model does. The file (3.8 GB) is
written to `build/models/` once.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from benchmarks import confine
from benchmarks.load import Endpoint, ask, session, shared_prompt
from benchmarks.models import ROOT, synthetic
from benchmarks.result import Row, Unavailable, main, note
from benchmarks.serve import Sizes, roost
from benchmarks.stack import Stack

NAME = "seven_b"
SIZES = Sizes(slots=1, context=1024)
TOKENS, TURNS, LOADS = 24, 5, 3
WORDS = 110
GOAL_MS = 200.0
MEMORY_BYTES = 6_000_000_000
"""Free memory that the measurements want: the weights, repacked weights and context."""
LIMIT_BYTES = 3_000_000_000
ASK_S = 300.0


async def run(quick: bool) -> list[Row]:
    model = synthetic("7b", "q4_0")
    free = psutil.virtual_memory().available
    if free < MEMORY_BYTES:
        raise Unavailable(f"{free / 1e9:.1f} GB of memory are free; {MEMORY_BYTES / 1e9:.0f} are wanted")
    return [*await loading(model, quick), *await pace(model, quick), *await limited(model)]


async def loading(model: Path, quick: bool) -> list[Row]:
    """With and without the copy of the weights that some processors compute faster with; the file is in memory."""
    rows = []
    await _load_s(model, "plain")
    for how in ("repacked", "plain"):
        seconds = [await _load_s(model, how) for _ in range(1 if quick else LOADS)]
        rows.append(Row(benchmark=NAME, what=f"load, {how}", value=statistics.median(seconds), unit="s"))
    return rows


async def _load_s(model: Path, how: str) -> float:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.load_time", str(model), how, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"load_time ended with {process.returncode}")
    return float(out)


async def pace(model: Path, quick: bool) -> list[Row]:
    """Seconds a token at one stream, and the first token of a conversation whose beginning is computed."""
    async with roost(model, SIZES) as endpoint, session(endpoint) as http:
        short = [{"role": "user", "content": "Write a tale."}]
        each = [
            statistics.median((await ask(http, endpoint, short, TOKENS, f"pace-{i}")).gaps)
            for i in range(1 if quick else 3)
        ]
        cold, warm, new = await warm_turns(http, endpoint, 1 if quick else TURNS)
    what = f"first token of a warm conversation, {new} new tokens"
    return [
        Row(benchmark=NAME, what="time a token, one stream", value=1000 * statistics.median(each), unit="ms",
            goal=GOAL_MS, least=False),
        Row(benchmark=NAME, what=what, value=1000 * statistics.median(warm), unit="ms"),
        Row(benchmark=NAME, what="first token of that conversation, nothing computed", value=1000 * cold, unit="ms"),
    ]  # fmt: skip


async def warm_turns(http: aiohttp.ClientSession, endpoint: Endpoint, turns: int) -> tuple[float, list[float], int]:
    """First tokens of the first turn and of the ones after it, and the fewest tokens that such a turn adds.

    Answers have one token: random weights choose tokens whose text is read back as others, which would be new too.
    """
    messages = [{"role": "user", "content": shared_prompt(WORDS)}]
    answer = await ask(http, endpoint, messages, 1, "warm")
    cold, warm, new = answer.first, [], 1_000_000
    for _ in range(turns):
        messages += [{"role": "assistant", "content": answer.text}, {"role": "user", "content": "Go on"}]
        before = answer.prompt_tokens
        answer = await ask(http, endpoint, messages, 1, "warm")
        warm.append(answer.first)
        new = min(new, answer.prompt_tokens - before)
    return cold, warm, new


async def limited(model: Path) -> list[Row]:
    """Under 3 GB it runs, or refuses with figures; nothing is ever killed. As it is, and allowed to overcommit."""
    rows = []
    for allowed in (False, True):
        with confine.memory(LIMIT_BYTES) as limit:
            outcome, token_s, lost = await _outcome(model, limit, {"worker": {"overcommit": allowed}})
            killed = max(limit.killed(), int(lost))
        note(f"{NAME}: under {limit.name} of 3 GB, overcommit {allowed}: {outcome}")
        what = f"under 3 GB ({limit.name}{', overcommit' if allowed else ''}), {outcome.partition(':')[0]}: killed"
        rows.append(Row(benchmark=NAME, what=what, value=killed, unit="processes", goal=0, least=False))
        if token_s:
            rows.append(Row(benchmark=NAME, what="time a token there", value=1000 * token_s, unit="ms"))
    return rows


async def _outcome(model: Path, limit: confine.Confined, more: dict[str, Any]) -> tuple[str, float, bool]:
    """`runs` or `refuses`, and then what it said; seconds a token; and whether its worker is another one now."""
    entry = {"name": "chat", "type": "llama", "path": str(model), "slots": 1, "context": SIZES.context}
    async with Stack(models=(entry,), more=more, enter=limit.enter) as stack:
        before, token_s = _worker(stack), 0.0
        endpoint = Endpoint(f"{stack.http}/v1", "chat", stack.key)
        try:
            async with asyncio.timeout(ASK_S), session(endpoint) as http:
                answer = await ask(http, endpoint, [{"role": "user", "content": "hello"}], 4, "limited")
            token_s = statistics.median(answer.gaps)
            text = "runs"
        except RuntimeError as error:
            text = f"refuses: {error}"
        except TimeoutError:
            text = f"gives no answer: not within {ASK_S:g} s"
        stack.status = await stack.state()
        lost = _worker(stack) != before
        if lost:
            text = f"loses its worker: {text}"
        reasons = [f"{m['state']} {m.get('reason', '')}".strip() for m in stack.status["models"]]
        return f"{text}: the model is {', '.join(reasons)}", token_s, lost


def _worker(stack: Stack) -> int:
    return next((int(p["pid"]) for p in stack.status["parts"] if p["name"].startswith("worker")), 0)


if __name__ == "__main__":
    main(run)
