"""Reads config.yaml: YAML with line numbers in its errors, paths made absolute, changes between two versions.

What always holds: a `Config` from here needs nothing but itself: every path in it is absolute, relative ones having
been taken from the folder of the configuration file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec
from msgspec.structs import replace

from schemas.config import Config, ModelConfig, config_of
from schemas.errors import ConfigError
from schemas.update import UpdatesConfig

FILE_BYTES_MAX = 1_000_000
"""A configuration of a hundred models has 20 kB; a larger file is a mistake."""
RUNNING = "ROOST_RUNNING_CONFIG"
"""Set by the supervisor for its parts: the file with the configuration it has accepted."""

Reaction = Literal["nothing", "reload", "restart"]
OTHERS = "*"
"""Stands for every part that is not named."""
REACTIONS: dict[str, dict[str, Reaction]] = {
    "models": {"worker": "reload", "connectors": "reload", "ops": "nothing", "updater": "reload", OTHERS: "restart"},
    "worker": {"worker": "reload"},
    "power": {"ops": "restart"},
    "updates": {"updater": "restart"},
    "limits": {OTHERS: "restart"},
    "language": {OTHERS: "restart"},
    "connectors": {"connectors": "restart"},
    "http": {"connectors": "restart"},
    "bus": {},
    "sessions": {},
}
"""What a change of a section asks of a part: it takes it up while it serves, or starts anew; a part that is not named
goes on. `bus` and `sessions`: Roost itself must be restarted."""

LINK = "current"


def parse(text: str, source: Path) -> object:
    """The YAML document in `text`; raises `ConfigError` with the line of what is wrong."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Safe YAML, without duplicate keys: of two equal ones the first would be lost in silence."""

    def mapping(loader: Loader, node: yaml.MappingNode) -> dict[object, object]:
        seen: dict[object, int] = {}
        for key_node, _ in node.value:
            key = loader.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise ConfigError(f"{source}, line {line}: {key!r} as a name: expected text; put it in quotes")
            if key in seen:
                raise ConfigError(f"{source}, line {line}: `{key}` is given twice (first in line {seen[key]})")
            seen[key] = line
        return dict(yaml.SafeLoader.construct_mapping(loader, node, deep=True))

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    try:
        return yaml.load(text, Loader)  # noqa: S506  a subclass of SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{source}{where}: {_plain(error, text)}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: {error}") from None
    except RecursionError:
        raise ConfigError(f"{source}: nested too deeply") from None
    except ValueError as error:  # such as a date with 13 months
        raise ConfigError(f"{source}: {error}; put the value in quotes") from None


def _plain(error: object, text: str) -> str:
    """A sentence for what the YAML reader found."""
    mark = getattr(error, "problem_mark", None)
    lines = text.splitlines()
    if mark is not None and mark.line < len(lines) and "\t" in lines[mark.line][: mark.column + 1]:
        return "a tab; YAML is indented with spaces"
    return str(getattr(error, "problem", None) or getattr(error, "context", None) or error)


def read(path: Path) -> str:
    """The text of a configuration file; raises `ConfigError`."""
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; name yours with --config or ROOST_CONFIG") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if len(raw) > FILE_BYTES_MAX:
        raise ConfigError(f"{path}: larger than {FILE_BYTES_MAX} bytes; is this the right file?")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}, line {line}: not UTF-8 text; save the file as UTF-8") from None


def load(path: Path) -> Config:
    """The configuration in `path`; raises `ConfigError` naming file, place and what was expected."""
    return absolute(config_of(parse(read(path), path), path), path.resolve().parent)


