"""What a file is called is what it is, and nothing that could run passes under any name."""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from schemas.errors import Untrusted
from schemas.release import SUFFIXES
from tests.updater.cutting import weights
from updater.formats import check, licence_of


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def gguf(pairs: dict[str, str], tensor: int = 0, data: bytes = b"") -> bytes:
    """A GGUF file with texts and one F32 tensor of so many elements."""
    body = b"GGUF" + struct.pack("<IQQ", 3, 1 if tensor else 0, len(pairs))
    body += b"".join(text(key) + struct.pack("<I", 8) + text(value) for key, value in pairs.items())
    if tensor:
        body += text("weight") + struct.pack("<IQIQ", 1, tensor, 0, 0)
    return body + bytes(-len(body) % 32) + data


def png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")


def zipped() -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps({}))
    return held.getvalue()


def sentencepiece() -> bytes:
    pieces = b"".join(
        b"\x0a" + bytes([len(word) + 2]) + b"\x0a" + bytes([len(word)]) + word for word in [b"<s>", b"the"]
    )
    return pieces + b"\x12\x80\x01" + bytes(128)


GOOD = {
    ".gguf": gguf({"general.architecture": "llama"}, 4, bytes(16)),
    ".safetensors": save({"a": np.ones(3, np.float32)}),
    ".json": b'{"a": [1, "\xc3\xa4"]}',
    ".txt": "ä plain text".encode(),
    ".md": b"# A model\n",
    ".jinja": b"{% for message in messages %}{{ message.content }}{% endfor %}",
    ".model": sentencepiece(),
    ".png": png(),
}

CODE = {
    "pickle 2": pickle.dumps({"a": 1}, 2),
    "pickle 3": pickle.dumps({"a": 1}, 3),
    "pickle 4": pickle.dumps({"a": 1}, 4),
    "pickle 5": pickletools.optimize(pickle.dumps({"a": 1}, 5)),
    "zip": zipped(),
    "empty zip": b"PK\x05\x06" + bytes(18),
    "gzip": b"\x1f\x8b\x08\x00" + bytes(20),
    "elf": Path(sys.executable).read_bytes()[:4_096],
    "mach-o": b"\xcf\xfa\xed\xfe\x07\x00\x00\x01" + bytes(64),
    "fat mach-o": b"\xca\xfe\xba\xbe" + bytes(64),
    "pe": b"MZ\x90\x00\x03\x00\x00\x00" + bytes(64),
    "script": b"#!/bin/sh\nrm -rf /\n",
    "script after a mark": b"\xef\xbb\xbf#!/bin/sh\n",
    "wasm": b"\x00asm\x01\x00\x00\x00",
    "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(64),
    "pyc": (3495).to_bytes(2, "little") + b"\r\n" + bytes(12),
}


def put(folder: Path, suffix: str, content: bytes) -> Path:
    path = folder / f"file{suffix}"
    path.write_bytes(content)
    return path


def test_every_kind_that_a_release_may_have_has_a_check() -> None:
    assert GOOD.keys() == SUFFIXES


@pytest.mark.parametrize("suffix", GOOD)
def test_a_good_file_passes_in_any_case_of_its_suffix(tmp_path: Path, suffix: str) -> None:
    path = put(tmp_path, suffix, GOOD[suffix])
    check(path, f"folder/file{suffix}")
    check(path, f"folder/FILE{suffix.upper()}")


@pytest.mark.parametrize("value", ["-Infinity", "Infinity", "NaN"])
def test_the_configuration_of_a_scheduler_as_diffusers_writes_it_passes(tmp_path: Path, value: str) -> None:
    check(put(tmp_path, ".json", f'{{"lambda_min_clipped": {value}}}'.encode()), "scheduler/scheduler_config.json")
    with pytest.raises(Untrusted, match="not JSON"):
        check(put(tmp_path, ".json", value.encode()), "scheduler/scheduler_config.json")


