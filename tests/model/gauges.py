"""What the driver's process takes of the machine, measured five times a second."""

import contextlib
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import psutil

from tests.driver import Driver

_EVERY_S = 0.2
MIB = 1 << 20


class Figures(NamedTuple):
    """One look at a process."""

    memory_bytes: int
    descriptors: int
    threads: int


class Gauges:
    """Measures the driver while it works.

    Attributes:
        since_mark: The figures of the process that has run since `mark` was called.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._ended = threading.Event()
        self.since_mark: list[Figures] = []
        self._marked = False

    def mark(self) -> None:
        """Says that the driver is not killed any more."""
        self._marked = True

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Measures during the block."""
        thread = threading.Thread(target=self._measure)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()

    def now(self) -> Figures:
        """Measures once."""
        process = psutil.Process(self._driver.pid)
        with process.oneshot():
            return Figures(process.memory_info().rss, process.num_fds(), process.num_threads())

    def at_rest(self, fresh: Figures, patience_s: float = 10.0) -> Figures:
        """Measures until no more is open than in a fresh process, a while at most."""
        deadline = time.monotonic() + patience_s
        while (figures := self.now()).descriptors > fresh.descriptors:
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
        return figures

    def _measure(self) -> None:
        while not self._ended.wait(_EVERY_S):
            with contextlib.suppress(psutil.NoSuchProcess, AssertionError):
                figures = self.now()
                if self._marked:
                    self.since_mark.append(figures)


def halves(figures: Sequence[Figures]) -> tuple[Figures, Figures]:
    """Returns the medians of the first and of the second half."""
    middle = len(figures) // 2
    return _median(figures[:middle]), _median(figures[middle:])


def _median(figures: Sequence[Figures]) -> Figures:
    return Figures._make(int(statistics.median(column)) for column in zip(*figures, strict=True))


def in_words(figures: Figures) -> str:
    """The figures for a person."""
    return (
        f"{figures.memory_bytes / MIB:.1f} MiB, {figures.descriptors} descriptors, "
        f"{figures.threads} threads"
    )
