"""Load on any OpenAI-compatible endpoint: conversations of several turns, or single questions.

python -m benchmarks.load URL MODEL STREAMS TURNS TOKENS [SHARED_WORDS]      (API key in API_KEY)
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from typing import Any

import aiohttp
import msgspec
from msgspec import Struct, field

from benchmarks.result import percentile

TIMEOUT_S = 900.0
RULE = "You answer for a small bakery. Rule {i}: bread of day {i} is sold at half its price; be short and friendly. "


class Endpoint(Struct, frozen=True):
    """Where a model is served: address up to `/v1`, its name there, API key."""

    url: str
    model: str
    key: str = ""


class Answer(Struct, kw_only=True):
    """One streamed answer; times are of `time.perf_counter`."""

    began: float
    pieces: list[str]
    stamps: list[float]
    """When each piece came."""
    prompt_tokens: int
    tokens: int
    request: str = ""
    version: str = ""
    """Of the model; Roost says both at the end of its answers."""

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def first(self) -> float:
        return self.stamps[0] - self.began

    @property
    def gaps(self) -> list[float]:
        return [b - a for a, b in pairwise(self.stamps)]


class Load(Struct):
    """What one run has seen. Times in seconds."""

    seconds: float = 0.0
    done: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    first: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def tokens_per_s(self) -> float:
        return self.completion_tokens / self.seconds

    def add(self, answer: Answer) -> None:
        self.done += 1
        self.prompt_tokens += answer.prompt_tokens
        self.completion_tokens += answer.tokens
        if answer.stamps:
            self.first.append(answer.first)
            self.gaps.extend(answer.gaps)

    def whole(self, name: str) -> Load:
        """Itself; raises when a conversation failed."""
        if self.errors:
            raise RuntimeError(f"{name}: {len(self.errors)} conversations failed: {self.errors[0]}")
        return self

    def summary(self) -> dict[str, Any]:
        def ms(values: list[float], share: float) -> float | None:
            return round(percentile(values, share) * 1000, 1) if values else None

        return {
            "seconds": round(self.seconds, 2),
            "tokens_per_s": round(self.tokens_per_s, 1),
            "done": self.done,
            "failed": len(self.errors),
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "first_token_ms": {"p50": ms(self.first, 0.5), "p99": ms(self.first, 0.99)},
            "gap_ms": {"p50": ms(self.gaps, 0.5), "p99": ms(self.gaps, 0.99)},
            "errors": self.errors[:3],
        }


def shared_prompt(words: int, start: str = "") -> str:
    """A system prompt of at least `words` words, the same for the same `start`; empty for 0."""
    text, i = start, 1
    while len(text.split()) < words:
        text += RULE.format(i=i)
        i += 1
    return text


def session(endpoint: Endpoint) -> aiohttp.ClientSession:
    """A client without a limit of connections; `async with`. A new one for each request: llama-server may close an idle
    one at the moment at which the next request is written to it."""
    return aiohttp.ClientSession(
        headers={"Authorization": f"Bearer {endpoint.key}"} if endpoint.key else {},
        timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
        connector=aiohttp.TCPConnector(limit=0, force_close=True),
    )


async def _chunks(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """The JSON events of a stream; an error event raises."""
    async for line in response.content:
        if line.startswith(b"data: {"):
            event: dict[str, Any] = msgspec.json.decode(line[6:])
            if "error" in event:
                raise RuntimeError(str(event["error"]))
            yield event


async def ask(
    http: aiohttp.ClientSession,
    endpoint: Endpoint,
    messages: list[dict[str, str]],
    tokens: int,
    user: str,
    seen: Callable[[], None] | None = None,
) -> Answer:
    """One streamed answer of exactly `tokens` tokens at temperature 0; `seen` is called with each piece."""
    body = {
        "model": endpoint.model,
        "messages": messages,
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "user": user,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    pieces: list[str] = []
    stamps: list[float] = []
    usage: dict[str, int] | None = None
    ours: dict[str, str] = {}
    began = time.perf_counter()
    async with http.post(f"{endpoint.url}/chat/completions", json=body) as response:
        if response.status != 200:
            raise RuntimeError(f"{response.status} {(await response.text())[:200]}")
        async for event in _chunks(response):
            usage = event.get("usage") or usage
            ours = event.get("roost") or ours
            for choice in event.get("choices", ()):
                piece = choice["delta"].get("content")
                if piece:
                    stamps.append(time.perf_counter())
                    pieces.append(piece)
                    if seen is not None:
                        seen()
    given = (usage["prompt_tokens"], usage["completion_tokens"]) if usage else (0, len(pieces))
    who = {name: ours.get(name, "") for name in ("request", "version")}
    return Answer(began=began, pieces=pieces, stamps=stamps, prompt_tokens=given[0], tokens=given[1], **who)


async def _conversation(
    http: aiohttp.ClientSession, endpoint: Endpoint, number: int, turns: int, tokens: int, system: str, load: Load
) -> None:
    messages = [{"role": "system", "content": system}] if system else []
    for turn in range(turns):
        question = f"Write a long tale about lighthouse {number * 37 + turn} and its keeper."
        messages.append({"role": "user", "content": question})
        try:
            answer = await ask(http, endpoint, messages, tokens, f"load-{number}")
        except (aiohttp.ClientError, RuntimeError, TimeoutError) as error:
            load.errors.append(repr(error)[:300])
            return
        load.add(answer)
        messages.append({"role": "assistant", "content": answer.text})


async def conversations(endpoint: Endpoint, streams: int, turns: int, tokens: int, words: int = 0) -> Load:
    """`streams` conversations at once, each of `turns` streamed answers of `tokens` tokens at temperature 0."""
    load, system = Load(), shared_prompt(words)
    async with session(endpoint) as http:
        began = time.perf_counter()
        await asyncio.gather(*(_conversation(http, endpoint, i, turns, tokens, system, load) for i in range(streams)))
        load.seconds = time.perf_counter() - began
    return load


async def questions(url: str, model: str, flights: int, total: int, key: str = "") -> Load:
    """`total` single questions, not streamed, `flights` at once; `first` holds the time of each whole answer."""
    load = Load()
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hello small world"}]}).encode()
    headers = {"Content-Type": "application/json"}
    left = iter(range(total))

    async def lane(http: aiohttp.ClientSession) -> None:
        for _ in left:
            began = time.perf_counter()
            async with http.post(f"{url}/chat/completions", data=body, headers=headers) as response:
                raw = await response.read()
            if response.status == 200:
                load.first.append(time.perf_counter() - began)
                load.done += 1
            else:
                load.errors.append(f"{response.status} {raw[:200]!r}")

    async with session(Endpoint(url, model, key)) as http:
        began = time.perf_counter()
        await asyncio.gather(*(lane(http) for _ in range(flights)))
        load.seconds = time.perf_counter() - began
    return load


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("model")
    for name in ("streams", "turns", "tokens"):
        parser.add_argument(name, type=int)
    parser.add_argument("words", type=int, nargs="?", default=0)
    given = parser.parse_args()
    place = Endpoint(given.url.rstrip("/"), given.model, os.environ.get("API_KEY", ""))
    found = asyncio.run(conversations(place, given.streams, given.turns, given.tokens, given.words))
    print(json.dumps(found.summary()))
