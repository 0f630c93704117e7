"""The data folder: its sub-folders and the secrets kept in it.

What always holds: folders are 0700 and files with secrets 0600 from the moment they exist; a secret is made once,
from the operating system's random numbers, and never overwritten.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from schemas.errors import ConfigError

FOLDERS = ("nats", "sessions", "secrets", "run", "logs")


def prepare(data: Path) -> None:
    """Make the data folder and its parts, closed to everybody else; raises `ConfigError` where that fails."""
    for folder in (data, *(data / name for name in FOLDERS)):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
        except OSError as error:
            raise ConfigError(
                f"data folder {folder}: {error.strerror}; choose one that you may write with --data or ROOST_DATA"
            ) from None


def write_private(path: Path, content: bytes | str) -> None:
    """Replace `path` atomically by a 0600 file with `content`."""
    raw = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def keep(data: Path, name: str, make: Callable[[], str] | None = None) -> str:
    """The secret `data/secrets/NAME`, made on first use. Two processes that ask at once get the same one.

    Raises `ConfigError` for an empty file, and for a missing one that cannot be made here.
    """
    path = data / "secrets" / name
    if not path.exists():
        if make is None:
            raise ConfigError(f"{path} does not exist; start Roost once, or copy it from the machine that has it")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_name(f".{name}.{os.getpid()}.{secrets.token_hex(4)}")
        write_private(draft, make() + "\n")
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink(missing_ok=True)
    path.chmod(0o600)
    value = path.read_text().strip()
    if not value:
        raise ConfigError(f"{path}: the file is empty; restore it from a backup, or delete it to make a new secret")
    return value


def random_token() -> str:
    """A password of 192 bits that begins with a letter, as nats-server wants of values from its environment."""
    return "k" + secrets.token_hex(24)


def user_key(data: Path, name: str) -> str:
    """Public nkey of the user whose seed is `data/secrets/NAME`; the seed is made on first use."""
    import nkeys

    def make() -> str:
        return str(nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER).decode())

    seed = keep(data, name, make)
    try:
        pair = nkeys.from_seed(bytearray(seed.encode()))
        return str(pair.public_key.decode() if isinstance(pair.public_key, bytes) else pair.public_key)
    except (nkeys.NkeysError, ValueError) as error:
        raise ConfigError(
            f"{data / 'secrets' / name}: not an nkey seed ({error}); restore it from a backup or delete it"
        ) from None
