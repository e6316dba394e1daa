"""The raw calls on quota groups of btrfs, by their full numbers. See `csi.linux.quota`.

A number has its level in the upper 16 bits; those of level 0 are ids of subvolumes.
Numbers and structures: linux/btrfs.h and linux/btrfs_tree.h.
"""

from __future__ import annotations

import errno
import os
import struct

from csi.linux import subvolume, syscalls

LEVEL_1 = 1 << 48

_QGROUP_ASSIGN = 0x40189429
_QGROUP_CREATE = 0x4010942A
_QGROUP_LIMIT = 0x8030942B
_TREE_SEARCH = 0xD0009411

_TOP_SUBVOLUME = 5
_NO_LIMIT = (1 << 64) - 1
_LIMITS_REFERENCED = 1

_QUOTA_TREE = 8
_RELATION_KEY = 246
_SEARCH_BYTES, _SEARCH_RESULTS_AT, _SEARCH_COUNT_AT = 4096, 104, 64
_HEADER_BYTES = 32


def create(fd: int, group: int) -> None:
    """Makes a group; EEXIST, ENOTCONN when there are no quotas."""
    _create_or_remove(fd, 1, group)


def remove(fd: int, group: int) -> None:
    """Removes a group; EBUSY when it has members or stands for something, ENOENT."""
    _create_or_remove(fd, 0, group)


def add_member(fd: int, member: int, group: int) -> None:
    """Makes one group a member of another; EEXIST, EINVAL when there is no such group."""
    _assign(fd, 1, member, group)


def remove_member(fd: int, member: int, group: int) -> None:
    """Takes one group out of another; ENOENT."""
    _assign(fd, 0, member, group)


def limit(fd: int, group: int, max_bytes: int | None) -> None:
    """Limits what a group may be charged; ENOENT."""
    bound = _NO_LIMIT if max_bytes is None else max_bytes
    limits = struct.pack("=6Q", group, _LIMITS_REFERENCED, bound, 0, 0, 0)
    _change(fd, _QGROUP_LIMIT, bytearray(limits), "BTRFS_IOC_QGROUP_LIMIT")


def members(fd: int, group: int) -> list[int]:
    """Returns the groups of level 0 in a group; none when there are no quotas."""
    return _related(fd, group, 0)


def groups_of(fd: int, member: int) -> list[int]:
    """Returns the groups of level 1 that a group is in; none when there are no quotas."""
    return _related(fd, member, LEVEL_1)


def _related(fd: int, group: int, start: int) -> list[int]:
    """Returns the groups that a group is related to, from a number on to the end of its level."""
    found: list[int] = []
    end = start + LEVEL_1 - 1
    try:
        while page := _relations_page(fd, group, found[-1] + 1 if found else start, end):
            found += page
    except OSError as error:
        if error.errno != errno.ENOENT:  # there are no quotas
            raise
    return found


def _relations_page(fd: int, group: int, start: int, end: int) -> list[int]:
    """Reads what fits into one answer of the relations of a group in the quota tree."""
    argument = bytearray(_SEARCH_BYTES)
    any_transaction = (0, (1 << 64) - 1)
    ranges = (_QUOTA_TREE, group, group, start, end, *any_transaction)
    struct.pack_into("=7Q3I", argument, 0, *ranges, _RELATION_KEY, _RELATION_KEY, 1 << 16)
    syscalls.ioctl(fd, _TREE_SEARCH, argument, name="BTRFS_IOC_TREE_SEARCH")
    (count,) = struct.unpack_from("=I", argument, _SEARCH_COUNT_AT)
    found, position = [], _SEARCH_RESULTS_AT
    for _ in range(count):
        _, _, offset, _, length = struct.unpack_from("=3Q2I", argument, position)
        found.append(offset)
        position += _HEADER_BYTES + length
    return found


def _assign(fd: int, assigned: int, number: int, group: int) -> None:
    argument = bytearray(struct.pack("=QQQ", assigned, number, group))
    _change(fd, _QGROUP_ASSIGN, argument, "BTRFS_IOC_QGROUP_ASSIGN")


def _create_or_remove(fd: int, created: int, group: int) -> None:
    argument = bytearray(struct.pack("=QQ", created, group))
    _change(fd, _QGROUP_CREATE, argument, "BTRFS_IOC_QGROUP_CREATE")


def _change(fd: int, request: int, argument: bytearray, name: str) -> None:
    """Makes a call that writes: through the top directory, which no limit of a tenant holds."""
    top = subvolume.open_by_id(fd, _TOP_SUBVOLUME)
    try:
        syscalls.ioctl(top, request, argument, name=name)
    finally:
        os.close(top)
