"""Keys: who may sign a root, what lies where with which rights, and that a wrong passphrase opens nothing."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata

from schemas.errors import ConfigError, Rejected, Untrusted
from updater.publish import keys as keeping
from updater.publish.keys import Keys, chain
from updater.publish.private import read_private, write_private

WORDS = b"correct horse battery"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three root keys of which two are needed, all protected; bcrypt takes its time once."""
    folder = tmp_path_factory.mktemp("made") / "keys"
    keeping.create(folder, passphrase=WORDS)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "keys"))


@pytest.fixture
def plain(tmp_path: Path) -> Keys:
    return keeping.create(tmp_path / "plain", passphrase=None, root_keys=3, threshold=2)


def offline(folder: Path) -> list[Path]:
    return sorted((folder / "offline").iterdir())


def test_private_keys_are_for_their_owner_only(folder: Path) -> None:
    for place in (folder, folder / "offline", folder / "online"):
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
    files = [*offline(folder), *(folder / "online").iterdir()]
    assert len(files) == 6
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_root_keys_are_protected_and_no_secret_is_in_what_is_given_away(folder: Path) -> None:
    path = offline(folder)[0]
    with pytest.raises(ConfigError, match="has a passphrase"):
        read_private(path, keeping.refuse)
    with pytest.raises(ConfigError, match="passphrase is wrong"):
        read_private(path, lambda _: b"another passphrase")
    assert read_private(path, lambda _: WORDS)
    assert b"PRIVATE" not in (folder / "root.json").read_bytes()


def test_ssh_keygen_changes_a_passphrase(tmp_path: Path) -> None:
    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen is not installed")
    write_private(tmp_path, "root", WORDS)
    (path,) = tmp_path.iterdir()
    subprocess.run(
        ["ssh-keygen", "-p", "-f", path, "-P", WORDS, "-N", "something else again"], check=True, capture_output=True
    )
    assert read_private(path, lambda _: b"something else again")


@pytest.mark.parametrize("content", [b"", b"garbage", b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n"])
def test_a_file_that_is_no_key_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "root-1.pem").write_bytes(content)
    with pytest.raises(ConfigError, match=r"root-1\.pem cannot be opened: it is no private key"):
        read_private(tmp_path / "root-1.pem", keeping.refuse)


def test_keys_are_never_overwritten(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*.pem")}
    with pytest.raises(Rejected, match="never overwritten"):
        keeping.create(folder, passphrase=WORDS)
    assert {path: path.read_bytes() for path in folder.rglob("*.pem")} == before


@pytest.mark.parametrize(("keys", "threshold"), [(0, 0), (1, 2), (3, 0), (17, 2)])
def test_a_threshold_that_cannot_be_met_is_refused(tmp_path: Path, keys: int, threshold: int) -> None:
    with pytest.raises(Rejected, match="threshold"):
        keeping.create(tmp_path / "keys", passphrase=None, root_keys=keys, threshold=threshold)
    assert not (tmp_path / "keys").exists()


def test_a_renewed_root_has_the_same_keys_and_ends_later(plain: Keys) -> None:
    before = plain.newest.signed
    after = keeping.renew(plain, days=700)
    assert (after.version, after.keys, after.roles) == (2, before.keys, before.roles)
    assert after.expires > before.expires
    assert (plain.folder / "root.json").read_bytes() == plain.roots[-1]
    assert Keys(plain.folder).roots == plain.roots


def test_as_many_root_keys_as_the_threshold_sign_and_fewer_do_not(plain: Keys, tmp_path: Path) -> None:
    stick, safe = tmp_path / "stick", tmp_path / "safe"
    for place in (stick, safe):
        place.mkdir()
    first, second, third = offline(plain.folder)
    shutil.move(first, stick)
    shutil.move(second, safe)
    third.unlink()  # lost
    with pytest.raises(Rejected, match=r"root-[0-9a-f]{12}\.pem.*--offline"):
        keeping.renew(Keys(plain.folder))
    with pytest.raises(Rejected, match="lacks: 1"):
        keeping.renew(Keys(plain.folder, offline=[stick]))
    assert len(Keys(plain.folder).roots) == 1
    assert keeping.renew(Keys(plain.folder, offline=[stick, safe])).version == 2


def test_a_lost_root_key_is_replaced_with_those_that_are_left(plain: Keys) -> None:
    lost, *left = offline(plain.folder)
    lost.unlink()
    old = lost.stem.rpartition("-")[2]
    root = keeping.rotate(plain, ["root"], old=old)
    assert not any(keyid.startswith(old) for keyid in root.roles["root"].keyids)
    assert root.roles["root"].threshold == 2
    assert len(root.roles["root"].keyids) == 3
    left[0].unlink()
    assert keeping.renew(Keys(plain.folder)).version == 3, "the new key counts"


def test_which_of_several_root_keys_goes_must_be_said(plain: Keys) -> None:
    before = sorted(plain.folder.rglob("*"))
    with pytest.raises(Rejected, match="name the root key that goes"):
        keeping.rotate(plain, ["root"])
    with pytest.raises(Rejected, match="name the root key that goes"):
        keeping.rotate(plain, ["root"], old="zz")
    assert sorted(plain.folder.rglob("*")) == before, "nothing new is left behind"


def test_a_rotation_that_nobody_may_sign_leaves_everything_as_it_was(plain: Keys) -> None:
    for path in offline(plain.folder):
        path.unlink()
    before = {path: path.read_bytes() for path in plain.folder.rglob("*") if path.is_file()}
    with pytest.raises(Rejected, match="lacks: 2"):
        keeping.rotate(plain, ["targets", "snapshot", "timestamp"])
    assert {path: path.read_bytes() for path in plain.folder.rglob("*") if path.is_file()} == before


def test_the_root_that_is_handed_out_is_mended_after_a_kill(plain: Keys) -> None:
    old = (plain.folder / "root.json").read_bytes()
    keeping.renew(plain)
    (plain.folder / "root.json").write_bytes(old)
    Keys(plain.folder).hand_out()
    assert (plain.folder / "root.json").read_bytes() == plain.roots[-1]


def test_a_strange_root_in_the_chain_is_not_believed(plain: Keys, tmp_path: Path) -> None:
    other = keeping.create(tmp_path / "other", passphrase=None)
    keeping.renew(other)
    with pytest.raises(Untrusted, match="root 2 is not signed"):
        chain([plain.roots[0], other.roots[1]])
    with pytest.raises(Untrusted, match="calls itself version 2"):
        chain([other.roots[1]])
    with pytest.raises(Untrusted, match="no root metadata"):
        chain([b"{}"])
    altered = Metadata.from_bytes(plain.roots[0])
    altered.signed.roles["root"].threshold = 1
    with pytest.raises(Untrusted, match="root 1 is not signed"):
        chain([altered.to_bytes()])


def test_a_key_under_the_name_of_another_is_found_out(plain: Keys) -> None:
    first, second, _ = offline(plain.folder)
    shutil.copy(first, second)
    with pytest.raises(ConfigError, match="not the key that its name says"):
        keeping.renew(plain)


def test_a_folder_without_keys_says_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="roost release keys create"):
        Keys(tmp_path)
