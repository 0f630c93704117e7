"""llama-cpp-python's own servers, as peers: `python -m llama_cpp.server` (one at a time) and, from the source
distribution, `examples/server/server.py` (batched). Not part of the product.

What they need lives in a virtual environment under `build/llama-cpp-python/`, made on first use; the compiled llama.cpp
is ours, or for the batched one llama-server's.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import sysconfig
import tempfile
import venv
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from benchmarks.http_overhead import free_port
from benchmarks.llama_server import own_environment, program, source
from benchmarks.load import Endpoint
from benchmarks.models import ROOT
from benchmarks.result import Unavailable, note
from benchmarks.serve import Sizes

PLACE = ROOT / "build" / "llama-cpp-python"
PACKAGES = (
    "fastapi", "uvicorn", "pydantic-settings", "sse-starlette", "starlette-context",
    "safetensors", "websockets", "openai", "jinja2",
)  # fmt: skip
ONE, BATCHED = "llama_cpp.server", "llama-cpp-python's batched server"
WHICH = (ONE, BATCHED)
START_S = 60.0


async def _python() -> Path:
    """The interpreter of the environment, made on first use."""
    program, mark = PLACE / "bin" / "python", PLACE / ".done"
    if not mark.exists():
        note(f"installing {', '.join(PACKAGES)} in {PLACE}, once")
        await asyncio.to_thread(venv.create, PLACE, with_pip=True)
        command = [program, "-m", "pip", "install", "-q", *PACKAGES]
        pip = await asyncio.create_subprocess_exec(*command, stdout=sys.stderr)
        if await pip.wait() != 0:
            raise Unavailable(f"{', '.join(PACKAGES)} cannot be installed; see above")
        found = await asyncio.create_subprocess_exec(
            program, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", stdout=asyncio.subprocess.PIPE
        )
        folder = Path((await found.communicate())[0].decode().strip())
        (folder / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")  # llama_cpp and numpy, behind its own
        mark.touch()
    return program


def _command(which: str, model: Path, sizes: Sizes, port: int, folder: Path) -> list[str]:
    if which == ONE:
        words = {
            "model": model, "model_alias": "chat", "n_ctx": sizes.context, "n_threads": sizes.threads,
            "n_threads_batch": sizes.threads, "host": "127.0.0.1", "port": port, "interrupt_requests": "false",
        }  # fmt: skip
        return ["-m", "llama_cpp.server", *(str(word) for key, value in words.items() for word in (f"--{key}", value))]
    script = source().parent.parent / "examples" / "server" / "server.py"
    if not script.is_file():
        raise Unavailable(f"{script} is not there")
    config = folder / "server.json"
    config.write_text(json.dumps(_config(model, sizes, port)))
    return [str(script), "-C", str(config)]


def _library(which: str, folder: Path) -> dict[str, str]:
    """The batched server wants llama.cpp's image part too, which we do not build; llama-server's build has it."""
    if which == ONE:
        return {}
    ours = Path(sysconfig.get_path("purelib"), "llama_cpp")
    shutil.copytree(ours, folder / "llama_cpp", ignore=shutil.ignore_patterns("lib"))
    (folder / "llama_cpp" / "lib").symlink_to(program("llama-server").parent)
    return {"PYTHONPATH": str(folder)}


def _config(model: Path, sizes: Sizes, port: int) -> dict[str, object]:
    return {
        "server": {"host": "127.0.0.1", "port": port},
        "model": {
            "path": str(model), "alias": "chat", "n_ctx": sizes.context * sizes.slots, "kv_unified": True,
            "max_seq_len": sizes.context, "n_seq_max": sizes.slots, "threads": sizes.threads,
            "threads_batch": sizes.threads,
        },
    }  # fmt: skip


@asynccontextmanager
async def server(which: str, model: Path, sizes: Sizes) -> AsyncIterator[Endpoint]:
    """One of `WHICH`, running and warm."""
    python, port = await _python(), free_port()
    with tempfile.TemporaryDirectory() as folder, Path(folder, "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            python, *_command(which, model, sizes, port, Path(folder)),
            stdout=log, stderr=log, env=own_environment() | _library(which, Path(folder)), cwd=folder,
        )  # fmt: skip
        try:
            url = f"http://127.0.0.1:{port}/v1"
            try:
                await _ready(process, url)
            except TimeoutError:
                text = Path(folder, "log").read_text(errors="replace").strip()
                raise Unavailable(f"it did not start: {text[-300:]}") from None
            yield Endpoint(url, "chat")
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def _ready(process: asyncio.subprocess.Process, url: str) -> None:
    """Return when it answers; `TimeoutError` when it does not in time, or has ended."""
    async with asyncio.timeout(START_S), aiohttp.ClientSession() as http:
        while process.returncode is None:
            try:
                async with http.get(f"{url}/models") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                await asyncio.sleep(0.1)
    raise TimeoutError
