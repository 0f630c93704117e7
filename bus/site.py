"""The site: one data folder on one machine, as a subject can hold it. Ids of its workers begin with it."""

from __future__ import annotations

import re
import socket
from pathlib import Path

from schemas.message import token


def site(data: Path) -> str:
    """The host's name and a mark of the data folder."""
    return f"{re.sub(r'[^A-Za-z0-9_-]', '-', socket.gethostname())[:24]}-{token(str(data.resolve()))[:6]}"


def worker(data: Path, number: int) -> str:
    """The id of a worker; a worker that is started anew gets the same again."""
    return f"{site(data)}-{number}"


def site_of(worker: str) -> str:
    """The site of a worker's id."""
    return worker.rpartition("-")[0]
