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

from bus.credentials import keep
from schemas.errors import Untrusted

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


def data_key(data: Path) -> bytes:
    """The 256-bit key of this installation's envelopes."""
    return bytes.fromhex(keep(data, "envelope.key", lambda: secrets.token_hex(32)))
