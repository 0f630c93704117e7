"""What components tell the operator: state, alerts, dead letters, audit records."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

PartState = Literal["starting", "ready", "degraded", "draining", "stopped", "failed"]


class ComponentStatus(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One connector or part. In the table CONNECTORS under its name, or answered by `roost.event.part.<name>`."""

    name: str
    type: str
    state: PartState
    seen_at: float
    v: int = 1
    pid: int = 0
    reason: str = ""


class Alert(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Something the operator should act on, on `roost.event.alert.<code>`."""

    code: str
    message: str
    at: float
    v: int = 1
    level: Literal["info", "warning", "critical"] = "warning"
    part: str = ""


class DeadLetter(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What could not be handled, on `roost.dead.<stream>`: the original bytes, where from, and why."""

    stream: str
    subject: str
    seq: int
    reason: str
    at: float
    payload: bytes
    v: int = 1
    id: str = ""
    """Request id, where the payload could be read."""
    code: str = "internal"
    deliveries: int = 0
    headers: dict[str, str] = {}


class AuditRecord(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One act of the operator or a security decision, on `roost.audit.<what>`; `previous` chains the hashes."""

    what: str
    who: str
    at: float
    v: int = 1
    target: str = ""
    detail: dict[str, str] = {}
    previous: str = ""
