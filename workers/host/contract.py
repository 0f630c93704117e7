"""What every backend must keep, as named rules that run it on the real lane: for plug-in authors and our own tests.

    CASE = BackendCase(MyBackend, settings={"words_min": 2}, path=Path("faq.txt"))

    @pytest.mark.parametrize("rule", RULES, ids=str)
    def test_it_keeps_the_contract(rule):
        rule.check(CASE)

Not a benchmark, and no judge of what a model says; it needs no pytest. What always holds: each rule loads a backend
of its own and takes it down again, no wait is longer than the case allows, and nothing is found by waiting for luck:
a gate holds the backend between its steps while a rule does what it is about.
"""

from __future__ import annotations

import asyncio
import gc
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
from msgspec import Struct
from msgspec.structs import replace

from schemas.config import ModelConfig, settings_of
from schemas.errors import ConfigError, RoostError
from schemas.message import Usage
from workers import BackendSettings, Finished
from workers.host.bench import Answer, BackendCase, Broken, job_of, made, opened, pictures_of

__all__ = ["RULES", "BackendCase", "Broken", "Rule", "broken"]

Check = Callable[[BackendCase], Coroutine[Any, Any, None]]

TOGETHER_MAX = 6
"""Jobs at once, where the backend has so many slots: enough to be mixed up."""
STEPS_AFTER_CANCEL = 2
"""The step during which the cancel came, and the one that ends the job."""
LEAK_BYTES = 32 * 1024 * 1024
"""What allocators keep differs from one load to the next by less than this."""
GARBAGE = b"\x00\xff\xfe this is not a model \x80\n" * 64


class Rule(Struct, frozen=True):
    """One rule: `name`, the sentence that states it, and its check."""

    name: str
    says: str
    run: Check

    def __str__(self) -> str:
        return self.name

    def check(self, case: BackendCase) -> None:
        """Raises `Broken` with what the backend did wrong. Not from within an event loop; there, await `run`."""
        try:
            asyncio.run(self.run(case))
        except Broken as broken:
            raise Broken(f"{case.kind.__name__}: {self.name}: {broken}") from broken.__cause__


RULES: list[Rule] = []
"""All rules, cheap ones first."""


def broken(case: BackendCase) -> list[str]:
    """What is wrong with a backend, a sentence for each broken rule; empty when it keeps the contract."""
    found = []
    for each in RULES:
        try:
            each.check(case)
        except Broken as error:
            found.append(str(error))
    return found


def rule(check: Check) -> Check:
    """The function's name is the rule's name, its docstring what the rule says."""
    RULES.append(Rule(check.__name__, " ".join((check.__doc__ or "").split()), check))
    return check


# -- before a model is there ----------------------------------------------------------------------------------


@rule
async def settings_refuse_what_they_do_not_know(case: BackendCase) -> None:
    """Settings are a strict type of their own; an unknown field is a ConfigError that names it."""
    if not issubclass(case.kind.Settings, BackendSettings):
        raise Broken("its Settings do not derive from BackendSettings")
    taken = set(case.kind.Settings.__struct_fields__) & set(ModelConfig.__struct_fields__)
    if taken:
        raise Broken(f"its setting {min(taken)!r} never arrives: every model has a field of that name; rename it")
    made(case)
    try:
        settings_of(case.kind.Settings, {**case.settings, "no_such_field": 1}, "the case")
    except ConfigError as error:
        if "no_such_field" not in error.message:
            raise Broken(f"the refusal of an unknown setting does not name it: {error.message!r}") from None
        return
    raise Broken("its Settings take an unknown field; a misspelt setting would go unnoticed")


@rule
async def a_file_it_cannot_load_is_refused_by_name(case: BackendCase) -> None:
    """Loading what is missing, empty, a folder or garbage raises a RoostError that names the path."""
    if case.path is None:
        return
    await asyncio.to_thread(_refusals, case)