def absolute(config: Config, base: Path) -> Config:
    """`config` with every path in it absolute."""

    def full(path: str | None) -> str | None:
        return os.path.normpath(base / Path(path).expanduser()) if path else path

    def files(path: str) -> str:
        """A slot (a folder with a link `current`, which the updater keeps) stands for what its link names."""
        whole = full(path) or ""
        link = os.path.join(whole, LINK)
        return link if path and os.path.islink(link) else whole

    def model(item: ModelConfig) -> ModelConfig:
        lora = tuple(replace(adapter, path=files(adapter.path)) for adapter in item.lora)
        return replace(item, path=files(item.path), lora=lora)

    password = config.sessions.password
    if password and password.startswith("file:"):
        password = f"file:{full(password.removeprefix('file:'))}"
    return replace(
        config,
        models=tuple(model(item) for item in config.models),
        http=replace(config.http, certificate=full(config.http.certificate), key=full(config.http.key)),
        bus=replace(
            config.bus,
            credentials=full(config.bus.credentials),
            certificate_authority=full(config.bus.certificate_authority),
        ),
        sessions=replace(config.sessions, password=password),
        updates=_updates(config.updates, full),
    )


def _updates(updates: UpdatesConfig | None, full: Callable[[str | None], str | None]) -> UpdatesConfig | None:
    """A source is a folder unless it is an address or the bus."""
    if updates is None:
        return None
    folder = updates.source != "bus" and "://" not in updates.source
    source = full(updates.source) if folder else updates.source
    return replace(updates, source=source or "", root=full(updates.root) or "")


def running_file(data: Path) -> Path:
    return data / "run" / "config.json"


def running(file: Path) -> Config:
    """The configuration that the supervisor has accepted, as a part reads it."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Config)
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(f"{file}: {error}; restart Roost to write it anew") from None


def for_part(path: Path) -> Config:
    """What a part runs with: the supervisor's accepted configuration, or the file itself without one."""
    file = os.environ.get(RUNNING)
    return running(Path(file)) if file else load(path)


def changes(old: Config, new: Config) -> list[tuple[str, str]]:
    """What differs: pairs of section and a line such as `models[0].slots: 8 → 4`."""
    before, after = msgspec.to_builtins(old), msgspec.to_builtins(new)
    return [
        (section, line)
        for section in Config.__struct_fields__
        for line in _differ(before[section], after[section], section)
    ]


def reactions(sections: Collection[str], parts: Sequence[str]) -> dict[str, Reaction]:
    """What the parts must do when these sections have changed, in the order of `parts`; who goes on is left out."""
    strength: tuple[Reaction, ...] = ("nothing", "reload", "restart")
    found: dict[str, Reaction] = {}
    for part in parts:
        asked = [_reaction(section, part) for section in sections]
        strongest: Reaction = max(asked, key=strength.index, default="nothing")
        if strongest != "nothing":
            found[part] = strongest
    return found


def _reaction(section: str, part: str) -> Reaction:
    """A section that is not in the table concerns everybody: starting anew is always right."""
    if section not in REACTIONS:
        return "restart"
    table = REACTIONS[section]
    return table.get(part, table.get(OTHERS, "nothing"))


def _differ(old: object, new: object, place: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            # `settings` is where the plug-in's fields are kept, not what the operator wrote
            inner = place if key == "settings" else f"{place}.{key}"
            if key not in old or key not in new:
                yield f"{inner}: {_show(old.get(key))} → {_show(new.get(key))}"
            else:
                yield from _differ(old[key], new[key], inner)
    elif isinstance(old, list | tuple) and isinstance(new, list | tuple):
        for i in range(max(len(old), len(new))):
            if i >= len(old):
                yield f"{place}[{i}]: added ({_name(new[i])})"
            elif i >= len(new):
                yield f"{place}[{i}]: removed ({_name(old[i])})"
            else:
                yield from _differ(old[i], new[i], f"{place}[{i}]")
    elif old != new:
        yield f"{place}: {_show(old)} → {_show(new)}"


def _name(item: object) -> object:
    return item.get("name", item) if isinstance(item, dict) else item


def _show(value: object) -> str:
    return "not set" if value is None else str(value)
