"""What the libraries warn each other of is not ours to mend."""

from __future__ import annotations

from pathlib import Path

import pytest

THEIRS = (
    "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning",
    "ignore:__array_wrap__ must accept context:DeprecationWarning",
    "ignore:`FluxPosEmbed` is deprecated:FutureWarning",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            for theirs in THEIRS:
                item.add_marker(pytest.mark.filterwarnings(theirs))
