"""Starts the tracer beside a driver and brings back what it saw."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tests.crash.tracer import Aim

ROOT = Path(__file__).parents[2]
END_TIMEOUT_S = 30.0


class Point(NamedTuple):
    """A call that changes something, and whose it is."""

    process: str
    place: int
    call: str


@dataclass
class Trace:
    """What came of a session; filled at its end.

    Attributes:
        points: The calls that changed something, in their order.
        hit: Whether the point aimed at was reached.
        survivors: Children that were running when the driver was killed alone.
    """

    points: list[Point] = field(default_factory=list)
    hit: bool = False
    survivors: list[int] = field(default_factory=list)


@contextlib.contextmanager
def traced(pid: int, pool: Path, kubelet: Path, aim: Aim | None = None) -> Iterator[Trace]:
    """Follows a driver for the body of a `with`; the trace is filled when that ends."""
    command = [sys.executable, "-m", "tests.crash.tracer", str(pid), str(pool), str(kubelet)]
    if aim is not None:
        command += [aim.how, aim.process, str(aim.place)]
    tracer = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert tracer.stdout is not None
    trace = Trace()
    try:
        line = tracer.stdout.readline()
        assert line == "ready\n", f"the tracer did not start: {line!r}"
        yield trace
    finally:
        tracer.terminate()
        try:
            output, _ = tracer.communicate(timeout=END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            tracer.kill()
            tracer.communicate()
            raise
    report = json.loads(output)
    trace.points += [Point(**point) for point in report["points"]]
    trace.hit = report["hit"]
    trace.survivors += report["survivors"]
