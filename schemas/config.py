"""The whole of config.yaml. Every limit stands here with its unit and its reason.

Decoding is strict: an unknown or ill-typed field is a `ConfigError` that names the file, the path and what was
expected. `models[]` and `connectors[]` carry settings of their plug-in beside the common fields; the plug-in
declares their type, and `settings_of` decodes them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct, field

from schemas.errors import ConfigError

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,47}")
"""Names of models, connectors and keys: safe in a subject, a file name and a URL."""


class Strict(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of everything the operator writes."""


class HttpConfig(Strict, frozen=True):
    """The one web server that all HTTP connectors share."""

    listen: str = "127.0.0.1:8420"
    certificate: str | None = None
    """PEM file; needed with `key` to listen beyond loopback."""
    key: str | None = None
    origins: tuple[str, ...] = ()
    """Further origins (`https://chat.example.org`) from which the page may be used."""
    body_bytes_max: int = 12_000_000
    """An attachment of 10 MB and its envelope; more is refused before it is read."""
    body_timeout_s: float = 20.0
    """A client that sends its body more slowly than this holds a connection for nothing."""
    headers_timeout_s: float = 10.0
    """A client's head of a request fits in one packet; slower ones hold connections on purpose."""
    connections_max: int = 1_000
    """Open connections; each costs about 20 kB, and file handles end."""


class BusConfig(Strict, frozen=True):
    """NATS: embedded unless `servers` is given."""

    listen: str = "127.0.0.1:4222"
    servers: tuple[str, ...] = ()
    """`nats://` or `tls://` addresses of a cluster of the operator's own; no secrets here."""
    credentials: str | None = None
    """File with an nkey seed or .creds for `servers`."""
    certificate_authority: str | None = None
    sync: str = "always"
    """`always` writes every message to the disk before it is acknowledged; or an interval such as `2s`, which is
    faster and may lose that much when the machine loses power."""
    replicas: int = 1
    """Copies of each stream in a cluster."""
    connect_timeout_s: float = 5.0
    request_timeout_s: float = 5.0
    """A stored publish takes milliseconds; after this the server is taken for stuck."""
    memory_bytes_max: int = 67_108_864
    disk_bytes_max: int = 21_474_836_480


class SessionConfig(Strict, frozen=True):
    """Redis, Redis Cluster or Valkey: embedded unless `url` is given."""

    listen: str = "127.0.0.1:4280"
    url: str | None = None
    """`redis://`, `rediss://`, `redis+cluster://` or `rediss+cluster://`; the password comes from `password`."""
    password: str | None = None
    """`${ENV}` or `file:PATH`."""
    turns_max: int = 64
    """Messages kept for a conversation; the context window is the tighter limit for small models."""
    chars_max: int = 200_000
    """Characters kept for a conversation."""
    age_s_max: int = 30 * 86_400
    """A conversation untouched for this long is forgotten."""
    request_age_s: int = 7 * 86_400
    """For how long the state and answer of a request can be asked for."""
    timeout_s: float = 5.0


class LimitConfig(Strict, frozen=True):
    """Limits of the path of a message."""

    text_chars_max: int = 100_000
    """A message's text; the largest common context (32k tokens) holds about this much."""
    history_messages_max: int = 512
    """Messages that a caller may bring along in one request."""
    attachments_max: int = 8
    attachment_bytes_max: int = 10_000_000
    inbox_messages_max: int = 10_000
    """Accepted messages that wait; at two answers a second that is more than an hour."""
    inbox_bytes_max: int = 1_073_741_824
    conversation_queue_max: int = 32
    """Messages of one conversation that wait; more than a person types while waiting."""
    sender_queue_max: int = 256
    """Unanswered messages of one sender (or API key), so that nobody fills the queue for the others."""
    sender_rate_per_s: float = 1_000.0
    """New messages of one sender a second, over `sender_burst`: more than a machine answers, and an end to a loop."""
    sender_burst: int = 2_000
    deliveries_max: int = 5
    """Attempts at one message before it becomes a dead letter."""
    ack_wait_s: float = 10.0
    """A worker not heard of for this long has lost its messages to the others; heartbeats come three times as often."""
    parked_max: int = 512
    """Messages a worker holds because an earlier one of their conversation is not finished."""
    answer_timeout_s: float = 600.0
    """For how long a waiting client is held; the answer itself can be fetched later."""
    duplicate_window_s: float = 300.0
    """For how long the bus itself remembers ids; the request table remembers them longer."""
    turns_age_s: int = 90 * 86_400
    turns_bytes_max: int = 4_294_967_296
    events_age_s: int = 7 * 86_400
    dead_age_s: int = 30 * 86_400
    blob_age_s: int = 30 * 86_400
    outage_s: float = 600.0
    """For how long work in hand waits for a bus or sessions server that is away, before it goes back to the queue."""
    drain_s: float = 20.0
    """For how long a stopping part finishes what it has begun."""


