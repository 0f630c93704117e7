"""What the HTTP API adds in front of a model that needs no time: Roost (echo) against the LiteLLM proxy.

LiteLLM stands before an instant mock server; its added latency is its latency less that of the mock alone. Roost's
is its whole latency, as its echo model runs behind the durable path. Both are measured in turn, in one run. LiteLLM
lives in a virtual environment of its own under `build/litellm/`, made on first use.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import statistics
import sys
import tempfile
import venv
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec
import yaml
from aiohttp import web

from benchmarks.load import questions
from benchmarks.result import Row, Unavailable, main, note, percentile
from benchmarks.stack import Stack

NAME = "http_overhead"
ROOT = Path(__file__).resolve().parent.parent
LITELLM = ROOT / "build" / "litellm"
PACKAGE = "litellm[proxy]"
KEY = "sk-bench"
START_S = 120.0
GOAL_LATENCY, GOAL_RATE = 0.3, 4.0


async def install() -> Path:
    """The `litellm` program, installed on first use (some minutes, about 1 GB)."""
    program = LITELLM / "bin" / "litellm"
    if not program.exists():
        note(f"{NAME}: installing {PACKAGE} in {LITELLM}, once")
        await asyncio.to_thread(venv.create, LITELLM, with_pip=True)
        pip = await asyncio.create_subprocess_exec(LITELLM / "bin" / "pip", "install", "-q", PACKAGE, stdout=sys.stderr)
        if await pip.wait() != 0:
            raise Unavailable(f"{PACKAGE} cannot be installed; see above")
    return program


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def mock() -> tuple[web.AppRunner, str]:
    """An OpenAI-compatible server that answers at once with the same bytes."""
    body = msgspec.json.encode(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "mock",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "hello small world"},
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6},
        }
    )

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=body, content_type="application/json")

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}/v1"


@asynccontextmanager
async def litellm(upstream: str) -> AsyncIterator[str]:
    """A LiteLLM proxy with one worker in front of `upstream`, as its quick start sets it up."""
    program = await install()
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="roost-bench-") as folder:
        file = Path(folder) / "config.yaml"
        parameters = {"model": "openai/mock", "api_base": upstream, "api_key": "x"}
        file.write_text(
            yaml.safe_dump(
                {
                    "model_list": [{"model_name": "echo", "litellm_params": parameters}],
                    "general_settings": {"master_key": KEY},
                    "litellm_settings": {"telemetry": False},
                }
            )
        )
        process = await asyncio.create_subprocess_exec(
            program, "--config", str(file), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1",
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
            env={**os.environ, "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        )  # fmt: skip
        try:
            url = f"http://127.0.0.1:{port}"
            await _wait(f"{url}/health/liveliness", process)
            yield f"{url}/v1"
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), 15)
            except TimeoutError:
                process.kill()
                await process.wait()


async def _wait(url: str, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(START_S), aiohttp.ClientSession() as http:
        while process.returncode is None:
            try:
                async with http.get(url) as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.2)
    raise Unavailable("the LiteLLM proxy ended at its start")


async def run(quick: bool) -> list[Row]:
    rounds, single, many = (2, 100, 500) if quick else (3, 300, 2000)
    runner, upstream = await mock()
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    try:
        async with litellm(upstream) as proxy, Stack() as roost:
            sides = {"mock": (upstream, ""), "LiteLLM": (proxy, KEY), "Roost": (f"{roost.http}/v1", roost.key)}
            for url, key in sides.values():
                await questions(url, "echo", 10, 100, key)
            for i in range(rounds):
                note(f"{NAME}: round {i + 1} of {rounds}")
                for name, (url, key) in sides.items():
                    for flights, total in ((1, single), (50, many)):
                        load = await questions(url, "echo", flights, total, key)
                        if load.errors:
                            raise RuntimeError(f"{name}: {len(load.errors)} failed: {load.errors[0]}")
                        point = (percentile(load.first, 0.5) * 1000, load.done / load.seconds)
                        found.setdefault((name, flights), []).append(point)
    finally:
        await runner.cleanup()
    return _rows(found)


def _rows(found: dict[tuple[str, int], list[tuple[float, float]]]) -> list[Row]:
    latency = {side: statistics.median(p for p, _ in points) for side, points in found.items()}
    rate = {side: statistics.median(r for _, r in points) for side, points in found.items()}
    rows = []
    for (name, flights), value in latency.items():
        rows.append(Row(benchmark=NAME, what=f"{name}, {flights} in flight: p50", value=value, unit="ms"))
        what = f"{name}, {flights} in flight: rate"
        rows.append(Row(benchmark=NAME, what=what, value=rate[name, flights], unit="requests/s"))
    for flights in (1, 50):
        added = latency["Roost", flights] / (latency["LiteLLM", flights] - latency["mock", flights])
        what = f"added latency, {flights} in flight: Roost ÷ LiteLLM"
        rows.append(Row(benchmark=NAME, what=what, value=added, unit="×", goal=GOAL_LATENCY, least=False))
    faster = rate["Roost", 50] / rate["LiteLLM", 50]
    rows.append(Row(benchmark=NAME, what="rate, 50 in flight: Roost ÷ LiteLLM", value=faster, unit="×", goal=GOAL_RATE))
    return rows


if __name__ == "__main__":
    main(run)
