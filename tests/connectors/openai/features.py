"""Scripts of the double gateway that do what a capable model would: call tools, keep to a form, tell log
probabilities, give several answers, embed."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import struct
from collections.abc import AsyncIterator

from schemas.message import Choice, Delta, Inbound, Route, TokenLogprob, ToolCall, TopToken, Usage
from tests.connectors.openai.double import Item, answer, text_of

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "weather", "description": "The weather now", "parameters": CITY}}


async def capable(inbound: Inbound, request: str, cancelled: asyncio.Event) -> AsyncIterator[Item]:
    """What the request asks for, out of the words of its last message."""
    sampling = inbound.sampling
    if inbound.kind == "embedding":
        words = sum(len(text.split()) for text in inbound.inputs)
        yield answer(inbound, request, embeddings=tuple(map(vector, inbound.inputs)), usage=Usage(words))
        return
    asked = (inbound.history or ())[-1] if inbound.history else None
    if sampling.tools and (asked is None or asked.role != "tool") and sampling.tool_choice != "none":
        city = text_of(inbound).split()[-1]
        calls = tuple(
            ToolCall(f"call_{i}", tool.name, json.dumps({"city": city})) for i, tool in enumerate(sampling.tools)
        )
        calls = calls if sampling.parallel_tool_calls else calls[:1]
        yield answer(inbound, request, tool_calls=calls, finish="tool_calls", usage=Usage(5, 9))
        return
    text = json.dumps({"said": text_of(inbound)}) if sampling.format else text_of(inbound)
    words = pieces(text)
    for word, at in words:
        for i in range(sampling.n):
            if inbound.stream:
                yield Delta(
                    request=request,
                    at=at,
                    text=word if i == 0 else word.upper(),
                    choice=i,
                    logprobs=told(inbound, word, i),
                )
    logprobs = tuple(t for word, _ in words for t in told(inbound, word, 0))
    more = tuple(
        Choice(
            text=text.upper(), finish="length", logprobs=tuple(t for word, _ in words for t in told(inbound, word, i))
        )
        for i in range(1, sampling.n)
    )
    usage = Usage(len(words), len(words) * sampling.n)
    route = Route(kind="chat", reason="language", why="this model is for questions in en")
    yield answer(inbound, request, text=text, more=more, logprobs=logprobs, usage=usage, route=route)


def pieces(text: str) -> list[tuple[str, int]]:
    """Words with the blank before them, and where each begins."""
    out, at = [], 0
    for i, word in enumerate(text.split(" ")):
        piece = word if i == 0 else " " + word
        out.append((piece, at))
        at += len(piece)
    return out


def told(inbound: Inbound, word: str, choice: int) -> tuple[TokenLogprob, ...]:
    if inbound.sampling.logprobs is None:
        return ()
    word = word if choice == 0 else word.upper()
    rivals = tuple(TopToken(f"other{i}", -1.0 - i) for i in range(inbound.sampling.logprobs))
    return (TokenLogprob(word, -0.5, tuple(word.encode()), rivals),)


def vector(text: str) -> bytes:
    numbers = [byte - 128 for byte in hashlib.sha256(text.encode()).digest()[:8]]
    length = math.hypot(*numbers)
    return struct.pack("<8f", *(x / length for x in numbers))
