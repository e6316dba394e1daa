"""The heap of the C library: how much of it a process with many threads keeps. mallopt(3)."""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8

_libc = ctypes.CDLL(None)


def share(arenas: int) -> None:
    """Lets all threads share that many heaps; else each of some 8 a processor grows by itself.

    A C library that has no such choice is left as it is.
    """
    mallopt = getattr(_libc, "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, arenas)


def trim() -> None:
    """Gives free memory back to the system. malloc_trim(3)."""
    malloc_trim = getattr(_libc, "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
