"""Split an answer to what one platform message can hold. Pure."""

from __future__ import annotations

from collections.abc import Iterator

BREAKS = ("\n\n", "\n", ". ", "。", " ")


def split(text: str, bytes_max: int) -> Iterator[str]:
    """Pieces of at most `bytes_max` UTF-8 bytes that join to `text` (less white space at the cuts).

    Cuts at the last paragraph, line, sentence or word that fits, and never inside a character. 0 is no limit.
    """
    if bytes_max <= 0:
        yield text
        return
    while len(raw := text.encode()) > bytes_max:
        window = raw[:bytes_max].decode(errors="ignore")
        if not window:
            raise ValueError(f"{bytes_max} bytes do not hold one character")
        cut = len(window)
        for mark in BREAKS:
            at = window.rfind(mark)
            if at > len(window) // 3:
                cut = at + len(mark)
                break
        if piece := text[:cut].rstrip():
            yield piece
        text = text[cut:].lstrip()
    if text:
        yield text
