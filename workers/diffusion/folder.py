"""A pipeline's folder, looked at before anything of it is loaded.

What always holds: a `Folder` names only classes of diffusers and transformers, each part of it is there with its
configuration and with whole safetensors weights, and no code of the folder's own will be run.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from schemas.errors import ConfigError, RoostError, Untrusted
from workers.diffusion.weights import PICKLED, Weights, variants, weights

INDEX = "model_index.json"
PREVIEW_DECODER = "preview_decoder"
"""A small decoder for previews may be in the folder, as a part that `model_index.json` need not name."""
ADVICE = "roost.json"
"""What the folder's maker advises; diffusers has no place for it."""
JSON_BYTES_MAX = 1_000_000
PARTS_MAX = 16
PART = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
CLASS = re.compile(r"[A-Z][A-Za-z0-9_]{0,99}")
LIBRARIES = {"diffusers", "transformers"}
WITHIN = {("stable_diffusion", "StableDiffusionSafetyChecker")}
"""Classes that diffusers itself names by one of its own modules."""
WEIGHTLESS = re.compile(r".*(Scheduler|Tokenizer|TokenizerFast|Processor|ProcessorFast|FeatureExtractor)")
CONFIGS = (
    ("Scheduler", ("scheduler_config.json",)),
    ("Tokenizer", ("tokenizer_config.json", "tokenizer.json", "vocab.json", "spiece.model")),
    ("TokenizerFast", ("tokenizer_config.json", "tokenizer.json")),
    ("Processor", ("preprocessor_config.json", "processor_config.json")),
    ("ProcessorFast", ("preprocessor_config.json", "processor_config.json")),
    ("FeatureExtractor", ("preprocessor_config.json",)),
    ("", ("config.json",)),
)


