"""What `models[]` of `type: llama` may say beside the fields that every model has."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from schemas.strict import Size
from workers import BackendSettings

Positive = Annotated[int, Meta(ge=1)]


class LlamaSettings(BackendSettings, frozen=True, kw_only=True):
    """`None` is chosen for the model and the machine."""

    max_tokens: Positive = 2048
    """Tokens of a reply where the request names no limit."""
    context: Annotated[int, Meta(ge=64)] | None = None
    """Window of one conversation in tokens."""
    cache: Annotated[int, Meta(ge=64)] | None = None
    """Cells of all conversations together, running and idle."""
    pages_ram: Size = "512 MiB"
    """RAM for idle conversations that do not fit the cache any more; 0 turns it off."""
    pages_disk: Size = "2 GiB"
    """Disk for those that do not fit there either, encrypted; 0 turns it off."""
    threads: Positive | None = None
    """Threads that compute; by default all cores, or one fewer while that is faster beside other programs."""
    batch: Annotated[int, Meta(ge=32, le=4096)] | None = None
    """Tokens computed in one step at most; by default 512, fewer where memory is short."""
    devices: tuple[str, ...] = ()
    """What to compute on, as `roost doctor` lists it: `cpu`, `cuda:0`, `vulkan:0`; by default every card that helps."""
    gpu_layers: Annotated[int, Meta(ge=-1)] | None = None
    """Layers on the graphics cards, -1 for all; by default as many as fit."""
    mmap: bool = True
    """Map the file instead of reading it: quicker, and shared between processes."""
    repack: bool | None = None
    """Keep weights in the order that this processor computes fastest, in memory of their own; by default where that
    fits."""
    flash: bool | None = None
    """Flash attention; by default wherever llama.cpp can."""
    kv_type: Literal["f16", "q8_0", "f32"] | None = None
    """How the context is stored; `q8_0` halves it and is chosen where memory is short, else `f16`."""
    draft: bool = True
    """Guess what repeats itself and check several tokens at once, while that is faster. The answer stays the same."""
    overflow: Literal["drop_oldest", "refuse", "summarise"] = "drop_oldest"
    """What becomes of a conversation that is longer than the window."""
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
