"""JSON Schema of every wire type and of config.yaml, and one AsyncAPI 3 document of every subject.

Pure but for `main`, which writes what is checked in under docs/schema/, or with `--check` says what is not current.
The addresses stand here a second time, with their meaning: `bus.subjects` is above this package. A test keeps the
two tables equal.
"""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from schemas.ask import About, Answer, Ask, AskFile, Refusal, Told
from schemas.config import Config
from schemas.event import Alert, AuditRecord, ComponentStatus, DeadLetter
from schemas.message import Delta, Inbound, Outbound, RequestState
from schemas.model import FailedAnswer, ModelEvent, ModelOrder, ModelStatus, ModelTold, ShadowAnswer, WorkerStatus
from schemas.power import PowerEvent, PowerStatus
from schemas.release import Release, Versions
from schemas.session import Entry, SessionInfo
from schemas.turn import Turn
from schemas.update import ReleasePublished, UpdateOrder, UpdateStatus, UpdateTold

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "schema"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
TYPES: tuple[type[Struct], ...] = (
    Ask, About, AskFile, Answer, Told, Refusal, Inbound, Outbound, Delta, Turn, RequestState, ModelStatus, WorkerStatus,
    ModelEvent, ModelOrder, ModelTold, ComponentStatus, Alert, DeadLetter, AuditRecord, Entry, SessionInfo,
    PowerStatus, PowerEvent, ShadowAnswer, FailedAnswer, Release, Versions, ReleasePublished, UpdateStatus, UpdateOrder,
    UpdateTold,
)  # fmt: skip

PARAMETERS = {
    "model": "A model's configured name.",
    "channel": "A connector's configured name.",
    "conversation": "Opaque token of one conversation.",
    "request": "Opaque token of one request: the id of its answer.",
    "worker": "A worker's id.",
    "name": "A part's, connector's or model's name.",
    "site": "A machine and data folder, as ids of its workers begin.",
    "host": "A machine's name, with `-` for what a subject cannot hold.",
    "what": "What happened, one word.",
    "code": "The alert's stable code.",
    "stream": "The stream whose message was given up.",
}


class Channel(Struct, frozen=True, kw_only=True):
    """One subject (`{}` marks a token that varies), who may use it, and what travels on it."""

    address: str
    about: str
    carries: tuple[type[Struct], ...] = ()
    action: str = "send"
    """Seen from Roost: `receive` is what clients publish."""
    stream: str = ""
    replies: tuple[type[Struct], ...] = ()


