"""A recorded disk, and the states that it may be in after a power cut at any moment.

A disk may keep what was written in a cache of its own until it is told to flush. So after a power
cut everything is there that was written before the last flush and, of what was written since, any
part: a sector is written whole or not at all, in whatever order the disk likes.
"""

import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.crash.disk import FLUSH, MARK, WRITE, Entry, read_log
from tests.disks import release

ROOT = Path(__file__).parents[2]
SECTOR_BYTES = 4096
START_TIMEOUT_S = 20.0


@contextlib.contextmanager
def recorded_disk(backing: Path, mountpoint: Path, log: Path) -> Iterator[None]:
    """Serves a file as MOUNTPOINT/disk for the body of a `with`, and records what is done to it."""
    command = [sys.executable, "-m", "tests.crash.disk", str(backing), str(mountpoint), str(log)]
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            deadline = time.monotonic() + START_TIMEOUT_S
            while not (mountpoint / "disk").exists():
                assert process.poll() is None, "the recording disk ended"
                assert time.monotonic() < deadline, "the recording disk was not mounted"
                time.sleep(0.02)
            yield
        finally:
            release(mountpoint)
            try:
                process.wait(START_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()


@dataclass(frozen=True)
class Cut:
    """A power cut.

    Attributes:
        flush: The number of the last flush before it.
        mark: What was noted last before it.
        kept: What of the writes since that flush has reached the disk, in order.
        words: Which of them, in words.
    """

    flush: int
    mark: int
    kept: tuple[Entry, ...]
    words: str


class Recording:
    """The log of a disk, cut at its flushes."""

    def __init__(self, base: Path, log: Path) -> None:
        self._base = base
        self._windows: list[list[Entry]] = [[]]
        for entry in read_log(log):
            if entry.kind == FLUSH:
                self._windows.append([])
            else:
                self._windows[-1].append(entry)

    @property
    def flushes(self) -> int:
        """How many flushes there are."""
        return len(self._windows) - 1

    def cuts(self, seed: int, torn: int) -> list[Cut]:
        """Returns power cuts: at each flush, and so many at random after each that writes follow.

        At a flush means just before the next one, when all since has been lost: nothing that was
        answered meanwhile may need it.
        """
        found, mark = [], -1
        for flush, window in enumerate(self._windows):
            before, mark = mark, max([mark, *(_number(e) for e in window if e.kind == MARK)])
            writes = [entry for entry in window if entry.kind == WRITE]
            found.append(Cut(flush, mark, (), "all lost since"))
            if writes:
                found.append(Cut(flush, mark, tuple(_sectors(writes)), "all kept since"))
            for number in range(torn if writes else 0):
                chance = random.Random(f"{seed} {flush} {number}")  # noqa: S311 - it has to repeat
                found.append(_torn(flush, before, window, chance))
        return found

    def states(self, cuts: Sequence[Cut], image: Path) -> Iterator[Cut]:
        """Yields each cut in its order, with `image` as the disk is then."""
        durable = image.with_suffix(".durable")
        copy_sparse(self._base, durable)
        done = 0
        with durable.open("r+b") as disk:
            for cut in sorted(cuts, key=lambda cut: cut.flush):
                for window in self._windows[done : cut.flush]:
                    _write(disk.fileno(), [entry for entry in window if entry.kind == WRITE])
                done = max(done, cut.flush)
                copy_sparse(durable, image)
                with image.open("r+b") as state:
                    _write(state.fileno(), cut.kept)
                yield cut
        durable.unlink()


def _torn(flush: int, mark: int, window: Sequence[Entry], chance: random.Random) -> Cut:
    """A cut at some moment of a window, of whose sectors any part is there."""
    moment = chance.randrange(len(window)) + 1
    mark = max([mark, *(_number(entry) for entry in window[:moment] if entry.kind == MARK)])
    share = chance.choice((0.1, 0.5, 0.9))
    sectors = _sectors([entry for entry in window[:moment] if entry.kind == WRITE])
    kept = tuple(sector for sector in sectors if chance.random() < share)
    return Cut(flush, mark, kept, f"{len(kept)} of {len(sectors)} sectors kept since")


def _number(mark: Entry) -> int:
    return int(mark.data)


def _sectors(writes: Sequence[Entry]) -> list[Entry]:
    return [
        Entry(WRITE, entry.offset + start, entry.data[start : start + SECTOR_BYTES])
        for entry in writes
        for start in range(0, len(entry.data), SECTOR_BYTES)
    ]


def _write(descriptor: int, writes: Sequence[Entry]) -> None:
    for entry in writes:
        os.pwrite(descriptor, entry.data, entry.offset)


def copy_sparse(source: Path, target: Path) -> None:
    """Copies an image, zeros as holes."""
    target.unlink(missing_ok=True)
    subprocess.run(["cp", "--sparse=always", str(source), str(target)], check=True)
