"""What is measured, and what is told of it: a median and how far the values lie apart."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterator, Sequence

import msgspec

SPREAD = (0.1, 0.9)
"""Low and high of a figure: nine of ten values are above the one, and nine below the other."""


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the result.

    Attributes:
        series: What was measured, such as "create".
        unit: "ms" and "MiB" are the better the less, all others the better the more.
        median, low, high: Of the values; see `SPREAD`.
        count: How many values there were.
    """

    series: str
    unit: str
    median: float
    low: float
    high: float
    count: int


class Samples:
    """Values as they are measured, from any thread, and what went wrong meanwhile."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], list[float]] = {}
        self._guard = threading.Lock()
        self.failures: dict[str, int] = {}
        """What a failed call was answered, and how often."""

    def add(self, series: str, unit: str, value: float) -> None:
        """Adds one value."""
        with self._guard:
            self._values.setdefault((series, unit), []).append(value)

    def fail(self, reason: str) -> None:
        """Counts a call that failed."""
        with self._guard:
            self.failures[reason] = self.failures.get(reason, 0) + 1

    @contextlib.contextmanager
    def timed(self, series: str) -> Iterator[None]:
        """Adds how long the block took, in milliseconds; nothing where it raised."""
        start = time.perf_counter()
        yield
        self.add(series, "ms", (time.perf_counter() - start) * 1000)

    def figures(self) -> list[Figure]:
        """Returns a figure for each series, in the order in which they came."""
        with self._guard:
            return [figure_of(*series, values) for series, values in self._values.items()]


def figure_of(series: str, unit: str, values: Sequence[float]) -> Figure:
    """Returns median and spread of at least one value."""
    ordered = sorted(values)
    low, median, high = (quantile(ordered, share) for share in (SPREAD[0], 0.5, SPREAD[1]))
    return Figure(series=series, unit=unit, median=median, low=low, high=high, count=len(ordered))


def quantile(ordered: Sequence[float], share: float) -> float:
    """Returns the value below which that share of the ordered values lies.

    Between two values it is interpolated, as `statistics.quantiles` does with "inclusive".
    """
    place = share * (len(ordered) - 1)
    below, above = math.floor(place), math.ceil(place)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def ratio(ours: Figure, theirs: Figure) -> float:
    """Returns how many times better our figure is than theirs; below 1 it is worse."""
    less_is_better = ours.unit in ("ms", "MiB")
    first, second = (theirs, ours) if less_is_better else (ours, theirs)
    return first.median / second.median if second.median else math.inf