def _refusals(case: BackendCase) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model").mkdir()
        (folder / "empty.bin").write_bytes(b"")
        (folder / "garbage.bin").write_bytes(GARBAGE)
        _refused(case, "a missing file", folder / "missing.bin")
        _refused(case, "an empty file", folder / "empty.bin")
        _refused(case, "a file of garbage", folder / "garbage.bin")
        _refused(case, "an empty folder", folder / "model")
    try:
        made(case).load(None)
    except RoostError:
        return
    except Exception as error:
        raise Broken(f"load(None), a model without `path`, raised {error!r}; raise ConfigError") from error


def _refused(case: BackendCase, what: str, path: Path) -> None:
    try:
        made(case).load(path)
    except RoostError as error:
        if str(path) not in error.message:
            raise Broken(f"the refusal of {what} does not name it: {error.message!r}") from None
    except Exception as error:
        raise Broken(f"load() of {what} raised {error!r}; raise ConfigError or Untrusted") from error
    else:
        raise Broken(f"load() of {what} raised nothing; the operator would see a model that is ready")


# -- what it says ---------------------------------------------------------------------------------------------


@rule
async def it_says_what_it_is(case: BackendCase) -> None:
    """After `load`, `version` names what answers, `slots` is at least 1 and `context` at least 0."""
    async with opened(case) as bench:
        backend = bench.backend
        if not backend.version or backend.version != backend.version.strip():
            raise Broken(f"its version after load() is {backend.version!r}; nobody could tell which model answered")
        if backend.slots < 1 or backend.context < 0:
            raise Broken(f"slots {backend.slots} and context {backend.context} make no sense")
        if case.slots is not None and backend.slots != case.slots:
            raise Broken(f"the configuration said slots {case.slots}, and it has {backend.slots}")


@rule
async def every_job_ends_once(case: BackendCase) -> None:
    """Every job gets exactly one `finished`, and nothing after it."""
    async with opened(case) as bench:
        jobs = [bench.job(max_tokens=1), *(bench.job() for _ in range(min(bench.backend.slots, 2) - 1))]
        await asyncio.gather(*(bench.answer(job) for job in jobs))
        for job in jobs:
            said = bench.watch.of(job.request)
            ends = [i for i, item in enumerate(said) if isinstance(item, Finished)]
            if len(ends) > 1:
                raise Broken(f"one job got {len(ends)} times `finished`")
            if ends and ends[0] != len(said) - 1:
                raise Broken(f"a job went on after its `finished`, with {said[ends[0] + 1]!r:.60}")


@rule
async def characters_are_whole(case: BackendCase) -> None:
    """Every piece is text of its own: no half of a character, no surrogate, no mark of a decoding that failed."""
    async with opened(case) as bench:
        for prompt in case.prompts[:2]:
            for item in (await bench.answer(bench.job(prompt))).said:
                if isinstance(item, str) and not item.isascii():
                    if "\ufffd" in item:
                        raise Broken(f"the piece {item!r:.60} holds U+FFFD: a character was cut and then decoded")
                    if any("\ud800" <= c <= "\udfff" for c in item):
                        raise Broken(f"the piece {item!r:.60} holds a surrogate, half of a character")


@rule
async def the_same_job_gives_the_same_answer(case: BackendCase) -> None:
    """A job computed again with its seed, by a backend loaded anew, and by `generate` alone, says the same."""
    async with opened(case) as bench:
        first = (await bench.answer(bench.job())).text
    async with opened(case) as bench:
        second = (await bench.answer(bench.job())).text
    if first != second:
        raise Broken(f"the same job with the same seed says {first!r:.60}, and when computed again {second!r:.60}")

    def alone() -> str:
        backend = made(case)
        backend.load(case.path)
        try:
            items = list(backend.generate(job_of(case, 0)))
            told = (pictures_of(item) if isinstance(item, Finished) else item for item in items)
            return "".join(item for item in told if isinstance(item, str))
        finally:
            backend.close()

    if (text := await asyncio.to_thread(alone)) != first:
        raise Broken(f"generate() alone says {text!r:.60}, and on its lane {first!r:.60}")


