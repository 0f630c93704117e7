"""How long a text a model may embed, and the bytes that this takes beside its chats. Pure.

The context for embeddings is made when the first text comes and made anew for a longer one (`embedding/encoder.py`),
so its largest is counted before the model is loaded. What always holds: a text of `Texts.tokens` takes no more than
`Texts.bytes`; a longer one is refused with `Texts.remedy`.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from schemas.gguf import Header
from workers.llama.fitting.concede import CELL_PAD, padded
from workers.llama.fitting.plan import NO_FLASH
from workers.llama.fitting.sizes import CELL_BOOKS, F32_BYTES, Sizes

CELLS_MIN: Final = 512
"""Tokens of the context for texts of usual length; so many are granted however little memory there is."""
TOKENS_MAX: Final = 4_096
"""The longest text of a model that also chats, where the operator names no window: some six pages."""
CELLS_BYTES_MAX: Final = 268_435_456
"""What the keys and values of one long text may take while it is computed."""
TEXT_LOGITS_BYTES: Final = 536_870_912
"""What llama.cpp's logits may take for a text that must be in one batch: 512 tokens of the largest vocabularies."""
BATCH_LOGITS_BYTES: Final = 16_777_216
"""The same for a batch of pieces; texts can wait for the next batch."""
BATCH_MIN: Final = 32
BATCH_MAX: Final = 512
SEQUENCES: Final = 32
SEQUENCES_RECURRENT: Final = 4
"""Texts in one batch; each sequence of a recurrent model has a state of megabytes."""
BASE_BYTES: Final = 6_000_000
"""llama.cpp's own tables of such a context, measured."""
LOOKS_AHEAD: Final = frozenset({"gemma-embedding", "dream", "llada", "llada-moe", "rnd1"})
"""Architectures whose tokens see later ones although their files do not say so."""
ENCODERS: Final = frozenset({"t5", "t5encoder"})
"""Architectures with an encoder, which llama.cpp computes in one batch."""


class Texts(Struct, frozen=True, kw_only=True):
    """`tokens`: of one text at most; `bytes`: what the context for it takes; `remedy`: for one that is longer."""

    tokens: int
    bytes: int
    remedy: str = ""
    """Empty where the window is the limit."""


def batch_of(vocabulary: int) -> int:
    """Tokens of a batch of pieces: llama.cpp keeps the logits of each."""
    return max(BATCH_MIN, min(BATCH_MAX, BATCH_LOGITS_BYTES // (F32_BYTES * max(vocabulary, 1))))


def whole(header: Header) -> bool:
    """Whether a text must be in one batch, because its tokens see later ones."""
    known = LOOKS_AHEAD | ENCODERS
    return header.own("attention.causal") is False or header.text("general.architecture") in known


def texts(header: Header, sized: Sizes, *, window: int, named: bool = False, room: int | None = None) -> Texts:
    """The longest text that fits `room` bytes (None: without a limit), `CELLS_MIN` tokens at least.

    `window`: tokens of a text at most; `named`: the operator chose it.
    """
    most, why = _most(header, sized, window, named)
    lots = padded(most) // CELL_PAD
    least = min(lots, CELLS_MIN // CELL_PAD)
    if room is not None:
        wanted = lots
        while lots > least and _bytes(header, sized, lots * CELL_PAD) > room:
            lots -= 1
        if lots < wanted:
            why = (
                f"raise models[].memory or worker.memory: there are {_bytes(header, sized, lots * CELL_PAD) / 1e6:.0f} "
                f"MB for texts, and {most} tokens need {_bytes(header, sized, wanted * CELL_PAD) / 1e6:.0f} MB"
            )
    cells = lots * CELL_PAD
    return Texts(tokens=min(most, cells), bytes=_bytes(header, sized, cells), remedy=why)


def _most(header: Header, sized: Sizes, window: int, named: bool) -> tuple[int, str]:
    """Tokens of a text where memory is plenty, and what to do about a longer one."""
    if whole(header):
        within = min(window, header.number("context_length") or window)
        most = min(within, max(TEXT_LOGITS_BYTES // (F32_BYTES * max(sized.vocabulary, 1)), 1))
    else:
        within = window if named else min(window, TOKENS_MAX)
        most = min(within, max(CELLS_MIN, CELLS_BYTES_MAX // max(sized.cell_bytes("f16"), 1)))
    if most < within:
        return most, "choose a smaller model, or one made for embeddings, in models[].path"
    return most, f"set models[].context: {window}" if most < window and not whole(header) else ""


def _bytes(header: Header, sized: Sizes, cells: int) -> int:
    """What llama.cpp takes for a context of so many tokens, all of whose embeddings are wanted."""
    at_once = whole(header)
    batch = cells if at_once else batch_of(sized.vocabulary)
    sequences = SEQUENCES_RECURRENT if sized.recurrent else SEQUENCES
    compute = sized.compute_bytes(
        batch=batch,
        cells=cells,
        sequences=sequences,
        flash=header.text("general.architecture") not in NO_FLASH,
        wants=1 if at_once else batch,  # an encoder's graph has no logits, only the room for them
    )
    logits = batch * sized.vocabulary * F32_BYTES if at_once else 0
    state = cells * (sized.cell_bytes("f16") + CELL_BOOKS) + sequences * sized.recurrent
    return BASE_BYTES + compute + logits + state
