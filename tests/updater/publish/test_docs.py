"""docs/publish-releases.md does what it says: its marked blocks run one after the other."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from schemas.release import Expected, Golden
from tests.conftest import ROOT
from tests.updater.publish.clients import Client, names
from tests.updater.publish.test_create import tiny_gguf
from updater.publish.goldens import read_goldens

PAGE = (ROOT / "docs" / "publish-releases.md").read_text()
BLOCK = re.compile(r"^ *```sh run\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def test_a_publisher_gets_from_nothing_to_a_pushed_release_and_through_the_years(tmp_path: Path) -> None:
    here = tmp_path / "here"
    for folder in (here, tmp_path / "stick"):
        folder.mkdir()
    tiny_gguf(here / "model.gguf", license="mit")
    tiny_gguf(here / "other.gguf", fill=2.0)
    script = "".join(BLOCK.findall(PAGE))
    assert script.count("\n") >= 15
    script = script.replace("/media/stick", str(tmp_path / "stick")).replace("/srv/www/models", str(tmp_path / "www"))
    # the very root.json that is given away first, before the keys are renewed
    script = script.replace("roost release goldens >", "cp keys/root.json given.json\nroost release goldens >")
    done = subprocess.run(
        ["bash", "-eux"], input=script, cwd=here, capture_output=True, text=True, timeout=180, check=False,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "ROOST_RELEASE_PASSPHRASE": "several words are good",
            "ROOST_CONFIG": str(tmp_path / "none.yaml"),
            "ROOST_DATA": str(tmp_path / "none"),
        },
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "take offline" in done.stdout
    assert "is sound: 1 releases" in done.stdout
    assert "not here" in done.stdout, "of the root keys, once they are on the stick"
    client = Client(tmp_path / "www", (here / "given.json").read_bytes(), tmp_path / "state", ("chat",))
    assert names(client.releases()) == ["chat 1.0"]
    release = client.releases()["chat 1.0"]
    assert (release.licence, release.changelog) == ("mit", "The first.")
    assert release.goldens == read_goldens(here / "goldens.yaml")
    assert json.loads((here / "keys" / "root.json").read_bytes())["signed"]["version"] == 3


def test_every_field_of_a_golden_prompt_is_explained() -> None:
    for field in (*Golden.__struct_fields__, *Expected.__struct_fields__):
        assert f"`{field}`" in PAGE, field
