"""Simple quotas of btrfs (Linux 6.7 and later): limits on groups of subvolumes.

Every subvolume has a group of level 0 that carries its id. Limits stand on groups of level 1, of
which a subvolume's group is made a member: a subvolume that is made inside it becomes a member as
well, so that it counts, too. A group's number here is that of a level-1 group.

What was tried, on Linux 6.18:

- Each extent is charged to the subvolume that wrote it, and to that one alone until nobody refers
  to it any more. A new snapshot is charged 16 KiB, whatever it shares; overwriting in the snapshot
  is charged to the snapshot.
- **Overwriting in the source of a snapshot is charged to the source on top of what the snapshot
  keeps**: 40 MiB of 64 used, a snapshot, and rewriting those 40 MiB in place ends with EDQUOT
  after 24. A limit has to be raised by what snapshots keep.
- When the source is destroyed its group keeps the charge of what a snapshot still holds; the group
  of a subvolume that leaves nothing behind goes by itself.
- **A tenant who wants to can escape.** Who may write to a directory may make a subvolume in it
  and name groups of level 1 for it, none or a stranger's; no privilege is asked for
  (BTRFS_SUBVOL_QGROUP_INHERIT). `adopt_nested` and `release_foreign` set that right and are to be
  called from time to time: what has been written is charged then, and writing ends with EDQUOT
  if it is too much.
- At the limit unlink(2) works, while truncate(2) and destroying a nested subvolume are refused
  with EDQUOT (`leave_groups` helps), and so are the calls of this module through a descriptor in
  that subvolume: hence each is made through the filesystem's own top directory.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from typing import TYPE_CHECKING

from csi.linux import qgroups, subvolume, syscalls
from csi.linux.attributes import read_attribute

if TYPE_CHECKING:
    from collections.abc import Iterator

_QUOTA_CTL = 0xC0109428

_ENABLE_SIMPLE = 4
_LIMITS_REFERENCED = 1


def simple_quotas_enabled(fd: int) -> bool:
    """Whether the btrfs of a descriptor keeps simple quotas; others do not count."""
    folder = _folder(fd)
    try:
        return (
            read_attribute(f"{folder}/enabled") == "1"
            and read_attribute(f"{folder}/mode") == "squota"
        )
    except FileNotFoundError:
        return False


def enable_simple_quotas(fd: int) -> None:
    """Turns simple quotas on; only what is written from now on is ever charged.

    The filesystem cannot be mounted by kernels before 6.7 from then on.

    Raises:
        OSError: EINVAL on such a kernel, EBUSY when quotas of the other kind are on.
    """
    argument = bytearray(struct.pack("=QQ", _ENABLE_SIMPLE, 0))
    syscalls.ioctl(fd, _QUOTA_CTL, argument, name="BTRFS_IOC_QUOTA_CTL")
    # Where the other kind is on, the kernel answers that all is well.
    if not simple_quotas_enabled(fd):
        raise OSError(errno.EBUSY, "other quotas are on", "BTRFS_IOC_QUOTA_CTL")


def create_group(fd: int, level_1_id: int) -> None:
    """Makes a group of level 1, without members or limit.

    Raises:
        OSError: EEXIST, ENOTCONN when there are no quotas.
    """
    qgroups.create(fd, _level_1(level_1_id))


def remove_group(fd: int, group: int) -> None:
    """Removes a group of level 1 together with its limit; none is fine.

    Its members stay and are held by nothing: such as the groups of destroyed subvolumes, which
    last as long as a snapshot holds what they were charged.
    """
    for member in members(fd, group):
        with _fine(errno.ENOENT):
            qgroups.remove_member(fd, member, _level_1(group))
    with _fine(errno.ENOENT):
        qgroups.remove(fd, _level_1(group))


def assign(fd: int, subvolume_id: int, group: int) -> None:
    """Makes a subvolume a member of a group; one that is already is fine.

    What it has been charged so far counts for the group at once.

    Raises:
        OSError: EINVAL when there is no such subvolume or group.
    """
    with _fine(errno.EEXIST):
        qgroups.add_member(fd, subvolume_id, _level_1(group))


def members(fd: int, group: int) -> list[int]:
    """Returns the ids of the subvolumes, some destroyed perhaps, that a group is charged for."""
    return qgroups.members(fd, _level_1(group))


def leave_groups(fd: int, subvolume_id: int) -> None:
    """Takes a subvolume out of all its groups, so that no limit is in the way of destroying it."""
    for group in qgroups.groups_of(fd, subvolume_id):
        with _fine(errno.ENOENT):
            qgroups.remove_member(fd, subvolume_id, group)


def adopt_nested(subvolume_fd: int, group: int) -> list[int]:
    """Makes all subvolumes inside that of a descriptor members of its group, at any depth.

    Returns those that were not: a tenant can make such.
    """
    known = set(members(subvolume_fd, group))
    strays = [number for number in subvolume.descendants(subvolume_fd) if number not in known]
    for number in strays:
        with _fine(errno.EINVAL):  # destroyed meanwhile
            assign(subvolume_fd, number, group)
    return strays


def release_foreign(subvolume_fd: int, group: int) -> list[int]:
    """Frees the group of a subvolume of live members outside of that subvolume.

    Returns those that were: another's tenant can charge a group with what he writes.
    """
    # In this order, so that what is made inside meanwhile is never taken for foreign.
    charged = members(subvolume_fd, group)
    own = {subvolume.subvolume_id(subvolume_fd), *subvolume.descendants(subvolume_fd)}
    foreign = [
        number for number in charged if number not in own and not _is_dead(subvolume_fd, number)
    ]
    for number in foreign:
        with _fine(errno.ENOENT):
            qgroups.remove_member(subvolume_fd, number, _level_1(group))
    return foreign


def limit(fd: int, group: int, max_bytes: int | None) -> None:
    """Sets how many bytes the members of a group may be charged together; None is no limit.

    Takes effect at once, and one below what is used only forbids to write more.

    Raises:
        OSError: ENOENT when there is no such group.
    """
    qgroups.limit(fd, _level_1(group), max_bytes)


def usage(filesystem: int | str, group: int) -> tuple[int, int | None]:
    """Returns the bytes that a group is charged for and its limit, None when it has none.

    Writes count once they are committed: after a sync, or some 30 s.

    Args:
        filesystem: A descriptor on it, or its id as /sys/fs/btrfs names it.
        group: The group's number.

    Raises:
        OSError: ENOENT when there is no such group.
    """
    folder = f"{_folder(filesystem)}/1_{_level_1(group) ^ qgroups.LEVEL_1}"
    used = int(read_attribute(f"{folder}/referenced"))
    limited = int(read_attribute(f"{folder}/limit_flags")) & _LIMITS_REFERENCED
    return used, int(read_attribute(f"{folder}/max_referenced")) if limited else None


def drop_subvolume_group(fd: int, subvolume_id: int) -> bool:
    """Drops the level-0 group of a destroyed subvolume; returns whether it is gone.

    False: the kernel is still cleaning up, or a snapshot holds what it was charged.
    """
    try:
        with _fine(errno.ENOENT):
            qgroups.remove(fd, subvolume_id)
    except OSError as error:
        if error.errno == errno.EBUSY:
            return False
        raise
    return True


def drop_dead_groups(fd: int) -> int:
    """Drops what groups of destroyed subvolumes can be dropped; returns how many there were."""
    names = [name for name in os.listdir(_folder(fd)) if name.startswith("0_")]
    numbers = [int(name[2:]) for name in names]
    return sum(_is_dead(fd, number) and drop_subvolume_group(fd, number) for number in numbers)


def _is_dead(fd: int, number: int) -> bool:
    """Whether the subvolume is gone. Kernels before 6.12 drop groups of live ones, too."""
    try:
        os.close(subvolume.open_by_id(fd, number))
    except OSError as error:
        if error.errno == errno.ESTALE:
            return True
        raise
    return False


def _level_1(group: int) -> int:
    return qgroups.LEVEL_1 | group


def _folder(filesystem: int | str) -> str:
    if isinstance(filesystem, str):
        return f"/sys/fs/btrfs/{filesystem}/qgroups"
    return f"{subvolume.sysfs_folder(filesystem)}/qgroups"


@contextlib.contextmanager
def _fine(number: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != number:
            raise
