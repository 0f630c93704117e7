"""What the llama backend does for a new version: a small trial, warm steps, a known hash."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from workers.llama import LlamaBackend
from workers.llama.fitting import file

SMALL = {"context": 256, "cache": 512, "batch": 64, "threads": 1}


def test_a_trial_asks_for_less_than_the_model_that_then_serves(starter_model: Path) -> None:
    whole, tried = (LlamaBackend(LlamaBackend.Settings(context=2048)) for _ in range(2))
    tried.for_trial()
    assert tried.demand(starter_model, 10**11).least < 0.5 * whole.demand(starter_model, 10**11).least


def test_warm_steps_leave_no_cells_and_tell_the_pace_that_holds_at_the_front(starter_model: Path) -> None:
    backend = LlamaBackend(LlamaBackend.Settings(**SMALL), slots=4)
    backend.load(starter_model)
    try:
        assert backend._chat is not None
        engine = backend._chat.engine
        before = engine._pace
        backend.warm_up()
        assert engine.cells_used == 0
        assert engine._pace is before, "what serves meanwhile is not disturbed"
        backend.to_front()
        assert engine._pace is not before
        assert 0 < engine._pace.of(1) <= engine._pace.of(2) < 10
    finally:
        backend.close()


def test_the_hash_of_a_release_is_known_without_reading_it_again(tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    model.write_bytes(b"x" * 100)
    own = hashlib.sha256(b"x" * 100).hexdigest()[:12]
    assert file.version(model) == own
    listed = {"path": "model.gguf", "size": 100, "sha256": "ab" * 32}
    (tmp_path / "RELEASE.json").write_text(json.dumps({"name": "m", "version": "2", "files": [listed]}))
    assert file.version(model) == "ab" * 6
    model.write_bytes(b"y" * 101)  # replaced by hand
    assert file.version(model) == hashlib.sha256(b"y" * 101).hexdigest()[:12]
