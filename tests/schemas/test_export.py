"""The published schemas: current, valid, and true of what is really sent."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from jsonschema import Draft202012Validator, ValidationError

from bus import streams, subjects
from schemas import export
from schemas.config import Config, ModelConfig
from tests.conftest import ROOT
from tests.schemas.wire import EXAMPLES

DOCUMENT: dict[str, Any] = export.asyncapi()


def test_the_checked_in_files_are_current() -> None:
    assert export.stale() == [], "run python -m schemas.export"


def test_the_documents_are_the_same_each_time() -> None:
    program = "from schemas import export; import sys; sys.stdout.write(repr(export.documents()))"
    outputs = {
        subprocess.run([sys.executable, "-c", program], cwd=ROOT, env={"PYTHONHASHSEED": seed}, capture_output=True,
                       text=True, check=True).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert outputs == {repr(export.documents())}


def test_what_is_missing_altered_or_left_over_is_not_current(tmp_path: Path) -> None:
    for name, text in export.documents().items():
        (tmp_path / name).write_text(text)
    assert export.stale(tmp_path) == []
    (tmp_path / "inbound.json").unlink()
    (tmp_path / "turn.json").write_text("{}")
    (tmp_path / "gone.json").write_text("{}")
    assert export.stale(tmp_path) == ["gone.json", "inbound.json", "turn.json"]


@pytest.mark.parametrize("name", sorted(n for n in export.documents() if n != "asyncapi.json"))
def test_every_schema_is_valid_json_schema(name: str) -> None:
    schema = json.loads(export.documents()[name])
    Draft202012Validator.check_schema(schema)
    assert schema["$id"].endswith(name)


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_encoded_messages_validate_against_their_schema(name: str) -> None:
    value = EXAMPLES[name]
    schema = Draft202012Validator(json.loads(export.documents()[export.file_name(type(value))]))
    encoded = json.loads(msgspec.json.encode(value))
    schema.validate(encoded)
    schema.validate({**encoded, "from_the_future": 1})
    for field in schema.schema["required"]:
        with pytest.raises(ValidationError, match=field):
            schema.validate({k: v for k, v in encoded.items() if k != field})


def test_the_configuration_validates_and_unknown_fields_do_not() -> None:
    schema = Draft202012Validator(json.loads(export.documents()["config.json"]))
    document = yaml.safe_load((ROOT / "config.yaml").read_text())
    schema.validate(document)
    with pytest.raises(ValidationError, match="oops"):
        schema.validate({**document, "oops": 1})
    with pytest.raises(ValidationError, match="listne"):
        schema.validate({**document, "http": {"listne": "127.0.0.1:1"}})
    with pytest.raises(ValidationError, match="type"):
        schema.validate({**document, "models": [{"name": "x"}]})


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [v for k, v in value.items() if k == "$ref"] + [r for v in value.values() for r in references(v)]
    return [r for item in value for r in references(item)] if isinstance(value, list) else []


def resolve(document: Any, reference: str) -> Any:
    for step in reference.removeprefix("#/").split("/"):
        document = document[step.replace("~1", "/").replace("~0", "~")]
    return document


def test_the_asyncapi_document_has_the_required_structure() -> None:
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= DOCUMENT["info"].keys()
    assert DOCUMENT["channels"]
    assert DOCUMENT["operations"]
    for operation in DOCUMENT["operations"].values():
        assert operation["action"] in ("send", "receive")
        channel = resolve(DOCUMENT, operation["channel"]["$ref"])
        for message in operation["messages"]:
            assert message["$ref"].startswith(operation["channel"]["$ref"] + "/messages/")
            assert resolve(DOCUMENT, message["$ref"]) in channel["messages"].values()
    for channel in DOCUMENT["channels"].values():
        named = re.findall(r"{(\w+)}", channel["address"] or "")
        assert sorted(named) == sorted(channel.get("parameters", {}))
    for message in DOCUMENT["components"]["messages"].values():
        assert message["payload"]["$ref"].startswith("#/components/schemas/")
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_every_reference_resolves() -> None:
    found = references(DOCUMENT)
    assert len(found) > 50
    for reference in found:
        assert isinstance(resolve(DOCUMENT, reference), dict)
    for name, text in export.documents().items():
        document = json.loads(text)
        for reference in references(document):
            assert resolve(document, reference), (name, reference)


def test_the_addresses_are_those_of_the_bus() -> None:
    told = {channel.address.replace("{", "").replace("}", "") for channel in export.CHANNELS.values()}
    known = {
        subjects.ASK,
        subjects.ASK_STATE,
        subjects.ASK_CANCEL,
        subjects.ASK_FILE,
        subjects.inbox("model", "channel", "conversation"),
        subjects.outbox("channel", "conversation"),
        subjects.turn("channel", "conversation"),
        subjects.event("model", "model", "what"),
        subjects.event("alert", "code"),
        subjects.event("part", "name"),
        subjects.event("power", "what"),
        subjects.audit("what"),
        subjects.dead("stream"),
        subjects.delta("request"),
        subjects.cancel("request"),
        subjects.take("worker"),
        subjects.models("worker"),
        subjects.wake("host"),
        subjects.updater("site"),
        subjects.event("release", "published"),
        subjects.event("shadow", "model"),
        subjects.event("failure", "model"),
    }
    assert {address for address in told if not address.startswith("$KV.")} == known


def test_every_subject_that_is_stored_names_the_stream_that_stores_it() -> None:
    config = Config(models=(ModelConfig(name="m", type="echo"),))
    declared = {**streams.declared(config), **streams.stores(config)}
    patterns = {pattern: name for name, spec in declared.items() for pattern in spec["subjects"]}
    for channel in export.CHANNELS.values():
        stored = next((n for p, n in patterns.items() if channel.address.startswith(p.removesuffix(">"))), "")
        assert channel.stream == stored, channel.address
    assert set(streams.declared(config)) <= {channel.stream for channel in export.CHANNELS.values()}
