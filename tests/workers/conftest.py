"""What tests of several backends share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tools import pipelines


@pytest.fixture(scope="session")
def tiny_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like Stable Diffusion 1.5, small and random. Copy it before changing anything."""
    return pipelines.make(tmp_path_factory.mktemp("pipelines") / "sd")
