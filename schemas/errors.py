"""Errors, named by the reaction they ask for. `bus/consume.py` holds the one table from class to reaction.

Raise the class whose reaction you want; never a bare `Exception`. Every error carries a `code` (stable, for
programs) and a sentence (for people) that names the place and the remedy.
"""

from __future__ import annotations


class RoostError(Exception):
    """Base of all errors that have a planned reaction."""

    code = "internal"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code

    @property
    def message(self) -> str:
        return str(self.args[0])


class ConfigError(RoostError):
    """The operator's mistake: refuse to start and print the place."""

    code = "config"


class Rejected(RoostError):
    """Policy, or the sender's mistake: never retried; the sender is told this sentence."""

    code = "rejected"


class Retryable(RoostError):
    """Later may work: redelivered after `after_s` up to the delivery limit, then a dead letter and an alert."""

    code = "unavailable"

    def __init__(self, message: str, *, after_s: float = 1.0, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.after_s = after_s


class QueueFull(Retryable):
    """A limit of the queue is reached: the publisher is refused and nothing was stored."""

    code = "queue_full"


class Disconnected(RoostError):
    """A link is lost: reconnect with capped back-off."""

    code = "disconnected"


class AuthFailed(RoostError):
    """Credentials were refused: stop that connector and alert; trying again would not help."""

    code = "auth_failed"


class Untrusted(RoostError):
    """A hash, signature or version is wrong: never retry, keep the old, alert."""

    code = "untrusted"
