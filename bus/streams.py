"""Declared streams and consumers. Applying them is idempotent: created when absent, updated when they differ.

Pure declarations (values in JetStream's own JSON form), and one function that applies them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bus import subjects
from schemas.config import Config, LimitConfig

if TYPE_CHECKING:
    from bus.contract import Bus

NS = 1_000_000_000
INBOX, OUTBOX, TURNS, EVENTS, AUDIT, DEAD = "INBOX", "OUTBOX", "TURNS", "EVENTS", "AUDIT", "DEAD"
LIVE_S = 30.0
"""A row of a live table that was not rewritten for this long is gone; its writer is dead."""


def declared(config: Config) -> dict[str, dict[str, Any]]:
    """All streams, by name."""
    limits, replicas = config.limits, config.bus.replicas
    window = int(limits.duplicate_window_s * NS)
    common: dict[str, Any] = {"storage": "file", "num_replicas": replicas, "allow_direct": True}
    work: dict[str, Any] = {
        **common,
        "retention": "workqueue",
        "discard": "new",
        "max_msgs": limits.inbox_messages_max,
        "max_bytes": limits.inbox_bytes_max,
        "duplicate_window": window,
    }
    log: dict[str, Any] = {**common, "retention": "limits", "discard": "old", "duplicate_window": window}
    declared: dict[str, dict[str, Any]] = {
        INBOX: {
            **work,
            "subjects": [subjects.INBOX_ALL],
            "max_msgs_per_subject": limits.conversation_queue_max,
            "discard_new_per_subject": True,
        },
        OUTBOX: {**work, "subjects": [subjects.OUTBOX_ALL]},
        TURNS: {
            **log,
            "subjects": [subjects.TURNS_ALL],
            "max_age": limits.turns_age_s * NS,
            "max_bytes": limits.turns_bytes_max,
            "compression": "s2",
        },
        EVENTS: {**log, "subjects": [subjects.EVENTS_ALL], "max_age": limits.events_age_s * NS},
        AUDIT: {**log, "subjects": [subjects.AUDIT_ALL], "discard": "new", "deny_delete": True, "deny_purge": True},
        DEAD: {**log, "subjects": [subjects.DEAD_ALL], "max_age": limits.dead_age_s * NS},
    }
    return {name: {"name": name, **spec} for name, spec in declared.items()}


def stores(config: Config) -> dict[str, dict[str, Any]]:
    """Streams behind the key-value tables and the blob store, in the form that NATS' own tools expect."""
    table: dict[str, Any] = {
        "num_replicas": config.bus.replicas,
        "retention": "limits",
        "discard": "new",
        "allow_direct": True,
        "allow_rollup_hdrs": True,
    }
    live = {**table, "storage": "memory", "max_msgs_per_subject": 1, "max_age": int(LIVE_S * NS)}
    return {
        f"KV_{name}": {"name": f"KV_{name}", "subjects": [f"$KV.{name}.>"], **spec}
        for name, spec in {
            "MODELS": live,
            "WORKERS": live,
            "CONNECTORS": live,
            "POWER": live,
            "UPDATES": live,
            "KEYS": {**table, "storage": "file", "max_msgs_per_subject": 1},
        }.items()
    } | {
        "OBJ_BLOBS": {
            "name": "OBJ_BLOBS",
            "subjects": ["$O.BLOBS.C.>", "$O.BLOBS.M.>"],
            **table,
            "storage": "file",
            "max_age": config.limits.blob_age_s * NS,
        },
        "OBJ_RELEASES": {
            "name": "OBJ_RELEASES",
            "subjects": ["$O.RELEASES.C.>", "$O.RELEASES.M.>"],
            **table,
            "storage": "file",
        },
    }


def consumer(name: str, filter_subject: str, limits: LimitConfig, *, ack_pending_max: int) -> dict[str, Any]:
    """A durable pull consumer of a work queue.

    The server itself sets no limit to deliveries: it would leave an exhausted message in the stream and only say so
    once; `bus.consume` counts them and makes a dead letter of it.
    """
    return {
        "durable_name": name,
        "filter_subject": filter_subject,
        "ack_policy": "explicit",
        "deliver_policy": "all",
        "ack_wait": int(limits.ack_wait_s * NS),
        "max_deliver": -1,
        "max_ack_pending": ack_pending_max,
        "max_waiting": 512,
    }


def work_consumer(model: str, limits: LimitConfig) -> tuple[str, dict[str, Any]]:
    """(name, declaration) of the consumer that all workers of `model` share."""
    name = f"work-{model}"
    return name, consumer(name, subjects.inbox_of_model(model), limits, ack_pending_max=4 * limits.parked_max)


def delivery_consumer(channel: str, limits: LimitConfig) -> tuple[str, dict[str, Any]]:
    """(name, declaration) of the consumer from which `channel`'s replies are delivered."""
    name = f"deliver-{channel}"
    return name, consumer(name, subjects.outbox_of_channel(channel), limits, ack_pending_max=1024)


async def apply(bus: Bus, config: Config) -> None:
    """Create or update every declared stream; raises `ConfigError` when the server refuses a change."""
    for name, spec in {**declared(config), **stores(config)}.items():
        await bus.ensure_stream(name, spec)
