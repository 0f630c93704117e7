"""What llama.cpp was built with, by its own word: devices, backends, instruction sets, version.

`python -m workers.llama.native.build --json` prints it: others ask in a process that a broken driver may end.
What always holds: nothing is loaded but the libraries; a library without a function that is asked for has less to
tell, and is no error.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from schemas.machine import Build, Device, Machine
from workers.host import machine
from workers.llama.fitting.offload import Card
from workers.llama.fitting.plan import Site

PACKAGE: Final = "llama-cpp-python"
KINDS: Final[tuple[Literal["cpu", "gpu", "igpu", "accel", "meta"], ...]] = ("cpu", "gpu", "igpu", "accel", "meta")
"""ggml's `ggml_backend_dev_type`, in its order."""
ALIASES: Final = {"hip": "rocm", "mtl": "metal"}
INSTRUCTIONS: Final = (
    "avx", "avx2", "avx_vnni", "avx512", "avx512_vbmi", "avx512_vnni", "avx512_bf16", "amx_int8", "fma", "f16c", "bmi2",
    "neon", "fp16_va", "dotprod", "matmul_int8", "sve", "sme", "riscv_v", "vsx", "vxe", "llamafile",
)  # fmt: skip


def look() -> Build:
    """Ask the installed llama.cpp; raises `ImportError` where there is none."""
    from workers.llama.native.library import c

    info = _decoded(c.llama_print_system_info())
    registry = _Registry.installed()
    return Build(
        version=_version(),
        commit=registry.text("ggml_commit"),
        instructions=tuple(name for name in INSTRUCTIONS if registry.number(f"ggml_cpu_has_{name}")),
        repack="REPACK = 1" in info,
        backends=registry.backends(),
        devices=registry.devices(),
        vector_bytes=registry.number("ggml_cpu_get_sve_cnt"),
    )


def site(found: Build | None = None, here: Machine | None = None) -> Site:
    """What a plan needs to know, of the installed llama.cpp on this machine."""
    found, here = found or look(), here or machine.look()
    return Site(
        threads=here.cpu.threads,
        instructions=found.instructions,
        repacks=found.repack,
        cards=tuple(Card(name=d.name, free=d.free, shared=d.kind == "igpu" or _unified(d)) for d in found.gpus),
    )


def handles(names: Sequence[str]) -> Any:
    """llama.cpp's own handles of these devices, for `llama_model_params.devices`: an array that ends with NULL.

    Without names it holds nothing, and llama.cpp uses the processor alone. Keep it until the model is loaded.
    """
    registry = _Registry.installed()
    by_name = registry.by_name()
    found = [by_name[name] for name in names if name in by_name]
    return (ctypes.c_void_p * (len(found) + 1))(*found, None)


def _unified(device: Device) -> bool:
    """Apple's graphics computes in the machine's own memory, whatever kind it calls itself."""
    return device.name.startswith("metal")


def public_name(own: str) -> str:
    """llama.cpp's `CUDA0` → `cuda:0`, `Vulkan1` → `vulkan:1`, `ROCm0` → `rocm:0`, `CPU` → `cpu`."""
    name = own.rstrip("0123456789")
    public = ALIASES.get(name.lower(), name.lower())
    return f"{public}:{own[len(name) :]}" if own != name else public


def _version() -> str:
    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        return ""


_ENDS: Final = (("lib", ".so"), ("lib", ".dylib"), ("", ".dll"))


class _Registry:
    """The C functions of ggml's device registry, where they are exported."""

    def __init__(self, libraries: Sequence[ctypes.CDLL]) -> None:
        self._libraries = libraries

    @classmethod
    def installed(cls) -> _Registry:
        from workers.llama.native.library import c

        folder = Path(str(c.__file__)).parent / "lib"
        names = (f"{begin}{name}{end}" for name in ("ggml", "ggml-base", "ggml-cpu") for begin, end in _ENDS)
        return cls([ctypes.CDLL(str(folder / name)) for name in names if (folder / name).exists()])

    def by_name(self) -> dict[str, int]:
        """Handles of all devices by the names that `models[].devices` uses."""
        return {public_name(name): device for device, name in self._each()}

    def _function(self, name: str, result: Any, *arguments: Any) -> Any:
        for library in self._libraries:
            found = getattr(library, name, None)
            if found is not None:
                found.restype, found.argtypes = result, list(arguments)
                return found
        return None

    def number(self, name: str) -> int:
        call = self._function(name, ctypes.c_int)
        return int(call()) if call else 0

    def text(self, name: str) -> str:
        call = self._function(name, ctypes.c_char_p)
        return _decoded(call()) if call else ""

    def backends(self) -> tuple[str, ...]:
        count = self._function("ggml_backend_reg_count", ctypes.c_size_t)
        get = self._function("ggml_backend_reg_get", ctypes.c_void_p, ctypes.c_size_t)
        name = self._function("ggml_backend_reg_name", ctypes.c_char_p, ctypes.c_void_p)
        if not (count and get and name):
            return ()
        return tuple(_decoded(name(get(n))) for n in range(count()))

    def devices(self) -> tuple[Device, ...]:
        size = ctypes.POINTER(ctypes.c_size_t)
        about = self._function("ggml_backend_dev_description", ctypes.c_char_p, ctypes.c_void_p)
        kind = self._function("ggml_backend_dev_type", ctypes.c_int, ctypes.c_void_p)
        memory = self._function("ggml_backend_dev_memory", None, ctypes.c_void_p, size, size)
        if not (about and kind and memory):
            return ()
        found = []
        for device, name in self._each():
            free, total = ctypes.c_size_t(0), ctypes.c_size_t(0)
            memory(device, ctypes.byref(free), ctypes.byref(total))
            number = int(kind(device))
            found.append(
                Device(
                    name=public_name(name),
                    own_name=name,
                    kind=KINDS[number] if 0 <= number < len(KINDS) else "accel",
                    description=_decoded(about(device)),
                    total=total.value,
                    free=free.value,
                )
            )
        return tuple(found)

    def _each(self) -> Iterator[tuple[int, str]]:
        """Handle and own name of every device."""
        count = self._function("ggml_backend_dev_count", ctypes.c_size_t)
        get = self._function("ggml_backend_dev_get", ctypes.c_void_p, ctypes.c_size_t)
        name = self._function("ggml_backend_dev_name", ctypes.c_char_p, ctypes.c_void_p)
        if count and get and name:
            for n in range(count()):
                handle = get(n)
                yield handle, _decoded(name(handle))


def _decoded(text: bytes | None) -> str:
    return (text or b"").decode("utf-8", "replace")


def main() -> int:
    """Print what llama.cpp was built with, as JSON."""
    found = look()
    print(msgspec.json.encode({**msgspec.to_builtins(found), "digest": found.digest}).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