CHANNELS = {
    "ask": Channel(
        address="roost.ask",
        about="The front door: ask a model. With `stream`, deltas come to the reply subject first and the answer last.",
        carries=(Ask,), action="receive", replies=(Answer, Delta, Refusal),
    ),
    "askState": Channel(
        address="roost.ask.state", about="What became of a request, by its id; also after restarts.",
        carries=(About,), action="receive", replies=(Told, Refusal),
    ),
    "askCancel": Channel(
        address="roost.ask.cancel",
        about='End a request; its answer then says `cancelled`. This one is answered with `{"ok": true}`.',
        carries=(About,), action="receive", replies=(Refusal,),
    ),
    "askFile": Channel(
        address="roost.ask.file",
        about="Bytes of a picture by their SHA-256. Answered with the bytes themselves, not with JSON.",
        carries=(AskFile,), action="receive", replies=(Refusal,),
    ),
    "inbox": Channel(
        address="roost.in.{model}.{channel}.{conversation}", stream="INBOX", carries=(Inbound,),
        about="Accepted messages that wait for a worker. Outside clients use `roost.ask`.",
    ),
    "outbox": Channel(
        address="roost.out.{channel}.{conversation}", stream="OUTBOX", carries=(Outbound,),
        about="Replies that wait for delivery.",
    ),
    "delta": Channel(
        address="roost.delta.{request}", carries=(Delta,), about="Pieces of one answer as they come; not stored.",
    ),
    "turn": Channel(
        address="roost.turn.{channel}.{conversation}", stream="TURNS", carries=(Turn,), about="Finished exchanges.",
    ),
    "modelEvent": Channel(
        address="roost.event.model.{model}.{what}", stream="EVENTS", carries=(ModelEvent,),
        about="A model's version or state has changed.",
    ),
    "shadowEvent": Channel(
        address="roost.event.shadow.{model}", stream="EVENTS", carries=(ShadowAnswer,),
        about="How a version that serves nobody yet answered a copy of a request, in figures.",
    ),
    "failureEvent": Channel(
        address="roost.event.failure.{model}", stream="EVENTS", carries=(FailedAnswer,),
        about="An attempt at a request failed, and not by its sender's fault.",
    ),
    "releaseEvent": Channel(
        address="roost.event.release.published", stream="EVENTS", carries=(ReleasePublished,),
        about="A hint to every updater that the source has a new release.",
    ),
    "alert": Channel(
        address="roost.event.alert.{code}", stream="EVENTS", carries=(Alert,), about="The operator should act.",
    ),
    "partEvent": Channel(
        address="roost.event.part.{name}", stream="EVENTS", carries=(ComponentStatus,),
        about="A part's state has changed.",
    ),
    "powerEvent": Channel(
        address="roost.event.power.{what}", stream="EVENTS", carries=(PowerEvent,),
        about="A machine's level, its source of power, or what it may set has changed.",
    ),
    "audit": Channel(
        address="roost.audit.{what}", stream="AUDIT", carries=(AuditRecord,),
        about="Acts of the operator and security decisions.",
    ),
    "dead": Channel(
        address="roost.dead.{stream}", stream="DEAD", carries=(DeadLetter,),
        about="What could not be handled, with the reason and the original.",
    ),
    "cancel": Channel(
        address="roost.cancel.{request}", about="To whoever runs the request: stop. Empty; between parts.",
    ),
    "take": Channel(
        address="roost.worker.{worker}.take", carries=(Inbound,),
        about="Hands a delivery to the worker that has its conversation. Between workers.",
    ),
    "modelOrder": Channel(
        address="roost.worker.{worker}.models", carries=(ModelOrder,),
        about="The operator or the updater has a worker load, change or unload models; the answer is many ModelTold.",
    ),
    "updateOrder": Channel(
        address="roost.updater.{site}", carries=(UpdateOrder,), replies=(UpdateTold,),
        about="The operator, or `ops` with a reason, has an updater check, apply, roll back or pin.",
    ),
    "wake": Channel(
        address="roost.power.wake.{host}", about="A worker of this machine has begun to work. Empty; between parts.",
    ),
    "models": Channel(
        address="$KV.MODELS.{model}.{worker}", stream="KV_MODELS", carries=(ModelStatus,),
        about="Key-value table: each model in each live worker.",
    ),
    "workers": Channel(
        address="$KV.WORKERS.{worker}", stream="KV_WORKERS", carries=(WorkerStatus,),
        about="Key-value table: live workers.",
    ),
    "connectors": Channel(
        address="$KV.CONNECTORS.{name}", stream="KV_CONNECTORS", carries=(ComponentStatus,),
        about="Key-value table: connectors and how they are.",
    ),
    "updates": Channel(
        address="$KV.UPDATES.{name}.{site}", stream="KV_UPDATES", carries=(UpdateStatus,),
        about="Key-value table: each model's update on each machine.",
    ),
    "power": Channel(
        address="$KV.POWER.{host}", stream="KV_POWER", carries=(PowerStatus,),
        about="Key-value table: each machine's level, watts and joules.",
    ),
}  # fmt: skip


def file_name(kind: type[Struct]) -> str:
    """`RequestState` → `request-state.json`."""
    return "".join(f"-{c.lower()}" if c.isupper() else c for c in kind.__name__).lstrip("-") + ".json"


def _components(kinds: tuple[type[Struct], ...], template: str) -> dict[str, dict[str, Any]]:
    """Schemas of the types and of what they are made of, by name. Docstrings lose their indentation, which
    differs between versions of Python.
    """
    _, parts = msgspec.json.schema_components(kinds, ref_template=template)
    for part in parts.values():
        if "description" in part:
            part["description"] = inspect.cleandoc(part["description"])
    return parts


