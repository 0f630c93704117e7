"""Where the servers are and with which credentials: of the operator's own, or embedded.

The supervisor writes `data/run/endpoints.json` once the embedded servers listen; every other process of this
machine reads it. Secrets stay in files of their own under `data/secrets/`; only their paths are passed on.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec
from msgspec import Struct

from schemas.config import Config
from schemas.errors import ConfigError

_ENV = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class Endpoints(Struct, frozen=True, kw_only=True):
    """Addresses and credential files of both servers."""

    nats: tuple[str, ...]
    nats_seed: str | None = None
    """File with an nkey seed, or a .creds file."""
    nats_ca: str | None = None
    redis: str = ""
    redis_password: str | None = None
    """`file:PATH` or `${ENV}`."""


def secret(reference: str | None, place: str) -> str | None:
    """Resolve `${ENV}` or `file:PATH`; raises `ConfigError` for anything else, so that no secret stands in YAML."""
    if reference is None:
        return None
    if match := _ENV.fullmatch(reference):
        value = os.environ.get(match[1])
        if not value:
            raise ConfigError(f"{place}: the environment variable {match[1]} is not set")
        return value
    if reference.startswith("file:"):
        try:
            return Path(reference.removeprefix("file:")).read_text().strip()
        except OSError as error:
            raise ConfigError(f"{place}: cannot read {reference}: {error.strerror}") from None
    raise ConfigError(f"{place}: write ${{NAME}} or file:PATH; secrets do not belong in the configuration file")


def run_file(data: Path) -> Path:
    return data / "run" / "endpoints.json"


def resolve(config: Config, data: Path) -> Endpoints:
    """Endpoints for a process of this machine: the configuration's own servers, or what the supervisor started.

    Raises `ConfigError` when an embedded server is needed and none has been started.
    """
    embedded: Endpoints | None = None
    try:
        embedded = msgspec.json.decode(run_file(data).read_bytes(), type=Endpoints)
    except OSError:
        pass
    except msgspec.DecodeError as error:
        raise ConfigError(f"{run_file(data)}: {error}; stop Roost, delete this file and start again") from None
    if embedded is None and not (config.bus.servers and config.sessions.url):
        raise ConfigError(f"Roost is not running with data folder {data}; start it with `make up` or `roost up`")
    return Endpoints(
        nats=config.bus.servers or (embedded.nats if embedded else ()),
        nats_seed=config.bus.credentials if config.bus.servers else (embedded.nats_seed if embedded else None),
        nats_ca=config.bus.certificate_authority,
        redis=config.sessions.url or (embedded.redis if embedded else ""),
        redis_password=config.sessions.password
        if config.sessions.url
        else (embedded.redis_password if embedded else None),
    )
