"""What a request asks for against what its backend can do. Pure.

What always holds: a wish that cannot be met is refused by its name and never left out in silence.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from schemas.errors import Rejected
from schemas.message import Kind
from workers import Ability, Job

DOES: dict[Kind, str] = {
    "embedding": "embeds no texts",
    "image": "makes no images",
    "completion": "continues no prompts",
}


def check_able(job: Job, model: str, kinds: Collection[Kind], abilities: Collection[Ability]) -> None:
    """Raises `Rejected(unsupported)`; its sentence begins with the name of the field."""
    if job.kind not in kinds:
        does = DOES.get(job.kind, "holds no conversations")
        raise Rejected(f"kind: the model {model!r} {does}; ask another", code="unsupported")
    for ability, field in wishes(job):
        if ability not in abilities:
            raise Rejected(
                f"{field}: the model {model!r} cannot do this; leave it out, or ask another model", code="unsupported"
            )


def wishes(job: Job) -> Iterator[tuple[Ability, str]]:
    """The abilities that a job needs, each with the field that asks for it."""
    sampling = job.sampling
    if sampling.tools:
        yield "tools", "tools"
    for i, message in enumerate(job.messages):
        if message.tool_calls or message.role == "tool":
            yield "tools", f"messages[{i}]"
    if sampling.format is not None:
        yield "format", "format"
    if sampling.logprobs is not None:
        yield "logprobs", "logprobs"
    if sampling.n > 1:
        yield "n", "n"
    if sampling.logit_bias:
        yield "logit_bias", "logit_bias"
    if sampling.adapter:
        yield "adapter", "adapter"
    if job.attachments:
        yield "files", "attachments"
