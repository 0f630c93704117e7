"""From a job to what the engine computes: prompt, sampling, constraint, tools, adapter; one work for each answer.

It computes nothing and keeps nothing but the prompts' memory. What always holds: what a request asks for is done or
refused by name; whose words its tokens are is said here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from schemas.errors import Rejected
from workers import Job
from workers.llama.engine.cache import OPERATOR
from workers.llama.engine.request import Work
from workers.llama.prompts import tools
from workers.llama.prompts.calls import Calls
from workers.llama.prompts.prompt import Prompt, Prompts, system_length
from workers.llama.prompts.summarise import Summarise
from workers.llama.sampling import wishes


class Vocabulary(Protocol):
    """What must be known of the model's tokens."""

    vocabulary: int

    @property
    def control(self) -> Mapping[str, int]:
        """Control tokens by their names."""


class Jobs:
    """Makes the works of one model."""

    def __init__(
        self,
        prompts: Prompts,
        model: Vocabulary,
        style: tools.Style,
        defaults: Mapping[str, float],
        *,
        adapters: Collection[str] = (),
        max_tokens: int,
        remedy: str = "",
    ) -> None:
        """`defaults`: of sampling; `max_tokens`: of a reply that names none; `remedy`: against a full window."""
        self._prompts = prompts
        self._model = model
        self._style = style
        self._defaults = defaults
        self._adapters = {name for name in adapters if name}
        self._max_tokens = max_tokens
        self._remedy = remedy
        marks = {mark: model.control[mark] for mark in (style.begin, style.end) if mark in model.control}
        self._marks = marks
        self._shown = {token: mark.encode() for mark, token in marks.items()}

    def prompt(self, job: Job) -> Prompt | Summarise:
        """The prompt, or what must be generated before there is one; raises `Rejected`."""
        wanted = self._wanted(job)
        if job.kind == "completion":
            return self._prompts.raw(job.text, wanted)
        application = not job.shared and "/" in job.tenant
        offered = tools.Offered(tools.checked(job.sampling.tools, job.sampling.tool_choice), above=application)
        return self._prompts.chat(
            job.messages,
            wanted,
            system_length(job.messages) if application else job.shared,
            owner=owner(job),
            conversation=job.conversation,
            offered=offered,
        )

    def works(self, job: Job, prompt: Prompt) -> list[Work]:
        """One for each answer that is asked for, the seeds counted up."""
        wish = job.sampling
        if wish.adapter and wish.adapter not in self._adapters:
            known = ", ".join(sorted(self._adapters)) or "none"
            raise Rejected(f"this model has no adapter {wish.adapter!r}; it has: {known}", code="unknown_adapter")
        offered = tools.checked(wish.tools, wish.tool_choice) if job.kind != "completion" else ()
        constraint = tools.constraint_for(
            offered, wish.tool_choice, wish.parallel_tool_calls, self._style, tokens=self._marks, form=wish.format
        )
        wanted = self._wanted(job)
        room = self._prompts.window - len(prompt.tokens)
        return [
            Work(
                request=job.request,
                tokens=prompt.tokens,
                operator=prompt.operator,
                owner=owner(job),
                above=OPERATOR if job.shared else owner(job).rpartition("/")[0],
                conversation=job.conversation,
                sampler=wishes.resolve(
                    wish,
                    self._defaults,
                    vocabulary=self._model.vocabulary,
                    constraint=constraint,
                    choice=choice,
                ),
                stops=wish.stop,
                reply_max=min(wanted, room),
                choice=choice,
                adapter=wish.adapter,
                calls=Calls(self._style, (t.name for t in offered), job.request, choice) if offered else None,
                shown=self._shown if offered else {},
                clipped=self._clipped(prompt) if room < wanted else "",
                notes=prompt.notes,
            )
            for choice in range(wish.n)
        ]

    def _wanted(self, job: Job) -> int:
        return max(job.sampling.max_tokens or self._max_tokens, 1)

    def _clipped(self, prompt: Prompt) -> str:
        return (
            f"The answer was cut because the window is full: prompt {len(prompt.tokens)} tokens, "
            f"window {self._prompts.window}; {self._remedy}."
        )


def owner(job: Job) -> str:
    """Whose cells a job's words are: its tenant's, or nobody else's at all when it names none."""
    if job.tenant:
        return f"tenant {job.tenant}"
    return f"conversation {job.conversation}" if job.conversation else f"request {job.request}"
