"""Which processors the threads of this process run on. sched_setaffinity(2).

Of Python's threads one runs at a time, and every system call passes the turn on. Where the thread
whose turn it is sleeps on another processor, it has to be woken there, and finds more often than
not that the call is over and the turn taken back. With eight calls at once on two processors a
third of the time went there. Threads on one processor take their turns as they come.

A child, or work that stays in the kernel for long, needs no turn and may run anywhere.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator

_ALLOWED = frozenset(os.sched_getaffinity(0))
_PROCESSOR = 36
"""The field of proc_pid_stat(5), counted from the one behind the name."""


def gather() -> None:
    """Keeps the calling thread, and those that it starts, on one processor with all the others."""
    _move({_common()})


@contextlib.contextmanager
def gathered() -> Iterator[None]:
    """Does so for the body of a `with`; threads started in it stay there."""
    with _restored():
        gather()
        yield


def scatter() -> None:
    """Lets the calling thread run anywhere, where this process was allowed to when it began."""
    _move(_ALLOWED)


@contextlib.contextmanager
def scattered() -> Iterator[None]:
    """Does so for the body of a `with`; a child started in it goes on running anywhere."""
    with _restored():
        scatter()
        yield


@contextlib.contextmanager
def _restored() -> Iterator[None]:
    before = os.sched_getaffinity(0)
    try:
        yield
    finally:
        _move(before)


@functools.cache
def _common() -> int:
    """The processor that the first thread to ask happens to run on."""
    with open("/proc/thread-self/stat", encoding="ascii", errors="replace") as stat:
        return int(stat.read().rpartition(")")[2].split()[_PROCESSOR])


def _move(processors: frozenset[int] | set[int]) -> None:
    # Those that a container may use can change while it runs. Then the kernel chooses, as it would
    # have without this.
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, processors)
