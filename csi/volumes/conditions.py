"""Whether volumes are in order: their data, their filesystem, their pool.

All of it is looked at when it is asked for, but for the pools, which `Watch` keeps an eye on. A
list of volumes is looked at with one look at the mount table and the loop devices.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from csi.linux import loop, mounts
from csi.linux.faults import find_fault
from csi.linux.mounts import Mount
from csi.model import Kind, Volume
from csi.pool import directory, image
from csi.pool.shelf import FileId
from csi.volumes.pools import Depot, Found, Pools
from csi.volumes.presence import has_lost_file, loop_of
from csi.volumes.throttling import Throttling
from csi.volumes.watch import Watch

"""st_dev and st_ino."""


class Conditions:
    """Tells what is wrong with volumes."""

    def __init__(self, pools: Pools, watch: Watch, throttling: Throttling) -> None:
        self._pools = pools
        self._watch = watch
        self._throttling = throttling

    def of(self, volumes: Sequence[Volume]) -> list[str]:
        """Returns what is wrong with each volume, or nothing where it is in order.

        With one that is deleted meanwhile nothing is wrong.
        """
        survey = _Survey.now()
        return [self._of(volume, survey) for volume in volumes]

    def at(self, found: Found[Volume], mount: Mount) -> str:
        """Returns what is wrong with a volume that is mounted here, or nothing."""
        problem, _ = _look_at_data(found.depot, found.key, found.record)
        device = loop_of(mount)
        if has_lost_file(mount):
            fault = f"its device {device} was detached: stop its pods and start them again"
        else:
            fault = "" if device else find_fault(mount)
        return _joined(
            (self._watch.problem_of(found.depot), problem, fault, self._limit_problem(found.key))
        )

    def _of(self, volume: Volume, survey: _Survey) -> str:
        found = self._pools.find_record(volume)
        if found is None:
            return ""
        depot, key = found
        pool_problem = self._watch.problem_of(depot)
        if volume.copying:
            return pool_problem
        problem, file = _look_at_data(depot, key, volume)
        if problem and depot.pool.volumes.is_gone(volume):
            return ""
        fault = survey.fault_of(file)
        return _joined((pool_problem, problem, fault, self._limit_problem(key)))

    def _limit_problem(self, key: str) -> str:
        problem = self._throttling.problem(key)
        return problem and f"the limits of the volume are not in force: {problem}"


@dataclass(frozen=True, slots=True)
class _Survey:
    """What is mounted from which file, at one moment."""

    shown: dict[FileId, list[Mount]]

    @classmethod
    def now(cls) -> _Survey:
        files = {
            device.path: (device.backing_device, device.backing_inode) for device in loop.bound()
        }
        shown: dict[FileId, list[Mount]] = {}
        for mount in mounts.read_mounts() if files else ():
            if mount.source in files and mount.root == "/":
                shown.setdefault(files[mount.source], []).append(mount)
        return cls(shown)

    def fault_of(self, file: FileId | None) -> str:
        if file is None or file not in self.shown:
            return ""
        return next(filter(None, map(find_fault, self.shown[file])), "")


def _look_at_data(depot: Depot, key: str, volume: Volume) -> tuple[str, FileId | None]:
    """Returns what is wrong with a volume's data, and which file it is."""
    data = directory.DATA_NAME if volume.kind is Kind.DIRECTORY else image.IMAGE_NAME
    try:
        status = depot.pool.volumes.status(key, data)
    except OSError as error:
        missing = error.errno == errno.ENOENT
        what = "is missing from" if missing else f"cannot be read ({error.strerror}) in"
        return f"the data of the volume {what} pool {depot.pool.name!r}", None
    file = status.st_dev, status.st_ino
    if volume.kind is Kind.IMAGE and status.st_size < volume.size_bytes:
        return f"its image has {status.st_size} bytes and not {volume.size_bytes}", file
    return "", file


def _joined(problems: Iterable[str]) -> str:
    """The cause first: callers take no more than some words."""
    return "; ".join(filter(None, problems))
