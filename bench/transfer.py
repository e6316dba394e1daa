"""I/O through a volume against the same on the bare pool, measured by fio in turns."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from bench.cases import Subject
from bench.figures import Samples
from bench.ground import GroundError
from bench.life import MIB, Kind, Life

_FILE = "bench.fio"
_ROOM = 4
"""How much larger a volume is than the file: btrfs charges for what is overwritten, too, for a
while."""


class Job(NamedTuple):
    """One way to read or write."""

    name: str
    arguments: tuple[str, ...]
    side: str

    @property
    def sequential(self) -> bool:
        """Whether MiB a second are told and not operations."""
        return self.name.startswith("sequential")


JOBS = (
    Job("sequential read", ("--rw=read", "--bs=1M", "--iodepth=8"), "read"),
    Job("sequential write", ("--rw=write", "--bs=1M", "--iodepth=8"), "write"),
    Job("random read, depth 1", ("--rw=randread", "--bs=4k", "--iodepth=1"), "read"),
    Job("random read, depth 32", ("--rw=randread", "--bs=4k", "--iodepth=32"), "read"),
    Job("random write, depth 1", ("--rw=randwrite", "--bs=4k", "--iodepth=1"), "write"),
    Job("random write, depth 32", ("--rw=randwrite", "--bs=4k", "--iodepth=32"), "write"),
    Job("fsynced write", ("--rw=randwrite", "--bs=4k", "--iodepth=1", "--fsync=1"), "write"),
)


class Transfer:
    """Reads and writes a file in a volume, or its device, and a file beside it on the disk."""

    def __init__(self, kind: str, mib: int, seconds: float, rounds: int) -> None:
        self.name = f"I/O, {kind}"
        self.rounds = rounds
        self._kind = kind
        self._mib = mib
        self._seconds = seconds
        self._lives: dict[str, Life] = {}

    def problem(self, subject: Subject) -> str:
        """The disk below has to be known, and fio be there."""
        if self._kind not in subject.kinds:
            return "there is no such kind"
        if subject.disk is None:
            return "the disk below its volumes is not known"
        return "" if shutil.which("fio") else "fio is not installed"

    def prepare(self, subject: Subject) -> None:
        """Publishes a volume and writes both files once, so that no block is allocated later."""
        life = Life(subject.client, self._sized(subject), f"io-{self._kind}", subject.folder)
        self._lives[subject.name] = life.__enter__()
        for _, call in life.beginning(attach=False):
            call()
        for path in self._paths(subject).values():
            self._run(path, "--rw=write", "--bs=1M", "--end_fsync=1")

    def measure(self, subject: Subject, samples: Samples) -> None:
        """Does every job on both."""
        for job in JOBS:
            limits = "--time_based", f"--runtime={self._seconds}"
            rates = {}
            for bare, path in self._paths(subject).items():
                figures = self._run(path, *job.arguments, *limits)[job.side]
                rate = figures["bw_bytes"] / (1 << 20) if job.sequential else figures["iops"]
                rates[bare] = rate
                unit = "MiB/s" if job.sequential else "IO/s"
                samples.add(f"{job.name}{', bare' if bare else ''}", unit, rate)
            samples.add(f"{job.name}, of bare", "", rates[False] / rates[True])

    def finish(self, subject: Subject) -> None:
        """Takes volume and file away."""
        life = self._lives.pop(subject.name, None)
        if life is not None:
            bare = self._paths_of(subject, life)[True]
            life.undo()
            life.__exit__()
            bare.unlink(missing_ok=True)

    def _sized(self, subject: Subject) -> Kind:
        kind = subject.kinds[self._kind]
        return kind._replace(size_bytes=max(kind.size_bytes, _ROOM * self._mib * MIB))

    def _paths(self, subject: Subject) -> Mapping[bool, Path]:
        return self._paths_of(subject, self._lives[subject.name])

    def _paths_of(self, subject: Subject, life: Life) -> Mapping[bool, Path]:
        kind = subject.kinds[self._kind]
        through = life.target if kind.block else life.target / _FILE
        return {True: subject.disk_below(kind) / _FILE, False: through}

    def _run(self, path: Path, *arguments: str) -> Mapping[str, Mapping[str, float]]:
        """Runs fio and returns its figures by side."""
        command = ["fio", "--name=bench", f"--filename={path}", f"--size={self._mib}M"]
        command += ["--ioengine=libaio", "--direct=1", "--output-format=json", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        if done.returncode != 0:
            raise GroundError(f"fio on {path}: {done.stderr.strip() or done.stdout.strip()[-500:]}")
        result: Mapping[str, Mapping[str, float]] = json.loads(done.stdout)["jobs"][0]
        return result
