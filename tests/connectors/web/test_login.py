"""Who may enter, and which requests count as our own."""

from __future__ import annotations

import pytest
from cryptography.fernet import Fernet

from connectors.web.login import (
    ALPHABET,
    Attempts,
    Sessions,
    TooManyAttempts,
    behind_https,
    known_host,
    make_code,
    own_origin,
    same_code,
)
from schemas.config import HttpConfig


def test_a_code_has_a_hundred_bits_and_no_lookalikes() -> None:
    code = make_code()
    assert [len(group) for group in code.split("-")] == [5, 5, 5, 5]
    assert len(set(ALPHABET)) == 32
    assert not set("01IO") & set(ALPHABET)
    assert make_code() != code


@pytest.mark.parametrize("given", ["ABCDE-23456", "abcde 23456", " abcde23456 ", "aB-cD-e2-34 56"])
def test_case_spaces_and_dashes_do_not_count(given: str) -> None:
    assert same_code(given, "ABCDE-23456")


@pytest.mark.parametrize("given", ["", "ABCDE", "ABCDE-23457", "ABCDE-23456-X", "\ud800", "ABCDE-23456é"])
def test_another_code_is_refused(given: str) -> None:
    assert not same_code(given, "ABCDE-23456")


def test_attempts_are_limited_in_a_sliding_window() -> None:
    attempts = Attempts(limit=2, window_s=60)
    attempts.fail(0)
    attempts.check(1)
    attempts.fail(10)
    with pytest.raises(TooManyAttempts) as refused:
        attempts.check(20)
    assert refused.value.after_s == 40
    attempts.check(61)


def test_a_new_code_ends_all_sessions_and_writing_it_otherwise_does_not() -> None:
    key = Fernet.generate_key().decode()
    cookie = Sessions(key, "ABCDE-FGHJK", 60).issue()
    assert Sessions(key, "abcde fghjk", 60).valid(cookie)
    assert not Sessions(key, "ABCDE-FGHJL", 60).valid(cookie)
    assert not Sessions(Fernet.generate_key().decode(), "ABCDE-FGHJK", 60).valid(cookie)


@pytest.mark.parametrize("value", [None, "", "x", "gAAAA" * 500, "é", "\ud800"])
def test_what_is_no_cookie_of_ours_is_refused(value: str | None) -> None:
    assert not Sessions(Fernet.generate_key().decode(), "ABCDE", 60).valid(value)


@pytest.mark.parametrize(
    ("host", "listen", "known"),
    [
        ("localhost:8420", "127.0.0.1:8420", True),
        ("127.0.0.1:8420", "127.0.0.1:8420", True),
        ("[::1]:8420", "127.0.0.1:8420", True),
        ("LOCALHOST", "127.0.0.1:8420", True),
        ("evil.example:8420", "127.0.0.1:8420", False),
        ("localhost.evil.example", "127.0.0.1:8420", False),
        ("192.168.1.4:8420", "127.0.0.1:8420", False),
        ("192.168.1.4:8420", "192.168.1.4:8420", True),
        ("192.168.1.4:8420", "0.0.0.0:8420", True),
        ("evil.example:8420", "0.0.0.0:8420", False),
        ("chat.example.org", "127.0.0.1:8420", True),
        ("", "127.0.0.1:8420", False),
        ("[bad", "127.0.0.1:8420", False),
    ],
)
def test_only_our_own_names_are_answered(host: str, listen: str, known: bool) -> None:
    assert known_host(host, HttpConfig(listen=listen, origins=("https://chat.example.org",))) is known


@pytest.mark.parametrize(
    ("headers", "own"),
    [
        ({"Origin": "http://127.0.0.1:8420"}, True),
        ({"Origin": "http://127.0.0.1:9999"}, False),
        ({"Origin": "https://127.0.0.1:8420"}, False),
        ({"Origin": "https://chat.example.org"}, True),
        ({"Origin": "null"}, False),
        ({"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"}, False),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
        ({}, False),
    ],
)
def test_only_our_own_page_may_change_anything(headers: dict[str, str], own: bool) -> None:
    assert own_origin(headers, "http", "127.0.0.1:8420", ("https://chat.example.org/",)) is own


def test_the_cookie_is_secure_behind_a_proxy_that_speaks_https() -> None:
    assert behind_https("https", "x", ())
    assert behind_https("http", "chat.example.org", ("https://chat.example.org",))
    assert not behind_https("http", "127.0.0.1:8420", ("https://chat.example.org",))
