"""The result: for people as lines, for machines as JSON with the machine it was measured on."""

from __future__ import annotations

import datetime as dt
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from bench.cases import Outcome
from bench.figures import ratio
from bench.plan import Plan

_WIDTH = 30


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Where and when it was measured; loads are those of one minute, before and after."""

    date: str
    kernel: str
    processor: str
    processors: int
    load_before: float
    load_after: float = 0.0


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What is written as JSON."""

    version: Literal[1] = 1
    machine: Machine
    drivers: dict[str, str]
    """By what it is called here: what each driver says it is."""
    plan: Plan
    outcomes: list[Outcome]


def this_machine() -> Machine:
    """Returns the machine as it is now."""
    return Machine(
        date=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        kernel=platform.release(),
        processor=_processor(),
        processors=os.cpu_count() or 0,
        load_before=os.getloadavg()[0],
    )


def lines(outcomes: Sequence[Outcome]) -> list[str]:
    """Returns one case as lines: a column for each driver, and how many times better ours is."""
    ours, *others = outcomes
    made = [f"\n{ours.case}"]
    for outcome in outcomes:
        made += [f"  {outcome.subject}: {outcome.left_out}"] if outcome.left_out else []
        made += [
            f"  {outcome.subject}: {times} failed: {reason}"
            for reason, times in outcome.failures.items()
        ]
    theirs = {figure.series: figure for other in others for figure in other.figures}
    for figure in ours.figures:
        line = (
            f"  {figure.series:<{_WIDTH}} {figure.median:>10.2f} "
            f"({figure.low:.2f} to {figure.high:.2f}, {figure.count}x) {figure.unit}"
        )
        other = theirs.get(figure.series)
        if other is not None:
            line += f"   peer {other.median:.2f}, ours {ratio(figure, other):.2f} times as good"
        made.append(line.rstrip())
    return made


def write(result: Result, path: Path) -> None:
    """Writes the result as JSON."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")


def _processor() -> str:
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
