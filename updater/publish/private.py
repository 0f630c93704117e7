"""One private key in a file: Ed25519 in OpenSSH's form, so that `ssh-keygen -p` changes a passphrase.

What always holds: the file is for its owner only from its first byte on, and whole when it has its name.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_ssh_private_key
from securesystemslib.signer import CryptoSigner, SSlibKey

from schemas.errors import ConfigError
from updater.publish import disk

PASSPHRASE_CHARS_MIN = 12
KDF_ROUNDS = 64
"""Of bcrypt-pbkdf: half a second for each try of a passphrase."""
ID_CHARS = 12
"""Of a key's id, in the name of its file."""

Ask = Callable[[Path], bytes]
"""The passphrase of a key's file; asked only when it has one."""


def refuse(path: Path) -> bytes:
    raise ConfigError(f"{path} has a passphrase: give it with --passphrase-file or ROOST_RELEASE_PASSPHRASE")


def file_name(role: str, keyid: str) -> str:
    return f"{role}-{keyid[:ID_CHARS]}.pem"


def write_private(folder: Path, role: str, passphrase: bytes | None) -> CryptoSigner:
    """A new key in a file of its own; None: without a passphrase."""
    private = Ed25519PrivateKey.generate()
    form = PrivateFormat.OpenSSH
    lock = form.encryption_builder().kdf_rounds(KDF_ROUNDS).build(passphrase) if passphrase else NoEncryption()
    public = SSlibKey.from_crypto(private.public_key())
    disk.write(folder / file_name(role, public.keyid), private.private_bytes(Encoding.PEM, form, lock), mode=0o600)
    return CryptoSigner(private, public)


def read_private(path: Path, ask: Ask) -> Ed25519PrivateKey:
    """The key in a file; raises `ConfigError` for a wrong one, or a file that is no key."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    passphrase: bytes | None = None
    try:
        try:
            private = load_ssh_private_key(data, None)
        except TypeError:  # it has a passphrase
            passphrase = ask(path)
            private = load_ssh_private_key(data, passphrase or b"\0")
    except (ValueError, UnsupportedAlgorithm):
        wrong = "the passphrase is wrong, or the file is damaged" if passphrase is not None else "it is no private key"
        raise ConfigError(f"{path} cannot be opened: {wrong}") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise ConfigError(f"{path} is a key of another kind; Ed25519 is needed")
    return private


def is_encrypted(path: Path) -> bool:
    """Whether the key has a passphrase; False also for a file that is no key."""
    asked = []

    def ask(of: Path) -> bytes:
        asked.append(of)
        return refuse(of)

    with suppress(ConfigError):
        read_private(path, ask)
    return bool(asked)
