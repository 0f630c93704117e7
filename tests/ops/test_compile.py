"""Compiling llama.cpp: what is kept, and under which name. (The compiling itself is what `make test` does first.)"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ops.compile import PACKAGE, build, compiler, pinned, processor, provide, wheel_key
from schemas.errors import RoostError

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements.lock").read_text()


def test_the_pinned_source_is_read_from_the_lock_with_its_hashes() -> None:
    block = pinned(LOCK)
    assert block.startswith(f"{PACKAGE}==")
    assert block.count("\n") == block.count("--hash=sha256:")
    with pytest.raises(RoostError, match="make lock"):
        pinned("msgspec==1\n")


def test_another_source_option_compiler_or_processor_is_another_wheel() -> None:
    keys = {
        wheel_key(*parts)
        for parts in [
            ("a==1", "-DX=1", "avx", "gcc 12"),
            ("a==2", "-DX=1", "avx", "gcc 12"),
            ("a==1", "-DX=2", "avx", "gcc 12"),
            ("a==1", "-DX=1", "avx512", "gcc 12"),
            ("a==1", "-DX=1", "avx", "gcc 13"),
        ]
    }
    assert len(keys) == 5


def test_a_kept_wheel_is_used_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text(LOCK)
    first = subprocess.run(
        [sys.executable, "-m", "ops.compile", "--lock", str(tmp_path / "none"), "--cache", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert first.returncode == 1
    assert first.stderr.startswith("roost: ")
    folder = tmp_path / "wheels" / wheel_key(pinned(LOCK), "-DX=1", processor(), compiler())
    folder.mkdir(parents=True)
    kept = folder / "llama_cpp_python-1-py3-none-any.whl"
    kept.touch()
    assert provide(lock, "-DX=1", tmp_path / "wheels") == kept
    assert "compiled earlier" in capsys.readouterr().out


def test_a_failed_build_tells_the_end_of_its_log_and_keeps_nothing(tmp_path: Path) -> None:
    with pytest.raises(RoostError, match="could not be compiled; the end of"):
        build("this is no requirement ==", "", tmp_path)
    assert not list(tmp_path.glob("*.whl"))
    assert not list(tmp_path.glob("building-*"))
