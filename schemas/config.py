"""The whole of config.yaml. Every limit stands here with its unit and its reason.

Decoding is strict: an unknown or ill-typed field is a `ConfigError` that names the file, the path and what was
expected. `models[]` and `connectors[]` carry settings of their plug-in beside the common fields; the plug-in
declares their type, and `settings_of` decodes them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import field

from schemas.errors import ConfigError
from schemas.message import Kind
from schemas.strict import NAME, Size, Strict
from schemas.update import RolloutConfig, UpdatesConfig


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
    answers_max: int = 16
    """Answers to one prompt (`n`); each takes a slot's worth of the model, and OpenAI's clients ask for a handful."""
    tools_max: int = 128
    """Tools of one request, and calls of one message; as many as OpenAI takes."""
    tools_chars_max: int = 100_000
    """All tools of a request as JSON: they stand in the prompt, as a message does."""
    format_chars_max: int = 50_000
    """A JSON Schema or a grammar; compiling one takes time and memory in proportion."""
    logit_bias_max: int = 1_024
    """Tokens with a bias; each is looked at for every token that is chosen."""
    picture_side_max: int = 2_048
    """Pixels of a picture's side: twice what the largest common models draw, whose work grows with its square."""
    picture_steps_max: int = 150
    """Steps of one picture; schedulers need 1 to 50, and more only take time."""
    picture_prompt_chars_max: int = 4_000
    """What a picture shall show: many times what text encoders read (77 to 512 tokens)."""
    picture_link_s: float = 86_400.0
    """For how long a link to a picture can be opened without a key: whoever has the link has the picture."""
    logprobs_max: int = 64
    """Log probabilities told for one place in all answers together; 64 make 10 MB of an answer of 2,048 tokens."""
    inputs_max: int = 2_048
    """Texts to embed in one request; as many as OpenAI takes."""
    inputs_chars_max: int = 1_000_000
    """All texts to embed in one request: about ten long documents, minutes of work on a modest machine."""
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


class Routes(Strict, frozen=True):
    """For which requests the router chooses a model. Requests that name it reach it anyway."""

    kinds: tuple[Kind, ...] = ()
    """Kinds of requests that it is for; by default what its backend can do, in the order of the file."""
    languages: tuple[str, ...] = ()
    """Languages that it is good at (`en`, `zh`); by default all."""
    commands: tuple[str, ...] = ()
    """Words such as `/code` at the beginning of a message that choose it."""
    fallback: tuple[str, ...] = ()
    """Models that answer requests naming this one while no live worker serves it, in this order."""


class PowerConfig(Strict, frozen=True):
    """Power: what the machine may use when it is busy and when it is not."""

    profile: Literal["performance", "balanced", "saver"] = "balanced"
    """`balanced` raises under load and lowers when idle or on battery; the others stay where they are."""
    cpu: bool = True
    """Set the processor's governor and energy preference where the system permits it; put back at the end."""
    idle_after_s: float = 30.0
    """Without a request for this long, the machine counts as idle."""


class WorkerConfig(Strict, frozen=True):
    """The models of one machine together."""

    memory: Size = "80%"
    """What all loaded models together may take. Idle ones are unloaded to stay below."""
    overcommit: bool = False
    """Run a model that is larger than free memory from the page cache; slow, and said so."""
    unload_after_s: float | None = None
    """Unload a model that nobody has asked for this long; by default it stays until its memory is needed."""


class AdapterConfig(Strict, frozen=True):
    """A LoRA adapter of a model."""

    path: str
    name: str = ""
    """Requests choose it by this name; without one it is always on."""
    scale: float = 1.0


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
    routes: Routes | tuple[Kind, ...] = Routes()
    """`routes: [code]` is short for `routes: {kinds: [code]}`."""
    memory: Size | None = None
    """What this model may take; what it chooses by itself (context, KV type) is chosen to fit."""
    size: Size | None = None
    """What it will take, for a backend that cannot tell before loading."""
    warm_up: bool = True
    """Load at the start; otherwise at the first request."""
    lora: tuple[AdapterConfig, ...] = ()
    """LoRA adapters that are loaded with it."""
    rollout: RolloutConfig = RolloutConfig()
    """How a new version of it is taken into use."""
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
    worker: WorkerConfig = WorkerConfig()
    power: PowerConfig = PowerConfig()
    updates: UpdatesConfig | None = None
    """Where new versions of the models come from; without it nothing is fetched, and no updater runs."""
    language: str = "en"
    """Language of the page for a reader whose browser names neither: `en` or `zh`."""


def routes_of(model: ModelConfig) -> Routes:
    """The routes of a model, whichever way they were written."""
    return model.routes if isinstance(model.routes, Routes) else Routes(kinds=model.routes)


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
    for i, model in enumerate(config.models):
        adapters = [adapter.name for adapter in model.lora if adapter.name]
        for j, name in enumerate(adapters):
            if name in adapters[:j]:
                raise ConfigError(f"{source}: models[{i}] ({model.name}): lora: name {name!r} is used twice")
    sections = (config.http, config.bus, config.sessions, config.limits, config.worker, config.power, config.updates)
    for section in sections:
        for name in section.__struct_fields__ if section is not None else ():
            value = getattr(section, name)
            if isinstance(value, (int, float)) and not isinstance(value, bool) and value <= 0:
                raise ConfigError(f"{source}: {name}: expected more than 0, got {value}")
    if sum(m.default for m in config.models) > 1:
        raise ConfigError(f"{source}: models: more than one has `default: true`; keep one")
    _check_routes(config, source)


COMMAND = re.compile(r"/[^\s/]{1,47}")
LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")


def _check_routes(config: Config, source: str | Path) -> None:
    """Names that the router would not find, and words that it could not tell apart."""
    names = [model.name for model in config.models]
    commands: dict[str, str] = {}
    for i, model in enumerate(config.models):
        place = f"{source}: models[{i}] ({model.name}): routes"
        routes = routes_of(model)
        if model.name == "auto":
            raise ConfigError(f"{source}: models[{i}]: name 'auto' means any model; choose another")
        if "auto" in routes.kinds:
            raise ConfigError(f"{place}.kinds: auto is no kind of its own; leave `kinds` out for all")
        for j, name in enumerate(routes.fallback):
            if name not in names:
                raise ConfigError(f"{place}.fallback[{j}]: no model is called {name!r}; there are: {', '.join(names)}")
            if name == model.name:
                raise ConfigError(f"{place}.fallback[{j}]: a model cannot stand in for itself; name another")
        for j, word in enumerate(routes.commands):
            if not COMMAND.fullmatch(word):
                raise ConfigError(f"{place}.commands[{j}]: expected one word that begins with /, got {word!r}")
            if word.lower() == "/model":
                raise ConfigError(f"{place}.commands[{j}]: /model NAME is built in; choose another word")
            if (other := commands.setdefault(word.lower(), model.name)) != model.name:
                raise ConfigError(f"{place}.commands[{j}]: {word} is a command of {other} already; choose another word")
        for j, language in enumerate(routes.languages):
            if not LANGUAGE.fullmatch(language):
                raise ConfigError(f"{place}.languages[{j}]: expected a code such as en or zh, got {language!r}")
