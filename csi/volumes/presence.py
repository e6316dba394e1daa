"""Where a volume is in the kernel right now: its loop devices and its mounts.

Nothing of this is written down. It is asked of the kernel each time, so that it is right after a
restart, after a reboot, and after somebody has unmounted by hand. It needs the volume's folder
alone and not its record, so that a volume whose record is damaged can still be let go of.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from csi.linux import loop, mounts
from csi.linux.faults import BROKEN
from csi.linux.loop_status import LoopDevice
from csi.linux.mounts import Mount
from csi.pool.directory import DATA_NAME
from csi.pool.image import IMAGE_NAME, PATH_ONLY
from csi.pool.pool import Pool

_DELETED = "//deleted"
"""What the mount table puts behind a file or directory that was removed."""
_LOOP_NODE = re.compile(rf"(/loop\d+)(?:{_DELETED})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Presence:
    """What the kernel knew of a volume at one moment.

    Attributes:
        devices: The loop devices over its image.
        mounts: The mounts that show the whole of it, at staging and target paths alike. The
            kubelet's mounts of a part of a volume (subPath) are not among them.
        table: Everything that is mounted.
    """

    devices: tuple[LoopDevice, ...]
    mounts: tuple[Mount, ...]
    table: Sequence[Mount]

    @property
    def anywhere(self) -> bool:
        """Whether there is a loop device or a mount of it."""
        return bool(self.devices or self.mounts)

    def at(self, path: str) -> Mount | None:
        """Returns what shows at a path if that is this volume, else None."""
        top = self.top(path)
        return top if top in self.mounts else None

    def top(self, path: str) -> Mount | None:
        """Returns what shows at a path, whosever it is."""
        return next(iter(self._stack(path)), None)

    def layers_at(self, path: str) -> int:
        """Returns how many mounts of this volume lie on top at a path, one on the other.

        The node of a loop device that somebody has detached counts: it shows nothing any more.
        """
        layers = 0
        for mount in self._stack(path):
            if mount not in self.mounts and not has_lost_file(mount):
                break
            layers += 1
        return layers

    def _stack(self, path: str) -> list[Mount]:
        """Returns the mounts at a path, the topmost first: each is mounted on the next."""
        wanted = os.path.realpath(path)
        here = {mount.mount_id: mount for mount in self.table if mount.target == wanted}
        below = {mount.parent_id for mount in here.values()}
        top = next((mount for mount in here.values() if mount.mount_id not in below), None)
        stack = []
        while top is not None:
            stack.append(top)
            top = here.get(top.parent_id)
        return stack


def look(pool: Pool, key: str) -> Presence:
    """Asks the kernel where a volume is."""
    devices = loops_of(pool, key)
    base, root = pool.place
    directory = f"{root}/{pool.volumes.folder}/{key}/{DATA_NAME}"
    directories = (directory, f"{directory}{_DELETED}")
    paths = {device.path for device in devices}
    table = mounts.read_mounts()
    shown = tuple(
        mount
        for mount in table
        if (mount.source in paths and mount.root == "/")
        or (mount.device == base and mount.root in directories)
        or loop_of(mount) in paths
    )
    return Presence(tuple(devices), shown, table)


def loops_of(pool: Pool, key: str) -> list[LoopDevice]:
    """Returns the loop devices over a volume's image, known by device and inode of the file.

    Where somebody has removed the image, or the pool's disk has failed, they are known by the path
    that it had, so that the volume can still be let go of.
    """
    try:
        with pool.volumes.opened(key, IMAGE_NAME, PATH_ONLY) as image:
            status = os.fstat(image)
    except OSError as error:
        if error.errno not in (errno.ENOENT, *BROKEN):
            raise
        return loop.find_by_path(f"/{pool.volumes.folder}/{key}/")
    return loop.find(status.st_dev, status.st_ino)


def loop_of(mount: Mount) -> str:
    """Returns the loop device whose node a mount shows, or nothing if it shows something else."""
    node = _LOOP_NODE.fullmatch(mount.root) if mount.fs_type == "devtmpfs" else None
    return f"/dev{node[1]}" if node else ""


def has_lost_file(mount: Mount) -> bool:
    """Whether a mount shows the node of a loop device that was detached, or removed altogether.

    One that has another file by now cannot be told from a stranger's.
    """
    device = loop_of(mount)
    return bool(device) and (mount.root.endswith(_DELETED) or loop.status(device) is None)
