"""Echo: answers with the words it was asked. For tests, benchmarks, and as the skeleton a plug-in author copies."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import cast

from schemas.message import Usage
from workers import Backend, BackendSettings, Finished, Job


class EchoBackend(Backend):
    """Yields the newest message word by word, at the speed of an imagined model."""

    class Settings(BackendSettings, frozen=True):
        """Both in milliseconds: before the first word, and before each further one."""

        delay_ms: float = 0.0
        delay_token_ms: float = 0.0
        max_tokens: int = 4096

    slots = 64
    version = "echo-1"

    def generate(self, job: Job) -> Iterator[str | Finished]:
        settings = cast(EchoBackend.Settings, self.settings)
        words = job.text.split(" ")
        said = 0
        limit = job.sampling.max_tokens or settings.max_tokens
        prompt = sum(len(m.text.split()) for m in job.messages)
        for i, word in enumerate(words):
            pause = settings.delay_token_ms if i else settings.delay_ms
            if pause and job.cancelled is not None and job.cancelled.wait(pause / 1000):
                break
            if pause and job.cancelled is None:
                time.sleep(pause / 1000)
            cancelled = job.cancelled is not None and job.cancelled.is_set()
            if cancelled or i >= limit:
                usage = Usage(prompt_tokens=prompt, completion_tokens=i)
                yield Finished(finish="cancelled" if cancelled else "length", usage=usage)
                return
            yield word if i == 0 else " " + word
            said = i + 1
        cancelled = job.cancelled is not None and job.cancelled.is_set()
        yield Finished(
            finish="cancelled" if cancelled else "stop",
            usage=Usage(prompt_tokens=prompt, completion_tokens=said),
        )