def schema_of(kind: type[Struct]) -> dict[str, Any]:
    """One type's JSON Schema, whole in itself."""
    parts = _components((kind,), "#/$defs/{name}")
    own = parts.pop(kind.__name__)
    return {
        "$schema": DIALECT,
        "$id": f"urn:roost:schema:{file_name(kind)}",
        **own,
        **({"$defs": parts} if parts else {}),
    }


def config_schema() -> dict[str, Any]:
    """Schema of config.yaml: a plug-in's own settings stand beside an entry's common fields."""
    schema = schema_of(Config)
    for name in ("ModelConfig", "ConnectorConfig"):
        part = schema["$defs"][name]
        part["properties"].pop("settings")
        part["additionalProperties"] = True
        part["description"] = part["description"].replace("What is not named here goes", "Further fields go")
    schema["title"] = "config.yaml"
    return schema


def _parameters(address: str) -> dict[str, Any]:
    names = [token[1:-1] for token in address.split(".") if token.startswith("{")]
    return {name: {"description": PARAMETERS[name]} for name in names}


def _messages(kinds: tuple[type[Struct], ...]) -> dict[str, Any]:
    return {kind.__name__: {"$ref": f"#/components/messages/{kind.__name__}"} for kind in kinds}


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3.0.0 document."""
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for key, channel in CHANNELS.items():
        channels[key] = {
            "address": channel.address,
            "description": channel.about,
            "messages": _messages(channel.carries),
            "parameters": _parameters(channel.address),
            **({"x-jetstream-stream": channel.stream} if channel.stream else {}),
        }
        operations[key] = {
            "action": channel.action,
            "channel": {"$ref": f"#/channels/{key}"},
            "summary": channel.about,
            "messages": [{"$ref": f"#/channels/{key}/messages/{kind.__name__}"} for kind in channel.carries],
        }
        if channel.replies:
            channels[f"{key}Reply"] = {
                "address": None,
                "description": "The reply subject of the request.",
                "messages": _messages(channel.replies),
            }
            operations[key]["reply"] = {
                "address": {
                    "location": "$message.header#/reply",
                    "description": "The reply subject of the NATS message.",
                },
                "channel": {"$ref": f"#/channels/{key}Reply"},
                "messages": [{"$ref": f"#/channels/{key}Reply/messages/{kind.__name__}"} for kind in channel.replies],
            }
    used = sorted(
        {kind for c in CHANNELS.values() for kind in (*c.carries, *c.replies)}, key=lambda kind: kind.__name__
    )
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Roost",
            "version": "1",
            "description": "Every subject of Roost on NATS, and what travels on it. Payloads are JSON; fields that a "
            "reader does not know are ignored; `v` is the version of a type and 1 where absent.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": {
                kind.__name__: {
                    "name": kind.__name__,
                    "contentType": "application/json",
                    "payload": {"$ref": f"#/components/schemas/{kind.__name__}"},
                }
                for kind in used
            },
            "schemas": _components(TYPES, "#/components/schemas/{name}"),
        },
    }


def documents() -> dict[str, str]:
    """Every file of docs/schema by name; the same bytes for the same types."""
    found: dict[str, Any] = {file_name(kind): schema_of(kind) for kind in TYPES}
    found |= {"config.json": config_schema(), "asyncapi.json": asyncapi()}
    return {
        name: json.dumps(found[name], indent=2, ensure_ascii=False, sort_keys=True) + "\n" for name in sorted(found)
    }


def stale(folder: Path = FOLDER) -> list[str]:
    """Names of files that are missing, differ, or belong to no type any more."""
    wanted = documents()
    there = {path.name: path.read_text() for path in folder.glob("*.json")}
    return sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))


def main(arguments: list[str]) -> int:
    if arguments == ["--check"]:
        old = stale()
        for name in old:
            print(f"{FOLDER / name} is not current; run python -m schemas.export", file=sys.stderr)
        return 1 if old else 0
    if arguments:
        print("usage: python -m schemas.export [--check]", file=sys.stderr)
        return 2
    FOLDER.mkdir(parents=True, exist_ok=True)
    wanted = documents()
    for path in FOLDER.glob("*.json"):
        if path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        (FOLDER / name).write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
