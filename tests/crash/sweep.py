"""How much of a sweep is run, and what came of it.

`CRASH=whole` runs all of it. Otherwise a sample is drawn, by `CRASH_SEED`, the same each time.
`CRASH_LOG=file` has each violation written there as it is found: a whole sweep takes hours.
"""

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")

WHOLE = os.environ.get("CRASH") == "whole"
SEED = int(os.environ.get("CRASH_SEED", "1"))

FIGURES: dict[str, Counter[str]] = {}
"""What was tried: for each sweep the number of points, by call."""


_LOG = os.environ.get("CRASH_LOG", "")


def violation(scenario: str, what: str) -> str:
    """Writes a violation down at once; returns it."""
    if _LOG:
        with open(_LOG, "a", encoding="utf-8") as log:
            log.write(f"{scenario}: {what}\n")
    return what


def count(sweep: str, what: str, number: int = 1) -> None:
    """Adds to the figures."""
    FIGURES.setdefault(sweep, Counter())[what] += number


def sample(items: Sequence[T], number: int, *salt: object) -> list[T]:
    """Returns all in a whole sweep, else as many as asked for, the same ones for one seed."""
    if WHOLE or len(items) <= number:
        return list(items)
    chosen = random.Random(f"{SEED} {salt}").sample(range(len(items)), number)  # noqa: S311 - it has to repeat
    return [items[place] for place in sorted(chosen)]


class OnPool(Protocol):
    """What takes place on a pool of some filesystem."""

    @property
    def pool(self) -> str:
        """That filesystem."""


P = TypeVar("P", bound=OnPool)


def sampled(items: Sequence[P], numbers: Mapping[str, int], *salt: object) -> list[P]:
    """Is `sample` with a number for each filesystem of the pools."""
    chosen = []
    for pool, number in numbers.items():
        chosen += sample([item for item in items if item.pool == pool], number, *salt, pool)
    return chosen


def lines() -> Iterator[str]:
    """The figures in words."""
    yield f"seed {SEED}, {'the whole sweep' if WHOLE else 'a sample'}"
    for sweep, figures in FIGURES.items():
        yield f"{sweep}: {sum(figures.values())}"
        for what, number in figures.items():
            yield f"  {number:6}  {what}"


class Grounds(Generic[T]):
    """Keeps what is costly to make, one for each key, and makes it anew after a failure."""

    def __init__(
        self, make: Callable[[str, Path], AbstractContextManager[T]], folder: Path
    ) -> None:
        self._make = make
        self._folder = folder
        self._open: dict[str, tuple[ExitStack, T]] = {}
        self._number = 0

    def get(self, key: str) -> T:
        """Returns the one for a key."""
        if key not in self._open:
            self._number += 1
            folder = self._folder / str(self._number)
            folder.mkdir()
            with ExitStack() as stack:
                made = stack.enter_context(self._make(key, folder))
                self._open[key] = stack.pop_all(), made
        return self._open[key][1]

    def spoil(self, key: str, failure: BaseException) -> None:
        """Takes away the one for a key, after a failure that it may still show."""
        if key in self._open:
            stack, _ = self._open.pop(key)
            stack.__exit__(type(failure), failure, failure.__traceback__)

    def close(self) -> None:
        """Takes all away; what that finds fails."""
        while self._open:
            _, (stack, _) = self._open.popitem()
            stack.close()
