"""AES-256-GCM envelopes for what Roost keeps outside NATS (NATS encrypts its own files).

An envelope is `version byte | 12-byte random nonce | ciphertext and tag`; the name under which it is stored is
authenticated with it, so that envelopes cannot be exchanged for one another.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from schemas.errors import ConfigError, Untrusted

VERSION = b"\x01"
NONCE = 12


class Envelope:
    """Seals and opens with one 256-bit key."""

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)

    def seal(self, data: bytes, name: str) -> bytes:
        nonce = os.urandom(NONCE)
        return VERSION + nonce + self._aead.encrypt(nonce, data, name.encode())

    def open(self, sealed: bytes, name: str) -> bytes:
        """Raises `Untrusted` for anything that this key did not seal under this name."""
        if sealed[:1] != VERSION or len(sealed) < 1 + NONCE + 16:
            raise Untrusted(f"{name}: not an envelope of this version")
        try:
            return self._aead.decrypt(sealed[1 : 1 + NONCE], sealed[1 + NONCE :], name.encode())
        except InvalidTag:
            raise Untrusted(f"{name}: sealed with another key, or altered") from None


def secret_file(data: Path, name: str, make: str | None = None) -> str:
    """The secret in `data/secrets/<name>` (0600); written as `make` on first use, by whichever process is first."""
    path = data / "secrets" / name
    try:
        value = path.read_text().strip()
    except FileNotFoundError:
        value = ""
    if value:
        return value
    if make is None:
        raise ConfigError(f"{path} does not exist; start Roost once, or copy it from the machine that has it")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{name}.{secrets.token_hex(4)}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(make + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)  # fails when another process was faster: then its secret counts
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    return path.read_text().strip()


def data_key(data: Path) -> bytes:
    """The 256-bit key of this installation's envelopes."""
    return bytes.fromhex(secret_file(data, "envelope.key", secrets.token_hex(32)))
