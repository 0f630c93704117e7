"""Builds llama.cpp's own programs, our peers, from the source that the pinned llama-cpp-python carries.

Not part of the product. The source comes through pip with its hash of the package index, the build goes to
`build/llama.cpp/` and is done once.

    python benchmarks/llama_server.py            # builds and prints where the programs are
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSION = "0.3.36"
CACHE = Path(os.environ.get("ROOST_LLAMA_BUILD", ROOT / "build" / "llama.cpp"))
"""Where source and programs go; a folder that already holds `bin/llama-server` is taken as it is."""
TARGETS = ("llama-server", "llama-batched-bench")
START_S = 60.0


def source() -> Path:
    """The unpacked llama.cpp source, fetched when it is not there."""
    tree = CACHE / f"llama_cpp_python-{VERSION}" / "vendor" / "llama.cpp"
    if not tree.is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        run(sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", "llama-cpp-python",
            "--dest", str(CACHE), f"llama-cpp-python=={VERSION}")  # fmt: skip
        with tarfile.open(next(CACHE.glob(f"llama_cpp_python-{VERSION}*.tar.gz"))) as archive:
            archive.extractall(CACHE, filter="data")
    return tree


def program(name: str) -> Path:
    """A built program of `TARGETS`; builds all of them the first time (some minutes)."""
    found = CACHE / "bin" / name
    if not found.exists():
        if shutil.which("cmake") is None:
            raise SystemExit("cmake is missing: install it, or `pip install cmake`")
        print(f"building {', '.join(TARGETS)} in {CACHE}, once, some minutes …", file=sys.stderr)
        jobs = f"-j{os.cpu_count() or 1}"
        run("cmake", "-S", str(source()), "-B", str(CACHE), "-DCMAKE_BUILD_TYPE=Release", "-DLLAMA_CURL=OFF",
            "-DLLAMA_OPENSSL=OFF", "-DLLAMA_BUILD_TESTS=OFF")  # fmt: skip
        run("cmake", "--build", str(CACHE), jobs, "--target", *TARGETS)
    return found


def own_environment() -> dict[str, str]:
    """Our environment without what our own code set for its threads: the peer waits as its authors meant it to."""
    return {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}


def run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=sys.stderr)


@contextmanager
def server(model: Path, *arguments: str, environment: dict[str, str] | None = None) -> Iterator[str]:
    """A running llama-server; gives its `/v1` address. `environment`: variables beside ours."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(program("llama-server")), "-m", str(model), "--port", str(port), "--host", "127.0.0.1", *arguments]
    variables = own_environment() | (environment or {})
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=variables)
    try:
        _wait(process, f"http://127.0.0.1:{port}/health")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], url: str) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise SystemExit(f"llama-server ended with {process.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=1) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise SystemExit(f"llama-server was not ready within {START_S:g} s")


if __name__ == "__main__":
    for target in TARGETS:
        print(program(target))
