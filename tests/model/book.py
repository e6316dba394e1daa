"""What one caller knows: the states that all answers so far allow, and which calls are open."""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from tests.contract.refusals import Code
from tests.crash.world import ViolationError
from tests.model.operations import Answer, Line, Manner, Operation
from tests.model.states import UNKNOWN_ID, Group, Inline, State

PATIENCE_S = 60.0
_HISTORY = 60
PATIENT = Manner()


class Call(NamedTuple):
    """A call that is to be made."""

    operation: Operation
    manner: Manner = PATIENT


class Made(NamedTuple):
    """A call that was made."""

    operation: Operation
    answer: Answer
    given_up: bool = False
    """Whether nobody waited for an answer that is certain."""


class Book:
    """A caller's knowledge.

    A call whose answer was lost is open: it may have been carried out or not, and may still be,
    until it was repeated.

    Attributes:
        line: The connection to the driver.
        worlds: All the states that may be; mostly it is one.
        ids: The id that the thing in a slot has, or had last.
        known: All ids there ever were.
        figures: How many calls were answered how.
    """

    def __init__(self, line: Line) -> None:
        self.line = line
        self.worlds = {State()}
        self.ids: dict[str, str] = {}
        self.members: dict[str, tuple[str, ...]] = {}
        self.known: set[str] = set()
        self.figures: Counter[str] = Counter()
        self._open: list[Operation] = []
        self._history: deque[str] = deque(maxlen=_HISTORY)

    @property
    def state(self) -> State:
        """A state that may be."""
        return next(iter(self.worlds))

    @property
    def certain(self) -> bool:
        """Whether no call is open."""
        return not self._open

    def run(self, calls: Sequence[Call], meanwhile: Callable[[], None] = lambda: None) -> None:
        """Makes calls all at once, and something else meanwhile; learns from the answers.

        Raises:
            ViolationError: No order of the calls explains the answers.
        """
        made: list[list[Made]] = [[] for _ in calls]
        failures: list[BaseException] = []

        def work(place: int, call: Call) -> None:
            try:
                self._make(call, made[place])
            except BaseException as failure:  # noqa: BLE001 - it is raised again below
                failures.append(failure)

        threads = [threading.Thread(target=work, args=each) for each in enumerate(calls)]
        for thread in threads:
            thread.start()
        try:
            meanwhile()
        finally:
            for thread in threads:
                thread.join()
        if failures:
            raise failures[0]
        self._learn(made)

    def settle(self, slots: Iterable[str]) -> None:
        """Repeats the open calls that concern some slots, until their outcome is certain."""
        wanted = set(slots)
        while concerned := [one for one in self._open if wanted & set(one.slots)]:
            self.run([Call(concerned[0])])

    def settle_all(self) -> None:
        """Repeats all open calls."""
        while self._open:
            self.run([Call(self._open[0])])

    def reboot(self, reboot: Callable[[], None]) -> None:
        """Starts the node anew, and knows what that does."""
        reboot()
        self.worlds = {state.rebooted() for state in self.worlds}
        self._history.append("the node was started anew")

    def narrow(self, is_so: Callable[[State], bool], what: str) -> None:
        """Learns from something seen.

        Raises:
            ViolationError: It cannot be so.
        """
        left = {state for state in self.worlds if is_so(state)}
        if not left:
            raise ViolationError(self.story(what))
        self.worlds = left

    def story(self, what: str) -> str:
        """What went wrong, and how it came to that."""
        lines = [what, "what may be so:", *(f"  {state}" for state in self.worlds)]
        lines += ["the calls before:", *(f"  {line}" for line in self._history)]
        return "\n".join(lines)

    def _make(self, call: Call, made: list[Made]) -> None:
        operation, manner = call
        for _ in range(manner.times):
            deadline = time.monotonic() + PATIENCE_S
            for answer in self._answers(operation, manner, deadline):
                given_up = answer.uncertain and not manner.patient
                made.append(Made(operation, answer, given_up))

    def _answers(self, operation: Operation, manner: Manner, deadline: float) -> Iterator[Answer]:
        """Yields the certain answer, and before it an uncertain one if there was any."""
        lost = False
        while True:
            answer = operation.perform(self.line, manner)
            if answer.code is Code.ABORTED and not manner.patient:
                return
            if answer.code is not Code.ABORTED and not answer.uncertain:
                yield answer
                return
            if answer.uncertain and not lost:
                lost = True
                yield answer
            if not manner.patient:
                return
            if time.monotonic() > deadline:
                raise ViolationError(
                    self.story(f"{operation} was answered {answer} for {PATIENCE_S:g} s")
                )
            time.sleep(0.02)

    def _learn(self, lines: Sequence[Sequence[Made]]) -> None:
        made = [one for line in lines for one in line]
        for operation, answer, _ in made:
            words = f"{operation} {answer.code.name}"
            self._history.append(f"{words} {answer.message}".rstrip())
            self.figures[f"{type(operation).__name__} {answer.code.name}"] += 1
            if not answer.uncertain and answer.code is not Code.OK and not answer.message:
                raise ViolationError(self.story(f"{words} without a message"))
        left = explain(self.worlds, lines)
        if not left:
            said = ", ".join(f"{one.operation} {one.answer}" for one in made)
            raise ViolationError(self.story(f"no order explains: {said}"))
        self.worlds = left
        # Another caller's answer tells nothing of a call that was given up in the same moment.
        certain = [one.operation for one in made if not one.answer.uncertain]
        self._open = [one for one in self._open if one not in certain]
        self._open += [one.operation for one in made if one.given_up and one.operation.changes]
        self._remember()

    def _remember(self) -> None:
        for state in self.worlds:
            for slot, thing in state.things.items():
                if isinstance(thing, Inline) or thing.id == UNKNOWN_ID:
                    continue
                self.ids[slot] = thing.id
                self.known.add(thing.id)
                if isinstance(thing, Group):
                    self.members[slot] = tuple(member.id for member in thing.members)
                    self.known.update(self.members[slot])


def explain(worlds: Iterable[State], lines: Sequence[Sequence[Made]]) -> set[State]:
    """Returns all states that some order of the calls leads to, with the answers they had.

    Args:
        worlds: The states that may be at first.
        lines: The calls of several callers, each in their order.
    """
    ends: set[State] = set()
    seen: set[tuple[State, tuple[int, ...]]] = set()
    todo = [(state, tuple(0 for _ in lines)) for state in worlds]
    while todo:
        state, places = here = todo.pop()
        if here in seen:
            continue
        seen.add(here)
        if all(place == len(line) for place, line in zip(places, lines, strict=True)):
            ends.add(state)
        for number, line in enumerate(lines):
            if places[number] < len(line):
                one = line[places[number]]
                then = (*places[:number], places[number] + 1, *places[number + 1 :])
                todo += [(after, then) for after in one.operation.after(state, one.answer)]
    return ends
