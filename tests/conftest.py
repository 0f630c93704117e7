"""What tests share: a running Roost, the starter model, and skips that a variable turns into failures."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running import RunningRoost, running

ROOT = Path(__file__).resolve().parent.parent


def missing(reason: str) -> None:
    """Skip with a reason; where ROOST_TEST_NO_SKIP is set (in CI), fail instead."""
    if os.environ.get("ROOST_TEST_NO_SKIP"):
        pytest.fail(f"{reason} (ROOST_TEST_NO_SKIP is set)")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def roost(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRoost]:
    """A Roost with the echo model on all connectors, shared by the tests that do not harm it."""
    models = [
        {"name": "echo", "type": "echo"},
        {"name": "slow", "type": "echo", "delay_ms": 100, "delay_token_ms": 60},
        {"name": "one", "type": "echo", "slots": 1, "delay_ms": 400, "delay_token_ms": 50},
    ]
    with running(tmp_path_factory.mktemp("roost"), {"models": models}) as started:
        yield started


@pytest.fixture(scope="session")
def starter_model() -> Path:
    """The starter model's file."""
    named = os.environ.get("ROOST_TEST_MODEL")
    path = Path(named) if named else ROOT / "models" / "text-generation" / "current"
    if not path.exists():
        missing(f"{path} does not exist; fetch it with `make model`")
    return path


@pytest.fixture(autouse=True)
def _quiet_reconnects() -> None:
    """nats-py logs every refused connection with a traceback; a test that stops the server is full of them."""
    logging.getLogger("nats").setLevel(logging.CRITICAL)
