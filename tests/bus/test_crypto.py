"""Envelopes: what they open, and what they do not."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.credentials import keep
from bus.crypto import Envelope, data_key
from schemas.errors import ConfigError, Untrusted

KEY = secrets.token_bytes(32)


@given(st.binary(max_size=2_000), st.text(max_size=40))
def test_what_was_sealed_opens_under_its_name(data: bytes, name: str) -> None:
    envelope = Envelope(KEY)
    assert envelope.open(envelope.seal(data, name), name) == data


def test_the_same_text_is_sealed_differently_each_time_and_does_not_show() -> None:
    sealed = {Envelope(KEY).seal(b"the owl sleeps by day", "a") for _ in range(100)}
    assert len(sealed) == 100
    assert not any(b"owl" in value for value in sealed)


def test_another_name_or_another_key_does_not_open_it() -> None:
    sealed = Envelope(KEY).seal(b"x", "one")
    for envelope, name in ((Envelope(KEY), "two"), (Envelope(secrets.token_bytes(32)), "one")):
        with pytest.raises(Untrusted, match="another key, or altered"):
            envelope.open(sealed, name)


def test_no_altered_byte_goes_unnoticed() -> None:
    envelope = Envelope(KEY)
    sealed = envelope.seal(b"some text", "a")
    for i in range(len(sealed)):
        with pytest.raises(Untrusted):
            envelope.open(sealed[:i] + bytes([sealed[i] ^ 1]) + sealed[i + 1 :], "a")
        with pytest.raises(Untrusted):
            envelope.open(sealed[:i], "a")
    with pytest.raises(Untrusted, match="not an envelope of this version"):
        envelope.open(b"\x02" + sealed[1:], "a")


def test_a_secret_is_made_once_and_closed_to_others(tmp_path: Path) -> None:
    assert len(data_key(tmp_path)) == 32
    assert data_key(tmp_path) == data_key(tmp_path)
    file = tmp_path / "secrets" / "envelope.key"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert keep(tmp_path, "envelope.key", lambda: "another") == file.read_text().strip()
    with pytest.raises(ConfigError, match="does not exist"):
        keep(tmp_path, "missing")
