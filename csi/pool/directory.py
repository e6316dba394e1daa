"""Directory volumes: a directory, or on btrfs a subvolume whose size simple quotas hold.

The limit stands on a level-1 group that contains the subvolume, because a subvolume that a tenant
makes inside his own belongs to that group too; a limit on the plain group of a subvolume is
escaped that way. The group's number is the subvolume's id, which btrfs never gives out twice.
"""

from __future__ import annotations

import contextlib
import errno
import os

from csi.errors import NotNow
from csi.linux import quota
from csi.linux import subvolume as subvolumes
from csi.linux.paths import open_beneath, sync_filesystem

DATA_NAME = "data"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY


def create_plain(folder: int, *, subvolume: bool) -> None:
    """Makes an empty directory in the open entry, its size held by nothing.

    A subvolume where the pool has them, so that it can be snapshotted.
    """
    if subvolume:
        subvolumes.create(folder, DATA_NAME)
    else:
        os.mkdir(DATA_NAME, 0o755, dir_fd=folder)
    sync_filesystem_of(folder)


def create_limited(folder: int, size_bytes: int) -> int:
    """Makes an empty subvolume of limited size in the open entry; returns its quota group."""
    subvolumes.create(folder, DATA_NAME)
    return _limit_new(folder, size_bytes)


def snapshot_limited(source_folder: int, folder: int, size_bytes: int) -> int:
    """Makes a writable copy of the subvolume in another entry; returns its quota group.

    The limit holds what the copy writes; what it shares with its source is counted there.
    """
    _snapshot(source_folder, folder, read_only=False)
    return _limit_new(folder, size_bytes)


def snapshot_plain(source_folder: int, folder: int) -> None:
    """Makes a writable copy of the subvolume in another entry, its size held by nothing."""
    _snapshot(source_folder, folder, read_only=False)


def snapshot_frozen(source_folder: int, folder: int) -> None:
    """Makes a read-only copy of the subvolume in another entry."""
    _snapshot(source_folder, folder, read_only=True)


def change_limit(folder: int, group: int, size_bytes: int) -> None:
    """Sets the limit of a directory's quota group, at once and while it is in use."""
    data = open_beneath(folder, DATA_NAME, _DIRECTORY)
    try:
        quota.limit(data, group, size_bytes)
    finally:
        os.close(data)


def hold_tenant(folder: int, group: int) -> int:
    """Sets right which subvolumes a directory's group is charged for; returns how many it was not.

    A tenant may choose the groups of a subvolume that he makes inside his directory.
    """
    data = open_beneath(folder, DATA_NAME, _DIRECTORY)
    try:
        return len(quota.adopt_nested(data, group)) + len(quota.release_foreign(data, group))
    finally:
        os.close(data)


def used_bytes(pool_fd: int, group: int) -> int:
    """Returns the bytes that a directory's quota group is charged for."""
    return quota.usage(pool_fd, group)[0]


def sync_filesystem_of(folder: int) -> None:
    """Makes what was done in the open entry durable, the quota groups of btrfs included."""
    sync_filesystem(folder)


def is_subvolume(folder: int) -> bool:
    """Whether the directory of an open entry can be copied as one moment."""
    data = open_beneath(folder, DATA_NAME, _DIRECTORY)
    try:
        return subvolumes.is_btrfs(data) and subvolumes.is_subvolume(data)
    finally:
        os.close(data)


def _snapshot(source_folder: int, folder: int, *, read_only: bool) -> None:
    data = open_beneath(source_folder, DATA_NAME, _DIRECTORY)
    try:
        if subvolumes.nested(data):
            raise NotNow(
                "the directory contains nested btrfs subvolumes, which a snapshot would leave "
                "empty; delete them, or turn them into directories, and try again"
            )
        subvolumes.snapshot(data, folder, DATA_NAME, read_only=read_only)
    finally:
        os.close(data)


def _limit_new(folder: int, size_bytes: int) -> int:
    data = open_beneath(folder, DATA_NAME, _DIRECTORY)
    try:
        group = subvolumes.subvolume_id(data)
        try:
            quota.create_group(data, group)
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise
        quota.assign(data, group, group)
        quota.limit(data, group, size_bytes)
        return group
    finally:
        os.close(data)


def quota_group_of(trash: int, name: str) -> int:
    """Returns the quota group of a directory that waits in the trash, or 0."""
    try:
        data = open_beneath(trash, f"{name}/{DATA_NAME}", _DIRECTORY)
    except OSError:
        return 0
    try:
        return subvolumes.subvolume_id(data) if subvolumes.is_subvolume(data) else 0
    finally:
        os.close(data)


def drop_dead_groups(pool_fd: int) -> None:
    """Drops what btrfs leaves of the groups of destroyed subvolumes; what it still needs stays."""
    with contextlib.suppress(OSError):
        quota.drop_dead_groups(pool_fd)


def forget_quota_group(folder: int, group: int) -> None:
    """Removes a quota group; one that is in use still, or gone, is left to a later time."""
    with contextlib.suppress(OSError):
        quota.remove_group(folder, group)