@rule
async def max_tokens_is_kept(case: BackendCase) -> None:
    """An answer has at most `max_tokens` tokens, and says `length` where they cut it."""
    if case.drawing is not None:
        return
    async with opened(case) as bench:
        whole = await bench.answer(bench.job())
        if whole.tokens <= case.max_tokens:
            raise Broken(
                f"nothing to see: the answer to the first prompt has {whole.tokens} tokens, no more than "
                f"max_tokens {case.max_tokens}; give the case a longer one or a lower max_tokens"
            )
        cut = await bench.answer(bench.job(max_tokens=case.max_tokens))
        if cut.tokens > case.max_tokens or len(cut.text) >= len(whole.text):
            raise Broken(f"max_tokens={case.max_tokens} brought {cut.tokens} tokens, {cut.text!r:.60}")
        if any(isinstance(item, Finished) for item in cut.said) and cut.finished.finish != "length":
            raise Broken(f"an answer cut by max_tokens says finish={cut.finished.finish!r}; say 'length'")


@rule
async def usage_adds_up(case: BackendCase) -> None:
    """Counts are not negative, cached tokens are some of the prompt's, and text has tokens."""
    async with opened(case) as bench:
        for job in (bench.job(), bench.job(max_tokens=1)):
            answer = await bench.answer(job)
            usage = answer.finished.usage
            if min(usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens) < 0:
                raise Broken(f"{usage} counts less than nothing")
            if usage.cached_tokens > usage.prompt_tokens:
                raise Broken(f"{usage}: more of the prompt was cached than there was")
            if usage != Usage() and answer.text and case.drawing is None and usage.completion_tokens == 0:
                raise Broken(f"an answer of {len(answer.text)} characters counts no completion_tokens")


@rule
async def stop_strings_are_left_out(case: BackendCase) -> None:
    """Where stop strings are honoured, neither they nor what follows them is in the text."""
    if not case.honours_stop:
        return
    async with opened(case) as bench:
        whole = (await bench.answer(bench.job())).text
        middle = len(whole) // 2
        stop = whole[middle : middle + 4]
        answer = await bench.answer(bench.job(stop=(stop,)))
        if stop in answer.text:
            raise Broken(f"the stop string {stop!r} is in its answer {answer.text!r:.80}")
        if answer.finished.finish != "stop":
            raise Broken(f"an answer ended by a stop string says finish={answer.finished.finish!r}; say 'stop'")


# -- many at once, and their ends -----------------------------------------------------------------------------


@rule
async def jobs_at_once_are_not_mixed(case: BackendCase) -> None:
    """Jobs served at the same time say what each says alone."""
    async with opened(case) as bench:
        prompts = case.prompts[: min(bench.backend.slots, TOGETHER_MAX)]
        alone = [(await bench.answer(bench.job(prompt))).text for prompt in prompts]
        bench.watch.gate.clear()
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(bench.ask(bench.job(prompt))) for prompt in prompts]
            await asyncio.sleep(0)  # all are handed to the lane before any takes a step
            bench.watch.gate.set()
        for prompt, text, task in zip(prompts, alone, running, strict=True):
            if (together := task.result().text) != text:
                raise Broken(f"{prompt!r} is answered {text!r:.60} alone, and among others {together!r:.60}")


@rule
async def cancel_ends_a_running_job(case: BackendCase) -> None:
    """A cancelled job ends soon with `cancelled`, and counts no more tokens than it said."""
    async with opened(case) as bench:
        whole = await bench.answer(bench.job())
        job, begun = bench.job(), asyncio.Event()
        bench.watch.hold = True
        async with _group() as tasks:
            running = tasks.create_task(bench.ask(job, begun))
            await begun.wait()
            bench.lane.cancel(job.request)
            steps, before = bench.watch.steps, len(bench.watch.of(job.request))
            bench.watch.gate.set()
            answer = await _soon(running, case.cancel_s)
        after = len(bench.watch.of(job.request)) - before
        if answer.finished.finish != "cancelled" and answer.text != whole.text:
            raise Broken(f"a cancelled job says finish={answer.finished.finish!r}")
        if bench.watch.steps - steps > STEPS_AFTER_CANCEL and after > STEPS_AFTER_CANCEL:
            raise Broken(f"a cancelled job went on for {bench.watch.steps - steps} steps; a cancel ends it in one")
        if len(answer.text) < len(whole.text) and 0 < whole.tokens <= answer.finished.usage.completion_tokens:
            raise Broken(f"cancelled after {answer.text!r:.60}, it counts {whole.tokens} tokens, those of all it had")


