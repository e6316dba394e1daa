"""How the tour tells what it does: a line a step, with its time, and what was seen."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Tour:
    """Prints and counts steps."""

    def __init__(self) -> None:
        self.count = 0
        self._width = 58

    def title(self, text: str) -> None:
        """Begins a part of the tour."""
        print(f"\n{text}")

    def step(self, text: str, work: Callable[[], T]) -> T:
        """Does one thing and says how long it took."""
        start = time.perf_counter()
        result = work()
        milliseconds = (time.perf_counter() - start) * 1000
        self.count += 1
        print(f"  {text:<{self._width}} {milliseconds:8.1f} ms")
        sys.stdout.flush()
        return result

    def seen(self, text: str) -> None:
        """Says what the step before has shown."""
        print(f"      {text}")


def gib(size_bytes: int) -> str:
    """Returns a size in GiB."""
    return f"{size_bytes / (1 << 30):.2f} GiB"
