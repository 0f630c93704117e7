"""LoRA adapters of a pipeline: safetensors only, checked before they are loaded, switched between rounds.

What always holds: an adapter without a name is on in every picture, one with a name only where it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from schemas.config import AdapterConfig
from schemas.errors import ConfigError, Untrusted
from workers.diffusion import memory
from workers.diffusion.weights import PICKLED, header


def check(adapters: Sequence[AdapterConfig]) -> int:
    """Bytes of their files; raises `ConfigError` or `Untrusted` for one that cannot be used."""
    for adapter in adapters:
        path = Path(adapter.path)
        if path.suffix in PICKLED:
            raise Untrusted(
                f"lora: {path} is a pickle, which can run any code when it is read; convert it to safetensors",
                code="model_file",
            )
        if not path.is_file():
            raise ConfigError(f"lora: {path}: no such file; name a .safetensors file")
        header(path)
    return sum(Path(adapter.path).stat().st_size for adapter in adapters)


class Adapters:
    """Those of one pipeline, and which of them are on."""

    def __init__(self, pipe: Any, adapters: Sequence[AdapterConfig]) -> None:
        """Load them; raises `ConfigError`, `Untrusted` or `MemoryError`."""
        self._pipe = pipe
        self._adapters = {f"adapter_{i}": adapter for i, adapter in enumerate(adapters)}
        self._on: tuple[str, ...] | None = None
        check(adapters)
        if adapters and not hasattr(pipe, "load_lora_weights"):
            raise ConfigError(f"lora: {type(pipe).__name__} takes no adapters; leave them out")
        for key, adapter in self._adapters.items():
            path = Path(adapter.path)
            try:
                pipe.load_lora_weights(
                    str(path.parent),
                    weight_name=path.name,
                    adapter_name=key,
                    local_files_only=True,
                    use_safetensors=True,
                )
            except Exception as error:
                memory.check(error, f"lora: {path}")
                raise Untrusted(
                    f"lora: {path} does not fit this model: {str(error)[:300]}", code="model_file"
                ) from error
            if key not in {name for names in pipe.get_list_adapters().values() for name in names}:
                raise Untrusted(
                    f"lora: {path} holds nothing for this model; take one that was made for it", code="model_file"
                )
        self.names = tuple(adapter.name for adapter in adapters if adapter.name)

    def use(self, name: str) -> None:
        """Those that are always on, and the one of this name."""
        wanted = tuple(key for key, adapter in self._adapters.items() if adapter.name in ("", name))
        if not self._adapters or wanted == self._on:
            return
        if wanted:
            self._pipe.enable_lora()
            self._pipe.set_adapters(list(wanted), [self._adapters[key].scale for key in wanted])
        else:
            self._pipe.disable_lora()
        self._on = wanted