class Advice(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How the model draws best, as its maker says; settings and requests come first."""

    steps: Annotated[int, Meta(ge=1, le=1000)] | None = None
    guidance: Annotated[float, Meta(ge=0, le=50)] | None = None
    scheduler: str = ""
    negative: str = ""


class Part(Struct, frozen=True):
    """A component: `unet`, `vae`, `tokenizer` …; without weights where it computes nothing."""

    name: str
    kind: str
    config: dict[str, Any] = {}
    weights: Weights | None = None


class Folder(Struct, frozen=True):
    """A pipeline that can be loaded."""

    path: Path
    kind: str
    """Class of the pipeline."""
    parts: tuple[Part, ...]
    variant: str = ""
    preview: Part | None = None
    advice: Advice = Advice()

    def part(self, *names: str) -> Part | None:
        """The first of these that there is."""
        return next((part for name in names for part in self.parts if part.name == name), None)

    @property
    def denoiser(self) -> Part | None:
        return self.part("unet", "transformer", "prior")

    def size(self, precision_bytes: int) -> int:
        """Bytes of all weights in memory."""
        every = (*self.parts, self.preview) if self.preview else self.parts
        return sum(part.weights.size(precision_bytes) for part in every if part.weights)


def look(path: Path | None) -> Folder:
    """Read what the folder says of itself; raises `ConfigError` for what is missing, `Untrusted` for what is wrong."""
    if path is None:
        raise ConfigError("a model of type diffusion needs `path`: a folder with a model_index.json")
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError):
        raise ConfigError(f"{path}: no such folder; put a diffusers folder there or change models[].path") from None
    try:
        return _looked(path, real)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}; check its permissions") from None
    except RoostError as error:
        if str(path) in error.message:
            raise
        raise type(error)(f"{path}: {error.message}", code=error.code) from None


def _looked(path: Path, real: Path) -> Folder:
    if not real.is_dir():
        raise _no_folder(path, real)
    if not (real / INDEX).is_file():
        raise ConfigError(_without_index(path, real))
    index = read_json(real / INDEX)
    kind = index.get("_class_name")
    if isinstance(kind, list) or not isinstance(kind, str) or not CLASS.fullmatch(kind):
        raise Untrusted(
            f"{path}: model_index.json names no class of diffusers; custom code is not run", code="model_file"
        )
    named = {name: value for name, value in index.items() if not name.startswith("_") and isinstance(value, list)}
    if not 1 <= len(named) <= PARTS_MAX:
        raise Untrusted(
            f"{path}: model_index.json names {len(named)} parts; 1 to {PARTS_MAX} make sense", code="model_file"
        )
    kinds = {name: checked for name, value in named.items() if (checked := _class(name, value)) is not None}
    heavy = [name for name, each in kinds.items() if not WEIGHTLESS.fullmatch(each)]
    variant = _variant(real, heavy)
    parts = tuple(_part(real, name, each, variant if name in heavy else None) for name, each in kinds.items())
    return Folder(real, kind, parts, variant, _preview(real), _advice(real))


def _advice(real: Path) -> Advice:
    if not (real / ADVICE).exists():
        return Advice()
    try:
        return msgspec.convert(read_json(real / ADVICE), Advice)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{ADVICE}: {error}; mend it or take it away") from None


def _no_folder(path: Path, real: Path) -> RoostError:
    if real.suffix in PICKLED:
        return Untrusted(
            f"{path} is a pickle, which can run any code when it is read; convert it to a diffusers folder of "
            "safetensors files first",
            code="model_file",
        )
    if real.suffix == ".safetensors":
        return ConfigError(
            f"{path} is a single checkpoint; a folder with a model_index.json is wanted. diffusers makes one: "
            "`StableDiffusionPipeline.from_single_file(FILE).save_pretrained(FOLDER)`"
        )
    return ConfigError(f"{path} is a file; a model of type diffusion is a folder with a model_index.json")


def _without_index(path: Path, real: Path) -> str:
    single = sorted(file.name for file in real.iterdir() if file.suffix in {*PICKLED, ".safetensors"})
    if single:
        return (
            f"{path} holds {', '.join(single[:3])} and no model_index.json: single checkpoints are not taken, a "
            "diffusers folder is. diffusers makes one: `from_single_file(FILE).save_pretrained(FOLDER)`"
        )
    return f"{path} has no model_index.json; it is no diffusers folder, or it was copied in part"


def _class(name: str, value: list[Any]) -> str | None:
    """The class of a part; None for one that is left out on purpose."""
    if not PART.fullmatch(name):
        raise Untrusted(f"model_index.json: {name[:80]!r} is no name of a part", code="model_file")
    if value == [None, None]:
        return None
    if len(value) != 2 or not all(isinstance(item, str) for item in value) or not CLASS.fullmatch(value[1]):
        raise Untrusted(f"model_index.json: {name}: expected a library and a class", code="model_file")
    if value[0] not in LIBRARIES and tuple(value) not in WITHIN:
        raise Untrusted(
            f"model_index.json: {name}: {value[0][:80]!r} is neither diffusers nor transformers; no other code is run",
            code="model_file",
        )
    return str(value[1])


def _variant(real: Path, heavy: list[str]) -> str:
    """Plain weights where every part has them, else the variant that some part has alone."""
    there = [found for name in heavy if (real / name).is_dir() and (found := variants(real / name))]
    if all("" in found for found in there):
        return ""
    alone = next(found for found in there if "" not in found)
    return min(alone)


def _part(real: Path, name: str, kind: str, variant: str | None) -> Part:
    folder = real / name
    if not folder.is_dir():
        raise ConfigError(f"its part {name!r} is missing; copy the whole folder again")
    wanted = next(files for ending, files in CONFIGS if kind.endswith(ending))
    found = next((folder / file for file in wanted if (folder / file).is_file()), None)
    if found is None:
        raise ConfigError(f"{name}/{wanted[0]} is missing; copy the whole folder again")
    if variant is None:
        return Part(name, kind)
    config = read_json(found)
    if "auto_map" in config:
        raise Untrusted(f"{name}/{found.name} wants code of its own to be run (auto_map); it is not", code="model_file")
    return Part(name, kind, config, weights(folder, variant))


def _preview(real: Path) -> Part | None:
    if not (real / PREVIEW_DECODER).is_dir():
        return None
    part = _part(real, PREVIEW_DECODER, "AutoencoderTiny", "")
    if part.config.get("_class_name") != "AutoencoderTiny":
        raise Untrusted(f"{PREVIEW_DECODER}/config.json: expected an AutoencoderTiny", code="model_file")
    return part


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of a pipeline's folder."""
    try:
        with path.open("rb") as file:
            data = file.read(JSON_BYTES_MAX + 1)
        if len(data) > JSON_BYTES_MAX:
            raise Untrusted(f"{path} has more than {JSON_BYTES_MAX} bytes; it is no configuration", code="model_file")
        return msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Untrusted(f"{path} is not what it should be: {error}; copy it again", code="model_file") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}; copy the whole folder again") from None
