"""How quick short calls are answered, and whole lives of volumes, by how many clients at once."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc

from bench.cases import Subject
from bench.client import in_words
from bench.figures import Samples
from bench.life import Life
from csi.v1 import csi_pb2 as pb

_numbers = itertools.count(1)


def at_once(clients: int, times: int, work: Callable[[], None]) -> float:
    """Does work `times` times by that many clients; returns how often a second it was done."""
    left = iter(range(times))

    def client() -> None:
        for _ in left:
            work()

    with ThreadPoolExecutor(clients) as pool:
        start = time.perf_counter()
        for done in [pool.submit(client) for _ in range(clients)]:
            done.result()
        return times / (time.perf_counter() - start)


class Short:
    """Probe and GetPluginInfo."""

    def __init__(self, clients: int, times: int, rounds: int) -> None:
        self.name = f"short calls, {clients} at once"
        self.rounds = rounds
        self._clients = clients
        self._times = times

    def problem(self, _subject: Subject, /) -> str:
        """Every driver can."""
        return ""

    def prepare(self, subject: Subject) -> None:
        """Warms the connection up."""
        at_once(self._clients, self._clients, lambda: self._probe(subject))

    def measure(self, subject: Subject, samples: Samples) -> None:
        """Makes many calls."""

        def probe() -> None:
            with samples.timed("Probe"):
                self._probe(subject)

        def info() -> None:
            with samples.timed("GetPluginInfo"):
                subject.client.identity.GetPluginInfo(pb.GetPluginInfoRequest())

        samples.add("Probe rate", "1/s", at_once(self._clients, self._times, probe))
        samples.add("GetPluginInfo rate", "1/s", at_once(self._clients, self._times, info))

    def finish(self, subject: Subject) -> None:
        """Nothing was made."""

    def _probe(self, subject: Subject) -> None:
        subject.client.identity.Probe(pb.ProbeRequest())


class Lifecycles:
    """Create, attach if wanted, stage, publish, and all of it back."""

    def __init__(
        self, kind: str, clients: int, times: int, rounds: int, *, attach: bool = False
    ) -> None:
        self.name = f"lifecycle, {kind}, {clients} at once"
        self.rounds = rounds
        self._kind = kind
        self._clients = clients
        self._times = times
        self._attach = attach

    def problem(self, subject: Subject) -> str:
        """The kind has to be one of the driver's."""
        return "" if self._kind in subject.kinds else "there is no such kind"

    def prepare(self, subject: Subject) -> None:
        """Lives one life, so that nothing is done for the first time."""
        self._live(subject, Samples(), strict=True)

    def measure(self, subject: Subject, samples: Samples) -> None:
        """Lives many lives; those that failed do not count for the rate."""
        lived: list[bool] = []
        rate = at_once(
            self._clients, self._times, lambda: lived.append(self._live(subject, samples))
        )
        samples.add("lifecycles", "1/s", rate * sum(lived) / len(lived))

    def finish(self, subject: Subject) -> None:
        """Each life ends by itself."""

    def _live(self, subject: Subject, samples: Samples, *, strict: bool = False) -> bool:
        name = f"bench-{next(_numbers)}"
        start = time.perf_counter()
        with Life(subject.client, subject.kinds[self._kind], name, subject.folder) as life:
            step = ""
            try:
                for step, call in (
                    *life.beginning(attach=self._attach),
                    *life.end(attach=self._attach),
                ):
                    with samples.timed(step):
                        call()
            except grpc.RpcError as error:
                life.undo()
                if strict:
                    raise
                samples.fail(f"{step} {in_words(error)}")
                return False
        samples.add("whole", "ms", (time.perf_counter() - start) * 1000)
        return True
