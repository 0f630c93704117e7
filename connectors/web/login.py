"""Who may use the page: the access code, the cookie, and which requests a browser may have sent on its own.

Not here: routes. What always holds: the code never leaves the data folder except towards its owner, the cookie says
nothing that its holder could change, and a new access code ends every session.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from collections import deque
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from cryptography.fernet import Fernet, InvalidToken

from schemas.config import HttpConfig
from schemas.errors import Rejected

ALPHABET = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"
"""No 0, 1, I, O: 32 characters that nobody mistakes for another, 5 bits each."""
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
UNSPECIFIED = frozenset({"0.0.0.0", "::"})  # noqa: S104 — compared, not listened on


def make_code() -> str:
    """A new access code of 100 bits, in four groups of five."""
    return "-".join("".join(secrets.choice(ALPHABET) for _ in range(5)) for _ in range(4))


def same_code(given: str, expected: str) -> bool:
    """Compare in constant time; case, spaces and dashes do not count."""
    return hmac.compare_digest(_digest(given), _digest(expected))


def _digest(code: str) -> bytes:
    plain = "".join(c for c in code.upper() if c.isalnum())
    return hashlib.sha256(plain.encode("utf-8", "surrogatepass")).digest()


class TooManyAttempts(Rejected):
    """Come back in `after_s` seconds."""

    code = "rate_limited"

    def __init__(self, after_s: float) -> None:
        super().__init__(f"too many wrong codes; try again in {max(1, round(after_s))} s")
        self.after_s = after_s


class Attempts:
    """Failed logins of everybody within a sliding window; time is the caller's, in seconds."""

    def __init__(self, limit: int, window_s: float) -> None:
        self._limit = limit
        self._window_s = window_s
        self._failed: deque[float] = deque(maxlen=limit)

    def check(self, now: float) -> None:
        """Raise `TooManyAttempts` while the limit is reached."""
        while self._failed and self._failed[0] <= now - self._window_s:
            self._failed.popleft()
        if len(self._failed) >= self._limit:
            raise TooManyAttempts(self._failed[0] + self._window_s - now)

    def fail(self, now: float) -> None:
        self._failed.append(now)


class Sessions:
    """Makes and checks the cookie's value: an authenticated and encrypted note of the code it was made under."""

    def __init__(self, key: str, code: str, age_s: int) -> None:
        self._fernet = Fernet(key.encode())
        self._bound = hashlib.sha256(b"roost-web\0" + _digest(code)).hexdigest().encode()
        self._age_s = age_s

    def issue(self) -> str:
        return self._fernet.encrypt(self._bound).decode()

    def valid(self, value: str | None) -> bool:
        if not value or len(value) > 1000:
            return False
        try:
            note = self._fernet.decrypt(value.encode("utf-8", "surrogatepass"), ttl=self._age_s)
        except InvalidToken:
            return False
        return hmac.compare_digest(note, self._bound)

    def age(self, value: str, now: float) -> float:
        """Seconds since a valid value was issued."""
        return now - self._fernet.extract_timestamp(value)


def known_host(host: str, config: HttpConfig) -> bool:
    """Whether a Host header names us, so that no other name can be rebound to our address.

    An address literal cannot be rebound; it counts when the server listens on all addresses.
    """
    name = _hostname("//" + host)
    listen = _hostname("//" + config.listen)
    if not name:
        return False
    if name in LOOPBACK or name == listen or name in {_hostname(origin) for origin in config.origins}:
        return True
    return listen in UNSPECIFIED and _is_address(name)


def own_origin(headers: Mapping[str, str], scheme: str, host: str, origins: Sequence[str]) -> bool:
    """Whether a state-changing request comes from our own page. Without both headers the answer is no."""
    origin = headers.get("Origin")
    if origin is not None:
        return origin == f"{scheme}://{host}" or origin in {o.rstrip("/") for o in origins}
    return headers.get("Sec-Fetch-Site") == "same-origin"


def behind_https(scheme: str, host: str, origins: Sequence[str]) -> bool:
    """Whether the browser speaks HTTPS to us or to the proxy before us; then the cookie is `Secure`."""
    return scheme == "https" or f"https://{host}" in {o.rstrip("/") for o in origins}


def _hostname(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