@rule
async def cancel_ends_a_job_that_has_not_begun(case: BackendCase) -> None:
    """A job that is cancelled before its first step ends with `cancelled`."""
    async with opened(case) as bench:
        bench.watch.gate.clear()
        job = bench.job()
        async with _group() as tasks:
            running = tasks.create_task(bench.ask(job))
            others = [tasks.create_task(bench.ask(bench.job())) for _ in range(min(bench.backend.slots, 2) - 1)]
            await asyncio.sleep(0)  # both are handed to the lane
            bench.lane.cancel(job.request)
            bench.watch.gate.set()
            answer = await _soon(running, case.cancel_s)
            await asyncio.gather(*others)
        if answer.finished.finish != "cancelled":
            raise Broken(f"cancelled before it began, a job still says {answer.text!r:.60} ({answer.finished.finish})")


@rule
async def cancel_leaves_the_others_alone(case: BackendCase) -> None:
    """The neighbours of a cancelled job say what they would have said, also when nobody knows the cancelled one."""
    async with opened(case) as bench:
        if bench.backend.slots < 2:
            return
        whole = await bench.answer(bench.job())
        bench.watch.stray = True
        bench.watch.gate.clear()
        job, other = bench.job(), bench.job()
        async with _group() as tasks:
            running = [tasks.create_task(bench.ask(each)) for each in (job, other)]
            await asyncio.sleep(0)  # both are handed to the lane
            bench.lane.cancel(job.request)
            bench.lane.cancel("a request that nobody made")
            bench.watch.gate.set()
            answer = (await asyncio.gather(*running))[1]
        if answer.text != whole.text or answer.finished.finish != whole.finished.finish:
            raise Broken(f"while another job is cancelled, a job says {answer.text!r:.60} ({answer.finished.finish})")


@rule
async def odd_jobs_harm_nobody(case: BackendCase) -> None:
    """Empty, huge and unprintable texts are answered or refused by a RoostError, and the next job is served."""
    async with opened(case) as bench:
        texts = {"an empty text": "", "control characters": "\0\x1b[2J\r\n", "100,000 characters": "abcd " * 20_000}
        jobs = {what: bench.job(text, max_tokens=4) for what, text in texts.items()}
        jobs["a conversation without messages"] = replace(bench.job(), messages=())
        for what, job in jobs.items():
            error = (await bench.ask(job)).finished.error
            if error is not None and error.code == "model_failed":
                raise Broken(f"{what} made it fail: {error.message}; raise Rejected for what it cannot answer")
        await bench.answer(bench.job())


@rule
async def close_ends_what_is_running_and_gives_back_everything(case: BackendCase) -> None:
    """`close`, also in the middle of an answer, returns soon and leaves neither a thread nor the model's memory."""
    before = set(threading.enumerate())
    taken = []
    for _ in range(3):
        async with opened(case) as bench, _group() as tasks:
            begun = asyncio.Event()
            bench.watch.hold = True
            running = tasks.create_task(bench.ask(bench.job(), begun))
            await begun.wait()
            await bench.close()
            await running
        gc.collect()
        taken.append(psutil.Process().memory_info().rss)
    if (more := taken[2] - taken[0]) > LEAK_BYTES:
        raise Broken(f"each load and close keeps about {more // 2_000_000} MB")
    left = [t.name for t in set(threading.enumerate()) - before if not t.name.startswith(("asyncio_", "lane-"))]
    if left:
        raise Broken(f"close() left the thread {min(left)!r} behind")


@asynccontextmanager
async def _group() -> AsyncIterator[asyncio.TaskGroup]:
    """A task group whose first fault is told as it is, and not as a group."""
    try:
        async with asyncio.TaskGroup() as tasks:
            yield tasks
    except* Broken as faults:
        raise faults.exceptions[0] from None


async def _soon(running: asyncio.Task[Answer], limit_s: float) -> Answer:
    try:
        async with asyncio.timeout(limit_s):
            return await asyncio.shield(running)
    except TimeoutError:
        raise Broken(f"a cancelled job has not ended after {limit_s:g} s; look at `job.cancelled`") from None
