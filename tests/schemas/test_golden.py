"""Messages that version 1 wrote stay readable, whatever is added later."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from schemas.export import TYPES
from tests.schemas.wire import EXAMPLES

GOLDEN = Path(__file__).with_name("golden")
UNKNOWN = {"from_the_future": {"a": [1, None, "x"]}, "zzz": 2.5}


def everywhere(value: Any) -> Any:
    """`value` with unknown fields added to every object that a Struct will read."""
    if isinstance(value, list):
        return [everywhere(item) for item in value]
    if isinstance(value, dict):
        free = {"reply", "headers", "detail"}  # mappings from string to string, not types
        loose = {"parameters", "schema", "logit_bias", "seconds", "blocked"}  # not types either
        known = {
            k: v if k in loose or (k in free and all(isinstance(x, str) for x in v.values())) else everywhere(v)
            for k, v in value.items()
            if isinstance(v, dict) or k not in free
        }
        return {**UNKNOWN, **value, **known}
    return value


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_a_message_of_version_1_decodes_to_what_it_meant(name: str) -> None:
    value = EXAMPLES[name]
    assert msgspec.json.decode((GOLDEN / f"{name}.json").read_bytes(), type=type(value)) == value


ONLY_READ = {"ask"}
"""Roost itself never writes it, and its type has no `omit_defaults`, so that every new field is in its bytes."""


@pytest.mark.parametrize("name", sorted(EXAMPLES.keys() - ONLY_READ))
def test_the_bytes_on_the_wire_are_those_of_version_1(name: str) -> None:
    assert msgspec.json.encode(EXAMPLES[name]) == (GOLDEN / f"{name}.json").read_bytes()


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_unknown_fields_are_ignored_at_every_depth(name: str) -> None:
    value = EXAMPLES[name]
    wide = everywhere(json.loads((GOLDEN / f"{name}.json").read_bytes()))
    assert len(json.dumps(wide)) > len((GOLDEN / f"{name}.json").read_bytes()) + 40
    assert msgspec.json.decode(json.dumps(wide), type=type(value)) == value


@pytest.mark.parametrize("name", sorted(n for n, value in EXAMPLES.items() if "v" in value.__struct_fields__))
def test_a_message_of_a_newer_version_still_decodes(name: str) -> None:
    value = EXAMPLES[name]
    newer = {**json.loads((GOLDEN / f"{name}.json").read_bytes()), "v": 2, **UNKNOWN}
    assert msgspec.json.decode(json.dumps(newer), type=type(value)) == msgspec.structs.replace(value, v=2)


def test_every_wire_type_has_its_golden_bytes() -> None:
    kinds: set[type[Struct]] = {type(value) for value in EXAMPLES.values()}
    assert kinds == set(TYPES)
    assert {path.stem for path in GOLDEN.iterdir()} == set(EXAMPLES)
