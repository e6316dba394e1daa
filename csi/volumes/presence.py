"""Where a volume is in the kernel right now: its loop devices and its mounts.

Nothing of this is written down. It is asked of the kernel each time, so that it is right after a
restart, after a reboot, and after somebody has unmounted by hand. It needs the volume's folder
alone and not its record, so that a volume whose record is damaged can still be let go of.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from csi.linux import loop, mounts
from csi.linux.loop import LoopDevice
from csi.linux.mounts import Mount
from csi.pool.directory import DATA_NAME
from csi.pool.image import IMAGE_NAME, PATH_ONLY
from csi.pool.pool import Pool


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
        stack = self._stack(path)
        return stack[0] if stack and stack[0] in self.mounts else None

    def layers_at(self, path: str) -> int:
        """Returns how many mounts of this volume lie on top at a path, one on the other."""
        layers = 0
        for mount in self._stack(path):
            if mount not in self.mounts:
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
    paths = {device.path for device in devices}
    nodes = {f"/{os.path.basename(path)}" for path in paths}
    table = mounts.read_mounts()
    shown = tuple(
        mount
        for mount in table
        if (mount.source in paths and mount.root == "/")
        or (mount.device == base and mount.root == directory)
        or (mount.root in nodes and mount.fs_type == "devtmpfs")
    )
    return Presence(tuple(devices), shown, table)


def loops_of(pool: Pool, key: str) -> list[LoopDevice]:
    """Returns the loop devices over a volume's image, known by device and inode of the file."""
    try:
        with pool.volumes.opened(key, IMAGE_NAME, PATH_ONLY) as image:
            status = os.fstat(image)
    except FileNotFoundError:
        return []
    return loop.find(status.st_dev, status.st_ino)
