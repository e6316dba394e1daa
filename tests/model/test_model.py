"""All calls in any order and at once, cut short and repeated, with kills between: as a model says.

What the model knows is in tests/model/*_calls.py: for each call the answers that are right in a
state, and the state after it. An answer that never came leaves two states possible, until the call
was repeated. Calls that are made at once are right if some order of them explains the answers, and
what is listed and mounted afterwards.
"""

import contextlib
import itertools
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from tests.crash.sweep import WHOLE
from tests.model import figures
from tests.model.book import Book, Call
from tests.model.ending import Ending
from tests.model.ground import FAMILIES, Ground
from tests.model.operations import Manner
from tests.model.plans import WEIGHTED, Choice, Planner

pytestmark = pytest.mark.kernel

RUNS, STEPS = (60, 60) if WHOLE else (4, 25)
BUDGET_S = math.inf if WHOLE else 40.0
"""After that nothing more is begun: a machine with other work would be held up for long."""

_NUMBERS = st.integers(0, 11)
_CHOICES = st.tuples(st.sampled_from(WEIGHTED), _NUMBERS, _NUMBERS, _NUMBERS).map(Choice._make)
_SHORT_MS = st.sampled_from((0.5, 1, 2, 3, 5, 8, 13, 21, 34, 55))
# Nothing that is drawn depends on what the driver answered: a run can be had again by its seed.
_MANNERS = st.one_of(
    st.just(Manner()),
    st.just(Manner()),
    st.just(Manner(times=2)),
    _SHORT_MS.map(lambda ms: Manner(deadline_ms=ms)),
    _SHORT_MS.map(lambda ms: Manner(cancel_ms=ms)),
)
_prefixes = itertools.count(1)


class Machine(RuleBasedStateMachine):
    """One run: from nothing to nothing."""

    ground: ClassVar[Ground]
    end: ClassVar[float]
    failures: ClassVar[list[BaseException]]
    """Not raised but kept, and nothing is done after the first: hypothesis would have it again."""
    answers: ClassVar[Counter[str]]
    steps: ClassVar[Counter[str]]

    def __init__(self) -> None:
        super().__init__()
        self._line = self.ground.line()
        self._book = Book(self._line)
        self._planner = Planner(self._book, FAMILIES, f"m{next(_prefixes)}")
        self._ending = Ending(self._planner)

    @rule(choice=_CHOICES, manner=_MANNERS)
    def call(self, choice: Choice, manner: Manner) -> None:
        """One call."""
        self._run("calls alone", [(choice, manner)])

    @rule(choices=st.lists(st.tuples(_CHOICES, _MANNERS), min_size=2, max_size=5))
    def calls(self, choices: list[tuple[Choice, Manner]]) -> None:
        """Several calls at once."""
        self._run("calls at once", choices)

    @rule(
        number=_NUMBERS,
        volume=_NUMBERS,
        choices=st.lists(st.tuples(st.sampled_from(WEIGHTED), _MANNERS), min_size=2, max_size=5),
    )
    def calls_on_one(self, number: int, volume: int, choices: list[tuple[str, Manner]]) -> None:
        """Several calls at once, on one volume."""
        chosen = [
            (Choice(what, number, volume, place), manner)
            for place, (what, manner) in enumerate(choices)
        ]
        self._run("calls at once on one volume", chosen)

    @rule(number=_NUMBERS, volume=_NUMBERS, steps=st.integers(3, 6))
    def bring_up(self, number: int, volume: int, steps: int) -> None:
        """A volume is brought to a pod, or to the next one."""
        for step in range(steps):
            self._run("calls alone", [(Choice("up", number, volume, step), Manner())])

    @rule(
        choices=st.lists(st.tuples(_CHOICES, _MANNERS), min_size=1, max_size=4),
        seldom=st.integers(0, 1),
        kills=st.booleans(),
        after_ms=_SHORT_MS,
    )
    def restart(
        self, choices: list[tuple[Choice, Manner]], seldom: int, kills: bool, after_ms: float
    ) -> None:
        """The driver ends amid calls, by SIGKILL or by SIGTERM, and starts again: now and then."""
        if not seldom:
            return

        def end() -> None:
            time.sleep(after_ms / 1000)
            if kills:
                self.ground.driver.kill()
            else:
                self.ground.driver.stop_cleanly()
            self.ground.driver.start()

        if self._run("calls amid restarts", choices, end):
            self.steps["kills" if kills else "stops"] += 1

    @rule(seldom=st.integers(0, 3))
    def reboot(self, seldom: int) -> None:
        """The node starts anew: mounts and loop devices are gone, folders are left."""
        if seldom or self._over:
            return
        with self._kept("reboots"):
            # A call that is open may be carried out until its driver is dead.
            self._book.settle_all()
            self._book.reboot(self.ground.reboot)
            self._ending.look()

    @rule(seldom=st.integers(0, 3))
    def look(self, seldom: int) -> None:
        """The lists and the mounts are looked at, and now and then the books."""
        if self._over:
            return
        with self._kept("looks"):
            self._book.settle_all()
            self._ending.look()
            if seldom == 3:
                self.ground.expect_order()

    def teardown(self) -> None:
        """All is read back and taken away."""
        if not self.failures:
            with self._kept("runs"):
                self._ending.close()
                self.ground.expect_order(empty=True)
        self.answers.update(self._book.figures)
        self._line.close()

    @property
    def _over(self) -> bool:
        """Whether nothing more is to be begun."""
        return bool(self.failures) or time.monotonic() > self.end

    def _run(
        self,
        what: str,
        choices: list[tuple[Choice, Manner]],
        meanwhile: Callable[[], None] = lambda: None,
    ) -> bool:
        """Makes calls; returns whether they were made and all is well."""
        if self._over:
            return False
        with self._kept(what):
            operations = self._planner.calls([choice for choice, _ in choices])
            manners = [manner for _, manner in choices]
            calls = [Call(one, manner) for one, manner in zip(operations, manners, strict=False)]
            self._book.run(calls, meanwhile)
            if self._book.certain:
                self._ending.look()
        return not self.failures

    @contextlib.contextmanager
    def _kept(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as failure:  # noqa: BLE001 - whatever it is, it is raised at the end
            self.failures.append(failure)
        else:
            self.steps[what] += 1


@pytest.mark.timeout(4 * 3600 if WHOLE else 900)
def test_the_driver_does_what_the_model_does(ground: Ground) -> None:
    """Whatever is called, in whatever order, and however it is cut short."""
    Machine.ground, Machine.failures = ground, []
    Machine.answers, Machine.steps = Counter(), Counter()
    Machine.end = time.monotonic() + BUDGET_S
    try:
        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=RUNS,
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                derandomize=not WHOLE,
                # What fails need not fail again, so that nothing comes of making it smaller.
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
                print_blob=False,
            ),
        )
    finally:
        steps = ", ".join(f"{number} {what}" for what, number in Machine.steps.items())
        figures.report(f"model, {steps}", Machine.answers)
    if Machine.failures:
        raise Machine.failures[0]
