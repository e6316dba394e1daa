"""What is measured: on whom, in which rounds, and the one loop that does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import grpc
import msgspec

from bench.client import Client, in_words
from bench.figures import Figure, Samples
from bench.life import Kind


@dataclass
class Subject:
    """A driver that is measured.

    Attributes:
        name: What it is called in the result.
        client: Its socket.
        folder: A folder of its own for the paths of kubelet and pods.
        kinds: The kinds of volume that are measured on it.
        restart: Stops and starts it and returns the seconds until it was ready; None where it
            is not ours to start.
        disk: Returns a folder on the bare disk below volumes of a kind; None where that is not
            known.
    """

    name: str
    client: Client
    folder: Path
    kinds: Mapping[str, Kind]
    restart: Callable[[], float] | None = None
    disk: Callable[[Kind], Path] | None = None

    def disk_below(self, kind: Kind) -> Path:
        """Returns `disk` for a kind.

        Raises:
            LookupError: It is not known.
        """
        if self.disk is None:
            raise LookupError(f"the disk below the volumes of {self.name} is not known")
        return self.disk(kind)


class Case(Protocol):
    """Something to measure. What it makes it also takes away."""

    name: str
    rounds: int

    def problem(self, subject: Subject, /) -> str:
        """Returns why it cannot be measured on a driver, or nothing."""

    def prepare(self, subject: Subject, /) -> None:
        """Does what comes before the first round."""

    def measure(self, subject: Subject, samples: Samples, /) -> None:
        """Does one round."""

    def finish(self, subject: Subject, /) -> None:
        """Takes away what was made, also after a failure."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one case on one driver.

    Attributes:
        case: The name of the case.
        subject: The name of the driver.
        figures: One for each series.
        failures: What failed calls were answered, and how often.
        left_out: Why nothing, or not all of it, was measured.
    """

    case: str
    subject: str
    figures: list[Figure]
    failures: dict[str, int] = {}
    left_out: str = ""


def run(case: Case, subjects: Sequence[Subject], *, rounds: int | None = None) -> list[Outcome]:
    """Measures a case on all drivers, round by round in turn; returns an outcome for each.

    They take turns so that whatever else the machine does meanwhile falls on all of them.
    """
    samples = {subject.name: Samples() for subject in subjects}
    left_out = {subject.name: case.problem(subject) for subject in subjects}
    able = [subject for subject in subjects if not left_out[subject.name]]

    def attempt(step: Callable[[Subject], None], subject: Subject) -> None:
        if left_out[subject.name]:
            return
        try:
            step(subject)
        except grpc.RpcError as error:
            left_out[subject.name] = in_words(error)

    try:
        for subject in able:
            attempt(case.prepare, subject)
        for turn in range(rounds or case.rounds):
            for subject in able if turn % 2 == 0 else reversed(able):
                attempt(lambda one: case.measure(one, samples[one.name]), subject)
    finally:
        for subject in able:
            case.finish(subject)
    return [
        Outcome(
            case=case.name,
            subject=subject.name,
            figures=samples[subject.name].figures(),
            failures=samples[subject.name].failures,
            left_out=left_out[subject.name],
        )
        for subject in subjects
    ]
