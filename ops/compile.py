"""Compiles llama.cpp (as llama-cpp-python, pinned in requirements.lock) for this processor, once per machine.

It takes minutes, so the wheel is kept outside the project, under a name made of everything that it depends on:
source, options, compiler and processor. A second clone, or the next environment, installs it in seconds.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from schemas.errors import RoostError

PACKAGE = "llama-cpp-python"
PROGRESS_S = 30.0
LIMIT_S = 7_200.0
"""The slowest machine that is worth the trouble needs an hour."""
SHOWN_LINES = 40


def pinned(lock: str) -> str:
    """The package's block in the text of requirements.lock: version and hashes."""
    match = re.search(rf"^{re.escape(PACKAGE)}==.*(?:\n[ \t]+--hash=.*)+", lock, re.MULTILINE)
    if not match:
        raise RoostError(f"requirements.lock does not pin {PACKAGE} with hashes; run `make lock`")
    return match[0]


def wheel_key(block: str, cmake_args: str, processor: str, compiler: str) -> str:
    """Names a wheel by all that it depends on."""
    return hashlib.sha256("\0".join((block, cmake_args, processor, compiler)).encode()).hexdigest()[:20]


def processor() -> str:
    """What `-march=native` looks at: the machine's kind and the instructions its processor has."""
    try:
        flags = re.search(r"^(?:flags|Features)\s*:.*$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        flags = None
    return f"{sys.platform} {platform.machine()} {flags[0] if flags else platform.processor()}"


def compiler() -> str:
    """The C++ compiler's own description; raises `RoostError` when there is none."""
    program = shutil.which(os.environ.get("CXX", "c++"))
    if program is None or shutil.which("cmake") is None:
        raise RoostError(
            "llama.cpp needs a C++ compiler and CMake; on Debian: apt-get install build-essential cmake. "
            "Without it (`make core`), models of type llama cannot be served"
        )
    done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30, check=False)
    return done.stdout.partition("\n")[0]


def build(block: str, cmake_args: str, folder: Path) -> Path:
    """Compile the wheel into `folder`, telling every half minute that it goes on."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "build.log"
    with tempfile.TemporaryDirectory(dir=folder, prefix="building-") as name:
        requirement = Path(name) / "requirement.txt"
        requirement.write_text(block + "\n")
        command = [
            sys.executable, "-m", "pip", "wheel", "--disable-pip-version-check", "--no-cache-dir", "--no-deps",
            "--require-hashes", "--no-binary", PACKAGE, "--wheel-dir", name, "--requirement", str(requirement),
        ]  # fmt: skip
        env = {**os.environ, "CMAKE_ARGS": cmake_args}
        with log.open("wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=env)
        try:
            _wait(process)
        except BaseException:
            process.terminate()
            process.wait()
            raise
        if process.returncode != 0:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-SHOWN_LINES:])
            raise RoostError(f"llama.cpp could not be compiled; the end of {log}:\n{tail}")
        wheel = next(Path(name).glob("*.whl"))
        return wheel.replace(folder / wheel.name)


def _wait(process: subprocess.Popen[bytes]) -> None:
    began = time.monotonic()
    while True:
        try:
            process.wait(PROGRESS_S)
        except subprocess.TimeoutExpired:
            gone = time.monotonic() - began
            if gone > LIMIT_S:
                raise RoostError(f"compiling llama.cpp took more than {LIMIT_S:.0f} s") from None
            print(f"      still compiling llama.cpp, {gone:.0f} s so far", flush=True)
        else:
            return


def provide(lock: Path, cmake_args: str, cache: Path) -> Path:
    """The wheel for this machine: kept from an earlier time, or compiled now."""
    block = pinned(lock.read_text())
    folder = cache / wheel_key(block, cmake_args, processor(), compiler())
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        found = next(folder.glob("*.whl"), None)
        if found is None:
            print("      compiling llama.cpp for this processor, once: 6 to 8 minutes on two cores", flush=True)
            found = build(block, cmake_args, folder)
        else:
            print(f"      compiled earlier on this machine: {found}", flush=True)
        return found


def install(wheel: Path) -> None:
    """Into the environment of this Python."""
    uv = Path(sys.executable).with_name("uv")
    command = [str(uv), "pip", "install", "--quiet", "--python", sys.executable, "--no-deps", "--reinstall", str(wheel)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def main() -> None:
    """`python -m ops.compile --cmake-args=… [--lock FILE] [--cache FOLDER]`."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser = argparse.ArgumentParser(description="Compile and install llama-cpp-python.")
    parser.add_argument("--cmake-args", default="")
    parser.add_argument("--lock", type=Path, default=Path("requirements.lock"))
    parser.add_argument("--cache", type=Path, default=home / "roost" / "wheels")
    given = parser.parse_args()
    try:
        install(provide(given.lock, given.cmake_args, given.cache))
    except (RoostError, subprocess.CalledProcessError, OSError) as error:
        print(f"roost: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
