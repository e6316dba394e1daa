"""Where a volume is in the kernel right now: its loop devices and its mounts.

Nothing of this is written down. It is asked of the kernel each time, so that it is right after a
restart, after a reboot, and after somebody has unmounted by hand. It needs the volume's folder
alone and not its record, so that a volume whose record is damaged can still be let go of.
"""

from __future__ import annotations

import errno
import functools
import os
import re
from collections.abc import Iterable

from csi.linux import loop
from csi.linux.faults import BROKEN
from csi.linux.leases import is_open_elsewhere
from csi.linux.loop_status import LoopDevice
from csi.linux.mounts import Mount, MountTable
from csi.linux.paths import is_mount_root_fd
from csi.pool.directory import DATA_NAME
from csi.pool.image import IMAGE_NAME, PATH_ONLY
from csi.pool.pool import Pool
from csi.pool.shelf import FileId

_DELETED = "//deleted"
"""What the mount table puts behind a file or directory that was removed."""
_LOOP_PREFIX = "/dev/loop"
_LOOP_NODE = re.compile(rf"(/loop\d+)(?:{_DELETED})?", re.ASCII)


class Presence:
    """What the kernel knows of a volume, asked when it is first needed and kept from then on.

    So who wants to know what a change has come to looks again. Whether a mount is this volume's is
    asked of the mount's own device; only `devices` and `mounts` look at all there are.
    """

    def __init__(self, pool: Pool, key: str) -> None:
        self._pool = pool
        self._key = key

    @property
    def anywhere(self) -> bool:
        """Whether there is a loop device or a mount of it."""
        return bool(self.devices or self.mounts)

    @functools.cached_property
    def devices(self) -> tuple[LoopDevice, ...]:
        """The loop devices over its image."""
        return tuple(_loops_over(self._pool, self._key, self._image))

    @functools.cached_property
    def mounts(self) -> tuple[Mount, ...]:
        """The mounts that show the whole of it, at staging and target paths alike.

        The kubelet's mounts of a part of a volume (subPath) are not among them.
        """
        paths = {device.path for device in self.devices}
        nodes = [path.removeprefix("/dev") for path in paths]
        fields = [*paths, *nodes, *(f"{node}{_DELETED}" for node in nodes)]
        if self._image is None:
            fields += self._directories
        if not fields:
            return ()
        return tuple(
            mount
            for mount in self._table.having(*fields)
            if self._shows_directory(mount) or _device_of(mount) in paths
        )

    def at(self, path: str) -> Mount | None:
        """Returns what shows at a path if that is this volume, else None."""
        top = self.top(path)
        return top if top is not None and self._shows(top) else None

    def top(self, path: str) -> Mount | None:
        """Returns what shows at a path, whosever it is."""
        return next(iter(self._stack(path)), None)

    def image_mounts(self, path: str) -> list[Mount]:
        """Returns all mounts of the filesystem of the image that shows at a path.

        Those of a part of it are among them. None where something else shows there.
        """
        top = self.at(path)
        if top is None or self._shows_directory(top) or loop_of(top):
            return []
        found = self._table.having(top.source)
        return [mount for mount in found if mount.source == top.source]

    def shown_beside(self, mount: Mount) -> list[Mount]:
        """Returns the other mounts that show the whole of it, given one that does.

        The filesystem of an image is known by the device that this one shows.
        """
        if self._shows_directory(mount) or loop_of(mount):
            shown: Iterable[Mount] = self.mounts
        else:
            shown = (m for m in self.image_mounts(mount.target) if m.root == "/")
        return [other for other in shown if other.target != mount.target]

    def directory_shows_at(self, path: str) -> bool:
        """Whether the directory of the volume is mounted on top at a path, asked of that alone."""
        if self._directory is None:
            return False
        try:
            shown = os.open(path, PATH_ONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            status = os.fstat(shown)
            return (status.st_dev, status.st_ino) == self._directory and is_mount_root_fd(shown)
        finally:
            os.close(shown)

    def layers_at(self, path: str) -> int:
        """Returns how many mounts of this volume lie on top at a path, one on the other.

        The node of a loop device that somebody has detached counts: it shows nothing any more.
        """
        layers = 0
        for mount in self._stack(path):
            if not self._shows(mount) and not has_lost_file(mount):
                break
            layers += 1
        return layers

    def _stack(self, path: str) -> list[Mount]:
        """Returns the mounts at a path, the topmost first: each is mounted on the next."""
        wanted = os.path.realpath(path)
        here = {
            mount.mount_id: mount for mount in self._table.having(wanted) if mount.target == wanted
        }
        below = {mount.parent_id for mount in here.values()}
        top = next((mount for mount in here.values() if mount.mount_id not in below), None)
        stack = []
        while top is not None:
            stack.append(top)
            top = here.get(top.parent_id)
        return stack

    def _shows(self, mount: Mount) -> bool:
        if self._shows_directory(mount):
            return True
        path = _device_of(mount)
        if not path:
            return False
        if self._image is None:
            return any(device.path == path for device in self.devices)
        device = loop.status(path)
        return device is not None and (device.backing_device, device.backing_inode) == self._image

    def _shows_directory(self, mount: Mount) -> bool:
        return mount.root in self._directories and mount.device == self._pool.place[0]

    @functools.cached_property
    def _directories(self) -> tuple[str, str]:
        _, root = self._pool.place
        directory = f"{root}/{self._pool.volumes.folder}/{self._key}/{DATA_NAME}"
        return directory, f"{directory}{_DELETED}"

    @functools.cached_property
    def _table(self) -> MountTable:
        return MountTable()

    @functools.cached_property
    def _directory(self) -> FileId | None:
        try:
            return self._pool.volumes.file_id(self._key, DATA_NAME)
        except OSError:
            return None

    @functools.cached_property
    def _image(self) -> FileId | None:
        return _image_of(self._pool, self._key)


def look(pool: Pool, key: str) -> Presence:
    """Returns what the kernel knows of a volume from now on."""
    return Presence(pool, key)


def loops_of(pool: Pool, key: str) -> list[LoopDevice]:
    """Returns the loop devices over a volume's image, known by device and inode of the file."""
    return _loops_over(pool, key, _image_of(pool, key))


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


def _image_of(pool: Pool, key: str) -> FileId | None:
    """Returns the image of a volume; None where it has none, or not any more, or has failed."""
    try:
        return pool.volumes.file_id(key, IMAGE_NAME)
    except OSError as error:
        if error.errno not in (errno.ENOENT, *BROKEN):
            raise
        return None


def _loops_over(pool: Pool, key: str, image: FileId | None) -> list[LoopDevice]:
    """Returns the loop devices over an image.

    All there are, and there may be a thousand, are looked at only where somebody has it open.
    Where somebody has removed it, or the pool's disk has failed, they are known by the path that
    it had, so that the volume can still be let go of. A directory that is there had no image.
    """
    if image is not None:
        return loop.find(*image) if _may_be_open(pool, key) else []
    if _is_directory(pool, key):
        return []
    return loop.find_by_path(f"/{pool.volumes.folder}/{key}/")


def _may_be_open(pool: Pool, key: str) -> bool:
    try:
        with pool.volumes.opened(key, IMAGE_NAME, os.O_RDONLY) as image:
            return is_open_elsewhere(image)
    except OSError:
        return True


def _is_directory(pool: Pool, key: str) -> bool:
    try:
        with pool.volumes.opened(key, DATA_NAME, PATH_ONLY):
            return True
    except OSError:
        return False


def _device_of(mount: Mount) -> str:
    """Returns the loop device that a mount shows, by its filesystem or by its node, or nothing."""
    if mount.root == "/" and mount.source.startswith(_LOOP_PREFIX):
        return mount.source
    return loop_of(mount)
