"""Golden prompts as a publisher writes them: a YAML or JSON file, read strictly, and one to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import yaml

from schemas.errors import ConfigError
from schemas.release import GOLDENS_MAX, Expected, Golden

FILE_BYTES_MAX = 1_000_000
START = """\
# Golden prompts: asked at temperature 0 before a version may serve anybody. An answer must have every property
# that is named; take only such as every sound version of the model has.
# prompt      what is asked                     expect:
# system      the system prompt                   contains      each of these texts, whatever their case
# kind        chat, completion, embedding, image  contains_any  one of these texts
# max_tokens  1 to 512, 16 by default             lacks         none of these texts
#                                                 chars_min, chars_max, json (true), finish (stop or length),
#                                                 dimensions    of an embedding
#                                                 sees          of a picture: colours, "#rrggbb"
- prompt: What is the capital of France? Answer in one word.
  expect: {contains: [Paris]}
- prompt: How much is two plus two?
  max_tokens: 24
  expect: {contains_any: ["4", four]}
- prompt: "The days of the week are Monday, Tuesday,"
  kind: completion
  expect: {contains: [Wednesday]}
"""


def read_goldens(path: Path) -> tuple[Golden, ...]:
    """The prompts in a file; raises `ConfigError` with the place of what cannot be."""
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise ConfigError(f"{path} has more than {FILE_BYTES_MAX} bytes")
        rows = yaml.safe_load(path.read_text(encoding="utf-8"))  # YAML holds JSON
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(rows, list) or not 0 < len(rows) <= GOLDENS_MAX:
        raise ConfigError(f"{path}: a list of 1 to {GOLDENS_MAX} prompts is expected; see: roost release goldens")
    return tuple(_golden(row, f"{path}: prompt {number}") for number, row in enumerate(rows, 1))


def _golden(row: Any, place: str) -> Golden:
    _known(row, Golden.__struct_fields__, place)
    _known(row.get("expect", {}), Expected.__struct_fields__, f"{place}: expect")
    try:
        golden = msgspec.convert(row, Golden)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{place}: {error}") from None
    if not golden.prompt.strip():
        raise ConfigError(f"{place}: the prompt is empty")
    return golden


def _known(row: Any, fields: tuple[str, ...], place: str) -> None:
    """A misspelt property must not be taken for none."""
    if not isinstance(row, dict):
        raise ConfigError(f"{place}: names and values are expected, not {type(row).__name__}")
    if unknown := sorted(str(key) for key in row if key not in fields):
        raise ConfigError(f"{place}: {', '.join(unknown)} is unknown; there are {', '.join(fields)}")
