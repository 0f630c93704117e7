"""Pictures of an answer: fetched over the front door, saved as files.

What always holds: a file that is there is never written over, and one that is saved is whole (its hash was compared).
"""

from __future__ import annotations

import hashlib
import itertools
import re
from pathlib import Path

import msgspec

from bus import subjects
from bus.client import Bus
from schemas.ask import AskFile, Refusal
from schemas.errors import ConfigError, Rejected, Untrusted
from schemas.message import Attachment

TIMEOUT_S = 30.0
NAME_CHARS_MAX = 100
SAME_NAME_MAX = 10_000


async def fetched(bus: Bus, picture: Attachment) -> bytes:
    """Its bytes, in as many parts as the bus needs; raises `Rejected` when it is not kept any more."""
    data = bytearray()
    while len(data) < picture.size_bytes:
        asked = AskFile(sha256=picture.sha256, offset=len(data))
        part = await bus.request(subjects.ASK_FILE, msgspec.json.encode(asked), TIMEOUT_S)
        if part.startswith(b'{"error"'):
            problem = msgspec.json.decode(part, type=Refusal).error
            raise Rejected(f"{picture.name}: {problem.message}", code=problem.code)
        if not part:
            break
        data += part
    if hashlib.sha256(data).hexdigest() != picture.sha256:
        raise Untrusted(f"{picture.name}: what came is not what was announced; it is not saved")
    return bytes(data)


def saved(data: bytes, name: str, folder: Path) -> Path:
    """Write `data` to a new file of this name, or with a number behind it; raises `ConfigError`."""
    safe = re.sub(r"[^\w.-]+", "-", name).lstrip(".-")[-NAME_CHARS_MAX:] or "picture"
    stem, suffix = Path(safe).stem, Path(safe).suffix
    for number in itertools.islice(itertools.count(1), SAME_NAME_MAX):
        path = folder / (safe if number == 1 else f"{stem}-{number}{suffix}")
        try:
            with path.open("xb") as file:
                file.write(data)
            return path
        except FileExistsError:
            continue
        except OSError as error:
            path.unlink(missing_ok=True)
            raise ConfigError(f"{path}: {error.strerror or error}; choose another folder with --out") from None
    raise ConfigError(f"{folder} has {SAME_NAME_MAX} files named {stem} already; choose another with --out")
