"""The router's classifier on public intents, which are talk one and all: how often it takes them for something else.

`python -m benchmarks.router_on_intents BANKING77.csv CLINC150.json …` reads files in the forms in which these sets are
published: CSV with a column `text`, JSON with lists of `[text, intent]` under any name. It downloads nothing. Times
are those of the processor.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections import Counter
from pathlib import Path

from benchmarks.result import Row, note, table
from connectors.host.classify import classify

FALSE_PERCENT_MAX = 0.5
MICROSECONDS_MAX = 200.0
SHOWN = 20


def texts_of(path: Path) -> list[str]:
    """The messages of one file."""
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            return [row["text"] for row in csv.DictReader(file)]
    sets: dict[str, list[list[str]]] = json.loads(path.read_text(encoding="utf-8"))
    return [text for pairs in sets.values() for text, _ in pairs]


def measure(name: str, texts: list[str]) -> list[Row]:
    began = time.thread_time()
    said = [classify(text) for text in texts]
    spent_us = (time.thread_time() - began) / len(texts) * 1e6
    wrong = [(kind, text) for kind, text in zip(said, texts, strict=True) if kind != "chat"]
    note(f"{name}: {len(texts)} messages, {dict(Counter(kind for kind, _ in wrong))} not taken for talk")
    for kind, text in wrong[:SHOWN]:
        note(f"  {kind}: {text[:150]}")
    false = 100 * len(wrong) / len(texts)
    what = f"of {len(texts)} messages of {name} not taken for talk"
    return [
        Row(benchmark="router", what=what, value=false, unit="%", goal=FALSE_PERCENT_MAX, least=False),
        Row(
            benchmark="router",
            what=f"a message of {name}",
            value=spent_us,
            unit="µs",
            goal=MICROSECONDS_MAX,
            least=False,
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the router's false alarms on messages that are all talk.")
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="CSV with `text`, or JSON of [text, intent]"
    )
    rows: list[Row] = []
    for path in parser.parse_args().files:
        rows += measure(path.parent.name or path.stem, texts_of(path))
    print(table(rows))


if __name__ == "__main__":
    main()
