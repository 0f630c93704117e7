"""From bytes to a request's type, or a refusal that names the parameter. Pure."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from schemas.errors import Rejected

R = TypeVar("R")


class BadParameter(Rejected):
    """A refusal that names the parameter, as OpenAI's errors do."""

    def __init__(self, message: str, param: str | None = None, *, code: str = "invalid_value") -> None:
        super().__init__(message, code=code)
        self.param = param


def bad(param: str, what: str, *, code: str = "invalid_value") -> BadParameter:
    """`PARAM: what`."""
    return BadParameter(f"{param}: {what}", param, code=code)


def decode(decoder: msgspec.json.Decoder[R], body: bytes) -> R:
    """Decode a body; raises `BadParameter` with the path of what is wrong."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise explained(error) from None
    except UnicodeDecodeError:
        raise BadParameter("the body is not valid UTF-8", code="invalid_json") from None
    except RecursionError:
        raise BadParameter("the body is nested too deeply", code="invalid_json") from None
    except msgspec.DecodeError as error:
        raise BadParameter(f"the body is not valid JSON: {error}", code="invalid_json") from None


def explained(error: msgspec.ValidationError) -> BadParameter:
    """A wrong type or value, with the path of the parameter."""
    what, _, where = str(error).replace("`", "").partition(" - at ")
    what = what[:1].lower() + what[1:]
    param = where.removeprefix("$").lstrip(".")
    if not param and what.startswith("object missing required field "):
        param = what.removeprefix("object missing required field ")
    return BadParameter(f"{param}: {what}" if param else f"the body: {what}", param or None)


def refuse(*checks: tuple[bool, str, str]) -> None:
    """Refuse by its name the first parameter that was asked for and is not supported."""
    for asked, param, what in checks:
        if asked:
            raise bad(param, f"{what} is not supported here; leave it out", code="unsupported")


def short(text: str) -> str:
    """A caller's word for an error message: cut, and without what a terminal or log would obey."""
    cut = text if len(text) <= 40 else text[:40] + "…"
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in cut)
