"""The engine alone ÷ llama-batched-bench, at 1, 4, 8 and 16 sequences, in turn on the same model file.

    python benchmarks/engine_vs_batched_bench.py [--pairs 5] [--prompt 128] [--tokens 48] [--model FILE]

Both decode the same number of tokens behind prompts of the same length with the same threads; the engine also
samples (greedy), turns tokens into text and keeps its books, which llama-batched-bench does not. `-kvu` makes
llama-batched-bench use one pool of cells as the engine does; without it each sequence has a buffer of its own.
Prints a line of JSON for each width: tokens a second (medians) and the median of the pairs' ratios, for answers and
for prompts. The engine computes prompts in pieces of 120 ms on purpose, so that a cancel or a new request waits no
longer; llama-batched-bench takes 512 tokens at a time.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import time
from array import array
from pathlib import Path

from benchmarks.llama_server import ROOT, own_environment, program
from workers.llama import native
from workers.llama.engine import Engine
from workers.llama.machine import SamplerSpec
from workers.llama.request import Work

WIDTHS = (1, 4, 8, 16)


def engine_rates(engine: Engine, vocabulary: int, width: int, prompt: int, tokens: int) -> tuple[float, float]:
    """Prompt and generated tokens a second: first the prompts, then all answers from the same step on."""
    prompts = [array("i", [random.randrange(100, vocabulary) for _ in range(prompt)]) for _ in range(width)]
    begun = time.perf_counter()
    _serve(engine, prompts, 1)
    middle = time.perf_counter()
    _serve(engine, prompts, tokens)
    end = time.perf_counter()
    return width * prompt / (middle - begun), width * tokens / (end - middle)


def _serve(engine: Engine, prompts: list[array[int]], tokens: int) -> None:
    for i, prompt in enumerate(prompts):
        engine.add(
            Work(
                request=f"{i}",
                tokens=prompt,
                operator=0,
                owner=f"{i}",
                conversation=f"{i}",
                sampler=SamplerSpec(ban_end=True),
                stops=(),
                reply_max=tokens,
            )
        )
    while engine.busy:
        engine.step()


def peer_rates(model: Path, width: int, arguments: argparse.Namespace, *more: str) -> tuple[float, float]:
    """llama-batched-bench's S_PP and S_TG."""
    command = [
        str(program("llama-batched-bench")), "-m", str(model), "-c", str(arguments.cells), "-b", "512", "-ub", "512",
        "-npp", str(arguments.prompt), "-ntg", str(arguments.tokens), "-npl", str(width),
        "-t", str(arguments.threads), "-tb", str(arguments.threads), *more,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=own_environment())
    rows = [line.split("|") for line in done.stdout.splitlines() if line.startswith("|")]
    if len(rows) < 3:  # the head, a line, the numbers
        raise SystemExit(f"llama-batched-bench gave no numbers: {done.stderr[-500:]}")
    values = dict(zip((cell.strip() for cell in rows[0]), (cell.strip() for cell in rows[-1]), strict=True))
    return float(values["S_PP t/s"]), float(values["S_TG t/s"])


def _medians(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    return statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "text-generation" / "current")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cells", type=int, default=4096)
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
    parser.add_argument("--separate", action="store_true", help="let the peer use a buffer for each sequence")
    arguments = parser.parse_args()
    from workers.llama.file import model_file

    path = model_file(arguments.model)
    model = native.NativeModel(path)
    more = () if arguments.separate else ("-kvu",)
    for width in arguments.widths:
        ours, theirs = [], []
        for _ in range(arguments.pairs):
            spec = native.ContextSpec(cells=arguments.cells, sequences=2 * width + 2, batch_max=512,
                                      threads=arguments.threads,)  # fmt: skip
            machine = native.NativeMachine(model, spec)
            engine = Engine(machine)
            engine.warm_up(array("i", [100]))
            ours.append(engine_rates(engine, model.vocabulary, width, arguments.prompt, arguments.tokens))
            engine.close()
            machine.close()
            theirs.append(peer_rates(path, width, arguments, *more))
        (our_prompt, our_answer), (peer_prompt, peer_answer) = (_medians(ours), _medians(theirs))
        prompts, answers = _medians([(a[0] / b[0], a[1] / b[1]) for a, b in zip(ours, theirs, strict=True)])
        result = {
            "sequences": width,
            "engine_tok_s": round(our_answer, 1),
            "batched_bench_tok_s": round(peer_answer, 1),
            "ratio": round(answers, 3),
            "engine_prompt_tok_s": round(our_prompt, 1),
            "batched_bench_prompt_tok_s": round(peer_prompt, 1),
            "prompt_ratio": round(prompts, 3),
        }
        print(json.dumps(result), flush=True)
    model.close()


if __name__ == "__main__":
    main()
