"""The usual way to put a model behind a queue: one `llama_cpp.Llama`, one request at a time. A child of
`chat_load_vs_one_llama`; not part of the product.

    python -m benchmarks.one_llama MODEL STREAMS TURNS TOKENS WORDS CONTEXT THREADS      (prints JSON)
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from llama_cpp import Llama

from benchmarks.beside import beside
from benchmarks.load import shared_prompt

Job = tuple[list[dict[str, str]], "asyncio.Future[dict[str, Any]]"]
QUEUE_MAX = 100


async def main(path: str, streams: int, turns: int, tokens: int, words: int, context: int, threads: int) -> None:
    model = Llama(path, n_ctx=context, n_threads=threads, n_threads_batch=threads, verbose=False)
    queue: asyncio.Queue[Job] = asyncio.Queue(QUEUE_MAX)
    done = 0

    def answer(messages: list[dict[str, str]], limit: int) -> dict[str, Any]:
        return model.create_chat_completion(messages, max_tokens=limit, temperature=0.0)  # type: ignore[return-value, arg-type]

    async def serve() -> None:
        while True:
            messages, reply = await queue.get()
            reply.set_result(await asyncio.to_thread(answer, messages, tokens))

    async def conversation(number: int) -> None:
        nonlocal done
        messages = [{"role": "system", "content": shared_prompt(words)}]
        for turn in range(turns):
            question = f"Write a long tale about lighthouse {number * 37 + turn} and its keeper."
            messages.append({"role": "user", "content": question})
            reply: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
            await queue.put((messages, reply))
            answered = await reply
            done += answered["usage"]["completion_tokens"]
            messages.append({"role": "assistant", "content": answered["choices"][0]["message"]["content"] or ""})

    answer([{"role": "user", "content": "hello"}], 8)
    async with beside(serve()):
        began = time.perf_counter()
        await asyncio.gather(*(conversation(i) for i in range(streams)))
        seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "completion_tokens": done}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *(int(word) for word in sys.argv[2:])))  # type: ignore[arg-type]
