"""One pool with its driver, somebody else's volumes on it, and what must be true of it at rest."""

import contextlib
import errno
import fcntl
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import grpc

from tests.contract import requests
from tests.contract.node_fixtures import loops_below, mounts_below, run
from tests.contract.refusals import Code, as_call
from tests.contract.requests import GIB
from tests.crash.promises import promised_by_records
from tests.disks import mounted_filesystem
from tests.driver import Driver, create_pool, running_driver
from tests.kubelet import Kubelet

PATIENCE_S = 60.0
A_LITTLE_S = 1.0
"""How long a driver is followed into its background work while something is done to it."""
HURRIED = (
    "import sys; from csi.volumes import driver, reaper; reaper._RETRY_S = 0.2; "
    "driver._SWEEP_EVERY_S = 2; from csi import cli; sys.exit(cli.main())"
)
"""The real command, but that it tries again sooner what it could not do at once."""
POOL_BYTES = 8 * GIB
TOLERANCE_BYTES = 1 << 20
"""Figures of a filesystem move a little by themselves, with its log and its caches."""
_AGAIN = (Code.ABORTED, Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED)
_FITHAW = 0xC0045878
_FOLDERS = ("volumes", "snapshots", "groups", "building", "trash")

T = TypeVar("T")


class ViolationError(AssertionError):
    """Something that is promised does not hold."""


class DriverGoneError(Exception):
    """The driver ended while something was waited for."""


@dataclass
class World:
    """A driver over one pool.

    Attributes:
        driver: The driver, over all its restarts.
        kubelet: The kubelet's folder.
        pool: The pool.
        fs_type: The pool's filesystem.
        patient: Whether calls are repeated as Kubernetes repeats them, and what goes on in the
            background is waited for to its end.
        pool_name: What the driver calls the pool, where it has several.
    """

    driver: Driver
    kubelet: Kubelet
    pool: Path
    fs_type: str
    patient: bool = True
    pool_name: str = ""
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def call(self, make: Callable[[], T]) -> T:
        """Makes a call, again and again while the answer is that it may be repeated."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return make()
            except grpc.RpcError as error:
                code = as_call(error).code()
                late = time.monotonic() > deadline
                if not self.patient or code not in _AGAIN or late:
                    raise
            time.sleep(0.02)

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Waits until something is so.

        Raises:
            DriverGoneError: The driver ended meanwhile.
            ViolationError: It did not become so.
        """
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if not self.driver.running:
                raise DriverGoneError(what)
            if time.monotonic() > deadline:
                raise ViolationError(f"{what} did not happen within {PATIENCE_S:g} s")
            time.sleep(0.01)

    def wait_for_background(self) -> None:
        """Waits until copies are whole and what was deleted is freed."""
        if not self.patient:
            self._wait_a_little()
            return
        self.wait_until(lambda: not self._copying(), "that copies were whole")
        self.wait_for_trash()

    def state(self) -> dict[str, object]:
        """Takes stock of what is mounted, attached and on disk."""
        return {
            "mounts": sorted(mount.path for mount in mounts_below(self.kubelet.directory)),
            "loops": sorted(loop.file for loop in loops_below(self.pool)),
            "entries": {folder: sorted(os.listdir(self.pool / folder)) for folder in _FOLDERS},
            "files": sorted(self._files()),
            "quota groups": self._quota_groups(),
        }

    def wait_for_trash(self) -> None:
        """Waits until what was thrown away is freed."""
        self.wait_until(lambda: not os.listdir(self.pool / "trash"), "that the trash was emptied")

    def expect_state(self, wanted: dict[str, object], patience_s: float = PATIENCE_S / 2) -> None:
        """Expects that all is as it was; what goes by itself a little later may do so."""
        deadline = time.monotonic() + patience_s
        while (found := self.state()) != wanted:
            if time.monotonic() > deadline:
                differs = [
                    f"{what}: {found[what]} and not {wanted[what]}"
                    for what in wanted
                    if found[what] != wanted[what]
                ]
                raise ViolationError("left behind or lost: " + "; ".join(differs))
            time.sleep(0.05)

    def expect_true_ledger(self) -> None:
        """Expects that what the driver says is free follows from records and blocks."""
        deadline = time.monotonic() + PATIENCE_S / 4
        while True:
            run("sync", "--file-system", str(self.pool))
            asked = requests.get_capacity(parameters={"pool": self.pool_name})
            answer = self.driver.controller.GetCapacity(asked)
            computed = promised_by_records(self.pool)
            if abs(answer.available_capacity - computed) <= TOLERANCE_BYTES:
                return
            if time.monotonic() > deadline:
                raise ViolationError(
                    f"GetCapacity says {answer.available_capacity}, and by the records "
                    f"{computed} bytes can be promised"
                )
            time.sleep(0.1)

    def expect_nothing_frozen(self) -> None:
        """Expects that no volume is frozen, and thaws what is."""
        for mount in mounts_below(self.kubelet.directory):
            if Path(mount.path).is_dir() and _was_frozen(mount.path):
                raise ViolationError(f"{mount.path} was left frozen")

    def _wait_a_little(self) -> None:
        deadline = time.monotonic() + A_LITTLE_S
        while self.driver.running and time.monotonic() < deadline:
            if not (self._copying() or os.listdir(self.pool / "trash")):
                return
            time.sleep(0.01)

    def _files(self) -> Iterator[str]:
        for folder in _FOLDERS[:3]:
            for entry in (self.pool / folder).iterdir():
                with contextlib.suppress(FileNotFoundError):
                    yield from (f"{folder}/{entry.name}/{name}" for name in os.listdir(entry))

    def _copying(self) -> bool:
        return any(self.record(path).get("copying") for path in self.pool.glob("*/*/record.json"))

    @staticmethod
    def record(path: Path) -> dict[str, Any]:
        """Reads a record; one that is gone meanwhile is empty."""
        try:
            found: dict[str, Any] = json.loads(path.read_bytes())
        except FileNotFoundError:
            return {}
        return found

    def _quota_groups(self) -> list[str]:
        if self.fs_type != "btrfs":
            return []
        run("btrfs", "filesystem", "sync", str(self.pool))
        lines = run("btrfs", "qgroup", "show", "--raw", str(self.pool)).splitlines()
        return sorted(line.split()[0] for line in lines if line[:1].isdigit())


@contextlib.contextmanager
def world_on(
    fs_type: str, folder: Path, config: str | None = None, size_bytes: int = POOL_BYTES
) -> Iterator[World]:
    """Makes a pool on a filesystem of its own and runs a driver over it."""
    place = folder / fs_type
    place.mkdir()
    with mounted_filesystem(fs_type, folder, size_bytes) as pool:
        create_pool(pool)
        with world_over(pool, fs_type, place, config) as world:
            yield world


@contextlib.contextmanager
def world_over(pool: Path, fs_type: str, place: Path, config: str | None = None) -> Iterator[World]:
    """Runs a driver over a pool that is there; what else is needed goes below `place`."""
    program = [sys.executable, "-c", HURRIED]
    with running_driver(pool, place, config=config, program=program) as driver:
        yield World(driver, Kubelet(place / "kubelet"), pool, fs_type)


def _was_frozen(path: str) -> bool:
    """Thaws a filesystem; returns whether it was frozen. Nothing of this can hang on a freeze."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(descriptor, _FITHAW, 0)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        raise
    finally:
        os.close(descriptor)
    return True
