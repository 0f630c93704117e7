"""Reading config.yaml: every mistake is told with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.config import REACTIONS, changes, load, reactions
from schemas.config import Config, Routes, routes_of
from schemas.errors import ConfigError

GOOD = "models:\n  - name: talk\n    type: echo\n"
ROOT = Path(__file__).parents[2]


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "config.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_the_configuration_at_the_root_is_right_and_has_the_two_models_of_the_product() -> None:
    config = load(ROOT / "config.yaml")
    talk, image = config.models
    assert (talk.name, talk.type, talk.settings) == ("text-generation", "llama", {"max_tokens": 2048})
    assert talk.path == str(ROOT / "models/text-generation/current")
    assert (image.name, image.type, image.settings) == ("image-processing", "diffusion", {"resolution": "512x512"})
    assert [connector.type for connector in config.connectors] == ["nats", "openai", "web"]


def test_a_source_is_a_folder_unless_it_is_an_address_or_the_bus(tmp_path: Path) -> None:
    address, folder = "https://a.example/r", str(tmp_path / "up")
    for source, meant in {"bus": "bus", address: address, "up": folder}.items():
        updates = load(write(tmp_path, GOOD + f"updates: {{source: '{source}', root: keys/root.json}}\n")).updates
        assert updates is not None
        assert (updates.source, updates.root) == (meant, str(tmp_path / "keys/root.json"))


def routes(first: str, second: str = "{}") -> str:
    return f"models: [{{name: a, type: echo, routes: {first}}}, {{name: b, type: echo, routes: {second}}}]\n"


def test_routes_may_be_written_as_a_list_of_kinds(tmp_path: Path) -> None:
    full = "{kinds: [chat], languages: [zh, en-GB], commands: [/快, /fast], fallback: [a]}"
    a, b = load(write(tmp_path, routes("[code, long]", full))).models
    assert routes_of(a) == Routes(kinds=("code", "long"))
    assert routes_of(b).commands == ("/快", "/fast")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (GOOD + "limits: {slots: 1}\n", "limits.slots: unknown field"),
        (GOOD + "limits: {drain_s: soon}\n", "limits.drain_s: expected float, got str"),
        (GOOD + "models: []\n", "line 4: `models` is given twice (first in line 1)"),
        (GOOD + "http:\n\tlisten: x\n", "line 5, column 1: a tab; YAML is indented with spaces"),
        (GOOD + "language: [en\n", "line 5, column 1: "),
        (GOOD.encode() + b"language: \xff\n", "line 4: not UTF-8 text"),
        (GOOD + "2: two\n", "line 4: 2 as a name: expected text"),
        ("", "expected a mapping with `models:` at the top, got NoneType"),
        ("- a\n", "expected a mapping with `models:` at the top, got list"),
        ("models: talk\n", "models: expected a list with at least one entry"),
        ("models:\n  - type: echo\n", "models[0]: object missing required field name"),
        ("models:\n  - name: A b\n    type: echo\n", "models[0]: name 'A b': use lower-case letters"),
        (GOOD + "    lora: [{path: a, name: x}, {path: b, name: x}]\n", "(talk): lora: name 'x' is used twice"),
        (GOOD + "    rollout: {canary: 101}\n", "models[0].rollout.canary: expected int <= 100"),
        (GOOD + "updates: {source: bus}\n", "updates: object missing required field root"),
        (GOOD + "updates: {source: bus, root: r, timeout_s: 0}\n", "timeout_s: expected more than 0"),
        (GOOD + "x: !!python/object/apply:os.system [ls]\n", "line 4"),
        ("a: " + "[" * 5_000 + "\n", "config.yaml"),
        (b"#" * 1_000_001, "larger than 1000000 bytes"),
        (GOOD + "language: 2026-13-45\n", "config.yaml"),
        (routes("[cod]"), "models[0].routes"),
        (routes("[code, auto]"), "models[0] (a): routes.kinds: auto is no kind of its own"),
        (routes("{kind: [code]}"), "models[0].routes.kind: unknown field"),
        (routes("{fallback: [b, c]}"), "models[0] (a): routes.fallback[1]: no model is called 'c'; there are: a, b"),
        (routes("{fallback: [a]}"), "models[0] (a): routes.fallback[0]: a model cannot stand in for itself"),
        (routes("{commands: [fast]}"), "models[0] (a): routes.commands[0]: expected one word that begins with /"),
        (routes("{commands: ['/go now']}"), "models[0] (a): routes.commands[0]: expected one word"),
        (routes("{commands: [/model]}"), "models[0] (a): routes.commands[0]: /model NAME is built in"),
        (routes("{commands: [/x]}", "{commands: [/y, /X]}"), "models[1] (b): routes.commands[1]: /X is a command of a"),
        (routes("{languages: [en, Chinese]}"), "models[0] (a): routes.languages[1]: expected a code such as en or zh"),
        ("models: [{name: auto, type: echo}]\n", "models[0]: name 'auto' means any model"),
    ],
)
def test_a_mistake_is_refused_with_its_file_and_place(tmp_path: Path, text: str | bytes, told: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as refused:
        load(path)
    assert refused.value.message.startswith(str(path))
    assert told.lower() in refused.value.message.lower()


def test_an_absent_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file; name yours with --config"):
        load(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path)


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    assert load(write(tmp_path, b"\xef\xbb\xbf" + GOOD.encode())).models[0].name == "talk"


def test_paths_are_taken_from_the_folder_of_the_file(tmp_path: Path) -> None:
    text = GOOD.replace("echo\n", "echo\n    path: models/a.gguf\n") + (
        "http: {certificate: tls/cert.pem, key: /abs/key.pem}\nbus: {credentials: ../b.creds}\n"
        "sessions: {password: 'file:secret'}\n"
    )
    folder = tmp_path / "etc"
    folder.mkdir()
    config = load(write(folder, text))
    assert config.models[0].path == str(folder / "models/a.gguf")
    assert config.http.certificate == str(folder / "tls/cert.pem")
    assert config.http.key == "/abs/key.pem"
    assert config.bus.credentials == str(tmp_path / "b.creds")
    assert config.sessions.password == f"file:{folder / 'secret'}"


def test_a_slot_stands_for_its_link(tmp_path: Path) -> None:
    slot = tmp_path / "painter"
    (slot / "releases" / "1").mkdir(parents=True)
    (tmp_path / "config.yaml").write_text("models: [{name: m, type: diffusion, path: painter}]")
    assert load(tmp_path / "config.yaml").models[0].path == str(slot)
    (slot / "current").symlink_to("releases/1")
    assert load(tmp_path / "config.yaml").models[0].path == str(slot / "current")


def test_changes_are_told_as_the_operator_wrote_them(tmp_path: Path) -> None:
    old = load(write(tmp_path, GOOD + "limits: {drain_s: 3}\n"))
    new = load(
        write(
            tmp_path,
            "models:\n  - name: talk\n    type: echo\n    slots: 4\n    delay_ms: 5\n  - {name: b, type: echo}\n"
            "connectors: [{type: nats}]\nlanguage: zh\n",
        )
    )
    assert changes(old, new) == [
        ("models", "models[0].slots: not set → 4"),
        ("models", "models[0].delay_ms: not set → 5"),
        ("models", "models[1]: added (b)"),
        ("connectors", "connectors[1]: removed (openai)"),
        ("connectors", "connectors[2]: removed (web)"),
        ("limits", "limits.drain_s: 3.0 → 20.0"),
        ("language", "language: en → zh"),
    ]
    assert changes(old, old) == []


@pytest.mark.parametrize(
    ("sections", "asked"),
    [
        (set(), {}),
        ({"connectors"}, {"connectors": "restart"}),
        ({"http"}, {"connectors": "restart"}),
        ({"models"}, {"connectors": "reload", "worker": "reload", "tiny": "restart"}),
        ({"worker"}, {"worker": "reload"}),
        ({"models", "worker"}, {"connectors": "reload", "worker": "reload", "tiny": "restart"}),
        ({"models", "http"}, {"connectors": "restart", "worker": "reload", "tiny": "restart"}),
        ({"limits", "models"}, {"connectors": "restart", "worker": "restart", "tiny": "restart"}),
        ({"bus", "sessions"}, {}),
        ({"unheard-of"}, {"connectors": "restart", "worker": "restart", "tiny": "restart"}),
    ],
)
def test_a_change_asks_of_each_part_no_more_than_it_needs(sections: set[str], asked: dict[str, str]) -> None:
    assert reactions(sections, ["connectors", "worker", "tiny"]) == asked


def test_every_section_says_what_it_asks_of_the_parts() -> None:
    assert set(REACTIONS) == set(Config.__struct_fields__)
