"""Limits of directories on btrfs: simple quotas, through a group of level 1 for each.

The limit stands on a level-1 group that contains the subvolume, because a subvolume that a tenant
makes inside his own belongs to that group too; a limit on the plain group of a subvolume is
escaped that way. The group's number is the subvolume's id, which btrfs never gives out twice.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterable

from csi.linux import quota
from csi.linux import subvolume as subvolumes
from csi.linux.paths import open_beneath
from csi.pool.directory import DATA_NAME, opened_data

_NO_GROUP_TO_REMOVE = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV, errno.ENOTCONN, errno.EBUSY}
)
"""There is no directory, it is something else, there are no quotas, or the group is in use."""
_REST = 50
"""How much longer than a look at all groups the time until the next one is."""


class GroupLimits:
    """The limits of a pool on btrfs. See `csi.pool.limits.Limits`."""

    def __init__(self, pool_fd: int) -> None:
        self._fd = pool_fd
        self._filesystem = os.path.basename(subvolumes.sysfs_folder(pool_fd))
        self._next_look = 0.0

    def know(self, numbers: Iterable[int]) -> None:
        """Needs to know none: btrfs gives no id out twice."""

    def hold_new(self, folder: int, size_bytes: int) -> int:
        """Limits a new subvolume; what a copy shares with its source is counted there."""
        with opened_data(folder) as data:
            group = subvolumes.subvolume_id(data)
            try:
                quota.create_group(data, group)
            except OSError as error:
                if error.errno != errno.EEXIST:
                    raise
            quota.assign(data, group, group)
            quota.limit(data, group, size_bytes)
            return group

    def change(self, folder: int, number: int, size_bytes: int) -> None:
        """Sets the limit of a group."""
        with opened_data(folder) as data:
            quota.limit(data, number, size_bytes)

    def set_right(self, folder: int, number: int, size_bytes: int) -> int:  # noqa: ARG002
        """Sets right which subvolumes a group is charged for; the limit itself stays.

        A tenant may choose the groups of a subvolume that he makes inside his directory.
        """
        with opened_data(folder) as data:
            strays = quota.adopt_nested(data, number)
            return len(strays) + len(quota.release_foreign(data, number))

    def used_bytes(self, number: int) -> int:
        """Returns the bytes that a group is charged for."""
        return quota.usage(self._filesystem, number)[0]

    def release(self, number: int) -> None:
        """Leaves the group to the reaper: it goes just before its subvolume."""

    def abandon(self, folder: int) -> None:
        """Leaves the group to the reaper: it goes just before its subvolume."""

    def settle(self) -> None:
        """Drops what btrfs leaves of the groups of destroyed subvolumes, where it lets go.

        Every group has to be looked at, so where there are many that is not done each time.
        """
        begin = time.monotonic()
        if begin < self._next_look:
            return
        with contextlib.suppress(OSError):
            quota.drop_dead_groups(self._fd)
        end = time.monotonic()
        self._next_look = end + _REST * (end - begin)


def forget_group_of(trash: int, name: str) -> None:
    """Removes the group of a subvolume that waits in the trash; none, or one in use, is fine.

    Raises:
        OSError: It is still there. Once the subvolume is gone nobody knows its number any more, so
            that has to wait.
    """
    try:
        data = open_beneath(trash, f"{name}/{DATA_NAME}", os.O_RDONLY | os.O_DIRECTORY)
        try:
            if subvolumes.is_subvolume(data):
                quota.remove_group(trash, subvolumes.subvolume_id(data))
        finally:
            os.close(data)
    except OSError as error:
        if error.errno not in _NO_GROUP_TO_REMOVE:
            raise