@pytest.mark.parametrize("kind", CODE)
def test_what_could_run_is_refused_under_every_name(tmp_path: Path, kind: str) -> None:
    for suffix in SUFFIXES:
        with pytest.raises(Untrusted, match="may hold code") as told:
            check(put(tmp_path, suffix, CODE[kind]), f"a{suffix}")
        assert told.value.code == "executable"


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".py", ".so", ".ckpt", ""])
def test_other_kinds_of_files_are_refused_by_name(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(Untrusted, match="refused"):
        check(put(tmp_path, suffix, b"harmless"), f"a{suffix}")


@pytest.mark.parametrize(
    ("suffix", "content", "reason"),
    [
        (".gguf", b"", "empty"),
        (".gguf", b"GGML" + bytes(40), "begins with"),
        (".gguf", GOOD[".gguf"][:-1], "it is not whole"),
        (".gguf", gguf({"general.architecture": "llama"}, 1 << 40, bytes(16)), "it is not whole"),
        (".gguf", GOOD[".gguf"][:30], "the file ends within"),
        (".safetensors", b"", "empty"),
        (".safetensors", GOOD[".safetensors"][:-1], "end at 12 of 11"),
        (".safetensors", GOOD[".safetensors"] + b"\0", "end at 12 of 13"),
        (".json", b"", "empty"),
        (".json", b'{"a": 1', "not JSON"),
        (".json", b"1", "not JSON"),
        (".json", b'{"a": "\xff"}', "not UTF-8"),
        (".json", b'{"a": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", "not JSON"),
        (".txt", b"abc\xff", "byte 3 is not UTF-8"),
        (".md", b"abc\0", "zero"),
        (".jinja", b"\xfe\xff", "not UTF-8"),
        (".model", b"\x0a\x05ab\xff", "neither"),
        (".model", b"\x0a\xff\xff\xff\xff\x7fabc", "neither"),
        (".model", b"\x0a\x80", "neither a SentencePiece model nor a text"),
        (".png", b"\x89PNG\r\n\x1a\n", "PNG"),
        (".png", GOOD[".png"][:-20], "PNG"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_what_its_name_says_is_refused(
    tmp_path: Path, suffix: str, content: bytes, reason: str
) -> None:
    with pytest.raises(Untrusted) as told:
        check(put(tmp_path, suffix, content), f"a{suffix}")
    assert reason in told.value.message
    assert f"a{suffix}" in told.value.message


@pytest.mark.parametrize("begin", [b"MZ", b"#!", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"])
def test_a_header_whose_length_looks_like_code_is_none(tmp_path: Path, begin: bytes) -> None:
    length = int.from_bytes(begin, "little")
    plain = weights(b"12345")
    header = plain[8:-5].rstrip()
    raw = struct.pack("<Q", length) + header + b" " * (length - len(header)) + plain[-5:]
    assert raw.startswith(begin)
    check(put(tmp_path, ".safetensors", raw), "a.safetensors")


def test_a_byte_pair_encoding_of_plain_text_is_a_model_too(tmp_path: Path) -> None:
    check(put(tmp_path, ".model", b"IQ== 0\nIg== 1\n"), "tokenizer.model")


def test_empty_texts_are_texts(tmp_path: Path) -> None:
    check(put(tmp_path, ".txt", b""), "NOTICE.txt")


def test_the_starter_model_passes_and_names_its_licence(starter_model: Path) -> None:
    file = next(starter_model.resolve().glob("*.gguf")) if starter_model.is_dir() else starter_model
    check(file, "model.gguf")
    assert licence_of(file) == ("apache-2.0", "smollm2")


def test_licence_and_origin_are_read_from_either_kind_of_weights(tmp_path: Path) -> None:
    said = {"general.architecture": "llama", "general.license": "mit", "general.source.url": "https://example.org/m"}
    assert licence_of(put(tmp_path, ".gguf", gguf(said))) == ("mit", "https://example.org/m")
    raw = save({"a": np.ones(1)}, {"modelspec.license": "openrail", "modelspec.author": "somebody"})
    assert licence_of(put(tmp_path, ".safetensors", raw)) == ("openrail", "somebody")


@pytest.mark.parametrize(
    ("suffix", "content"), [(".gguf", b"GGUF"), (".gguf", b""), (".safetensors", b"x" * 99), (".txt", b"MIT")]
)
def test_a_file_that_names_none_has_none(tmp_path: Path, suffix: str, content: bytes) -> None:
    assert licence_of(put(tmp_path, suffix, content)) == ("", "")
    assert licence_of(tmp_path / "nothing.gguf") == ("", "")