class ModelConfig(Strict, frozen=True):
    """One model. What is not named here goes to the backend's own settings."""

    name: str
    type: str
    path: str = ""
    description: str = ""
    slots: int | None = None
    """Requests served at once; the backend chooses when absent."""
    system: str | None = None
    """System prompt where the request brings none."""
    default: bool = False
    """Answers requests that name no model; otherwise the first model of a chat type does."""
    settings: dict[str, Any] = field(default_factory=dict)


class ConnectorConfig(Strict, frozen=True):
    """One connector. What is not named here goes to the connector's own settings."""

    type: str
    name: str = ""
    model: str = ""
    """Model for messages that name none."""
    allow: tuple[str, ...] = ()
    """Sender ids that may write, for platforms that do not authenticate senders themselves."""
    settings: dict[str, Any] = field(default_factory=dict)


def _default_connectors() -> tuple[ConnectorConfig, ...]:
    return tuple(ConnectorConfig(type=t, name=t) for t in ("nats", "openai", "web"))


class Config(Strict, frozen=True):
    """config.yaml as a whole."""

    models: tuple[ModelConfig, ...]
    connectors: tuple[ConnectorConfig, ...] = field(default_factory=_default_connectors)
    http: HttpConfig = HttpConfig()
    bus: BusConfig = BusConfig()
    sessions: SessionConfig = SessionConfig()
    limits: LimitConfig = LimitConfig()
    language: str = "en"
    """Language of the page for a reader whose browser names neither: `en` or `zh`."""


class BackendSettings(Strict, frozen=True):
    """Base of a backend's settings."""


class ConnectorSettings(Strict, frozen=True):
    """Base of a connector's settings."""


S = TypeVar("S", bound=Strict)


def settings_of(kind: type[S], raw: dict[str, Any], place: str) -> S:
    """Decode a plug-in's own settings. `place` reads like `connectors[2] (irc)`; raises `ConfigError`."""
    try:
        return msgspec.convert(raw, kind, strict=True)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{place}: {_readable(error)}") from None


def _readable(error: msgspec.ValidationError) -> str:
    """`Expected `int`, got `str` - at `$.slots`` → `slots: expected int, got str`."""
    text = str(error).replace("`", "")
    what, _, where = text.partition(" - at ")
    where = where.removeprefix("$").lstrip(".")
    if what.startswith("Object contains unknown field "):
        unknown = what.removeprefix("Object contains unknown field ")
        return f"{where + '.' if where else ''}{unknown}: unknown field; remove it or check its spelling"
    return f"{where}: {what[0].lower()}{what[1:]}" if where else what


def config_of(document: object, source: str | Path) -> Config:
    """Decode the parsed YAML of `source`; raises `ConfigError` naming the file and the path in it."""
    if not isinstance(document, dict):
        raise ConfigError(f"{source}: expected a mapping with `models:` at the top, got {type(document).__name__}")
    prepared = dict(document)
    prepared["models"] = _split(document.get("models"), ModelConfig, "models", source)
    if "connectors" in document:
        prepared["connectors"] = _split(document["connectors"], ConnectorConfig, "connectors", source)
    try:
        config = msgspec.convert(prepared, Config, strict=True)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: {_readable(error)}") from None
    _check(config, source)
    return config


def _split(items: object, kind: type[Strict], key: str, source: str | Path) -> list[dict[str, Any]]:
    """Sort each item's fields into the common ones and the plug-in's `settings`."""
    if not isinstance(items, list) or not items:
        raise ConfigError(f"{source}: {key}: expected a list with at least one entry")
    known = set(kind.__struct_fields__) - {"settings"}
    out = []
    for i, item in enumerate(items):
        if not isinstance(item, dict):
            raise ConfigError(f"{source}: {key}[{i}]: expected a mapping, got {type(item).__name__}")
        common = {k: v for k, v in item.items() if k in known}
        if kind is ConnectorConfig and isinstance(item.get("type"), str):
            common.setdefault("name", item["type"])
        common["settings"] = {k: v for k, v in item.items() if k not in known}
        out.append(common)
    return out


def _check(config: Config, source: str | Path) -> None:
    """What types cannot say: safe and unique names, positive limits."""
    listed = {"models": [m.name for m in config.models], "connectors": [c.name for c in config.connectors]}
    for key, names in listed.items():
        for i, name in enumerate(names):
            if not NAME.fullmatch(name):
                raise ConfigError(
                    f"{source}: {key}[{i}]: name {name!r}: use lower-case letters, digits, - and _, 48 at most"
                )
            if name in names[:i]:
                raise ConfigError(f"{source}: {key}[{i}]: name {name!r} is used twice; names must differ")
    for section in (config.http, config.bus, config.sessions, config.limits):
        for name in section.__struct_fields__:
            value = getattr(section, name)
            if isinstance(value, (int, float)) and not isinstance(value, bool) and value <= 0:
                raise ConfigError(f"{source}: {name}: expected more than 0, got {value}")
    if sum(m.default for m in config.models) > 1:
        raise ConfigError(f"{source}: models: more than one has `default: true`; keep one")
