"""What calls cost beside many volumes: creates, a repeated one, delete, lists, start, memory."""

from __future__ import annotations

import itertools
import time

from bench.calls import at_once
from bench.cases import Subject
from bench.client import resident_mib
from bench.figures import Samples
from bench.life import Life
from csi.v1 import csi_pb2 as pb

KIND = "plain"
"""A small volume of the sort that is made quickest: what is measured is the number of them."""
_CALLERS = 8
_BURST = 200
_PAGE_ENTRIES = 500
_SETTLE_S = 2.0


class Counts:
    """One driver beside a rising number of volumes; one case for each number, in that order."""

    def __init__(self) -> None:
        self._present: dict[str, list[Life]] = {}
        self._numbers = itertools.count(1)

    def case(self, count: int, times: int, rounds: int, *, last: bool) -> BesideMany:
        """Returns the case for one number; the last one deletes them all."""
        return BesideMany(self, count, times, rounds, last=last)

    def fill(self, subject: Subject, count: int) -> None:
        """Makes volumes until there are that many."""
        present = self._present.setdefault(subject.name, [])

        def make() -> None:
            life = self.life(subject)
            life.create()
            present.append(life)

        missing = count - len(present)
        if missing > 0:
            at_once(_CALLERS, missing, make)

    def empty(self, subject: Subject) -> None:
        """Deletes them all."""
        left = iter(self._present.pop(subject.name, []))

        def delete() -> None:
            for life in left:
                life.delete()

        at_once(_CALLERS, _CALLERS, delete)

    def life(self, subject: Subject) -> Life:
        """Returns a volume that is yet to be made."""
        name = f"many-{next(self._numbers)}"
        return Life(subject.client, subject.kinds[KIND], name, subject.folder)


class BesideMany:
    """What calls cost beside that many volumes."""

    def __init__(self, counts: Counts, count: int, times: int, rounds: int, *, last: bool) -> None:
        self.name = f"beside {count} volumes"
        self.rounds = rounds
        self._counts = counts
        self._count = count
        self._times = times
        self._last = last

    def problem(self, subject: Subject) -> str:
        """The kind has to be one of the driver's."""
        return "" if KIND in subject.kinds else "there is no such kind"

    def prepare(self, subject: Subject) -> None:
        """Fills up; what fills is no sample, since it is made at another concurrency."""
        self._counts.fill(subject, self._count)

    def measure(self, subject: Subject, samples: Samples) -> None:
        """Makes, finds again, lists and deletes a few, and more at once; starts again."""
        lives = [self._counts.life(subject) for _ in range(self._times)]
        for life in lives:
            with samples.timed("create"):
                life.create()
        for life in lives:
            with samples.timed("repeated create"):
                life.create()
        if subject.client.lists:
            self._list(subject, samples)
        for life in lives:
            with samples.timed("delete"):
                life.delete()
        self._burst(subject, samples)
        self._look(subject, samples)

    def finish(self, subject: Subject) -> None:
        """Deletes all volumes after the last number."""
        if self._last:
            self._counts.empty(subject)

    def _list(self, subject: Subject, samples: Samples) -> None:
        with samples.timed("list whole"):
            _pages(subject, 0)
        with samples.timed(f"list by {_PAGE_ENTRIES}"):
            _pages(subject, _PAGE_ENTRIES)

    def _burst(self, subject: Subject, samples: Samples) -> None:
        lives = [self._counts.life(subject) for _ in range(_BURST)]
        for what, call in (("creates", Life.create), ("deletes", Life.delete)):
            rate = at_once(_CALLERS, _BURST, map(call, lives).__next__)
            samples.add(f"{what} of {_CALLERS} callers", "1/s", rate)

    def _look(self, subject: Subject, samples: Samples) -> None:
        samples.add("memory", "MiB", _memory(subject))
        if subject.restart is not None:
            samples.add("start to ready", "ms", subject.restart() * 1000)
            time.sleep(_SETTLE_S)
            samples.add("memory after start", "MiB", _memory(subject))


def _pages(subject: Subject, entries: int) -> int:
    """Lists everything; a driver may give out pages although the whole was asked for."""
    token, seen = "", 0
    while True:
        answer = subject.client.controller.ListVolumes(
            pb.ListVolumesRequest(max_entries=entries, starting_token=token)
        )
        seen += len(answer.entries)
        token = answer.next_token
        if not token:
            return seen


def _memory(subject: Subject) -> float:
    pid = subject.client.find_pid()
    if pid is None:
        raise ProcessLookupError(f"who serves {subject.client.endpoint} is not to be seen")
    return resident_mib(pid)
