"""Many callers at once, each with volumes and a model of its own, while the driver is killed."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable

from tests.model.book import Book, Call
from tests.model.ending import Ending
from tests.model.gauges import Gauges
from tests.model.ground import FAMILIES, Ground
from tests.model.operations import Manner
from tests.model.plans import WEIGHTED, Choice, Planner

_LOOK_EVERY = 25
_SHORT_MS = (1, 2, 5, 10, 20, 50)
_KILL_AFTER_S = (0.5, 12.0)
_NUMBERS = 12
_SETS = (*((family,) for family in FAMILIES), (FAMILIES[0], FAMILIES[2]))
"""The sorts of volumes that a caller has: one each, or two that groups are made of."""


class Caller:
    """One of many; its volumes are its own, and all else it shares."""

    def __init__(self, ground: Ground, number: int, seed: int) -> None:
        self.name = f"c{number}"
        self._random = random.Random(f"{seed} {number}")  # noqa: S311 - it has to repeat
        self._line = ground.line()
        self.book = Book(self._line)
        families = _SETS[number % len(_SETS)]
        self._planner = Planner(self.book, families, self.name, groups=1, pods=1)
        self._ending = Ending(self._planner)

    def work(self, go_on: Callable[[], bool]) -> None:
        """Makes one call after the other."""
        made = 0
        while go_on():
            operations = self._planner.calls([self._choice()])
            self.book.run([Call(operation, self._manner()) for operation in operations])
            made += 1
            if made % _LOOK_EVERY == 0:
                self.book.settle_all()
                self._ending.look()
        self.book.settle_all()
        self._ending.look()

    def close(self) -> None:
        """Reads back all there is and takes it away."""
        self._ending.close()

    def hang_up(self) -> None:
        """Closes the connection."""
        self._line.close()

    def _choice(self) -> Choice:
        pick = self._random.randrange
        return Choice(self._random.choice(WEIGHTED), pick(_NUMBERS), pick(_NUMBERS), pick(_NUMBERS))

    def _manner(self) -> Manner:
        how = self._random.random()
        if how < 0.1:
            return Manner(deadline_ms=self._random.choice(_SHORT_MS))
        if how < 0.2:
            return Manner(cancel_ms=self._random.choice(_SHORT_MS))
        return Manner(times=2 if how < 0.3 else 1)


class Soak:
    """A soak: first with kills, then without, so that what grows slowly shows.

    Attributes:
        answers: How calls were answered.
        kills: How often the driver was killed.
        violations: What was not as it should be.
        gauges: What the driver took of the machine.
    """

    def __init__(self, ground: Ground, callers: int, seed: int) -> None:
        self._ground = ground
        self._random = random.Random(seed)  # noqa: S311 - it has to repeat
        self._callers = [Caller(ground, number, seed) for number in range(callers)]
        self.kills = 0
        self.violations: list[str] = []
        self.gauges = Gauges(ground.driver)

    @property
    def answers(self) -> Counter[str]:
        """How the calls of all were answered."""
        return sum((caller.book.figures for caller in self._callers), Counter[str]())

    def run(self, with_kills_s: float, without_s: float) -> None:
        """Lets all callers work, then read back and take away what they made.

        The part without kills begins once the driver is there again, however long that takes.
        """
        over = threading.Event()
        with self.gauges.watched():
            threads = self._start(lambda caller: caller.work(lambda: not over.is_set()))
            try:
                self._kill_until(time.monotonic() + with_kills_s)
                self.gauges.mark()
                time.sleep(without_s)
            finally:
                over.set()
            _join(threads)
        self._kept("with all at rest", self._ground.expect_order)
        _join(self._start(Caller.close))
        self._kept("at the end", lambda: self._ground.expect_order(empty=True))
        for caller in self._callers:
            caller.hang_up()

    def _kill_until(self, end: float) -> None:
        while True:
            pause_s = self._random.uniform(*_KILL_AFTER_S)
            if time.monotonic() + pause_s > end:
                time.sleep(max(0.0, end - time.monotonic()))
                return
            time.sleep(pause_s)
            self._ground.driver.kill()
            self.kills += 1
            self._ground.driver.start()

    def _start(self, work: Callable[[Caller], None]) -> list[threading.Thread]:
        threads = [
            threading.Thread(target=self._kept, args=(caller.name, lambda one=caller: work(one)))
            for caller in self._callers
        ]
        for thread in threads:
            thread.start()
        return threads

    def _kept(self, who: str, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as failure:  # noqa: BLE001 - whatever it is, the others go on
            self.violations.append(f"{who}: {type(failure).__name__}: {failure}")


def _join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join()
