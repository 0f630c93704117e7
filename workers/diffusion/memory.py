"""Whether what went wrong is that there was no memory. Pure.

Python says it with a class, torch with a sentence, the system with another; to the host all are a `MemoryError`.
"""

from __future__ import annotations

OUT_OF_MEMORY = ("not enough memory", "out of memory", "can't allocate memory", "cannot allocate memory")
"""Of Windows, of cards, of torch's own allocator, and of a system that maps no more of a file."""


def ran_out(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or any(each in str(error).lower() for each in OUT_OF_MEMORY)


def check(error: BaseException, what: str) -> None:
    """Raises `MemoryError` where it was that; `what`: that could not be loaded, for people."""
    if ran_out(error):
        raise MemoryError(f"{what}: there is not memory enough to load it now; its files are not at fault") from error
