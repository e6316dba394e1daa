"""Directory volumes: a directory, or on btrfs a subvolume, which can be snapshotted.

What holds it to its size is in `csi.pool.limits`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from csi.errors import NotNow
from csi.linux import subvolume as subvolumes
from csi.linux.paths import open_beneath

DATA_NAME = "data"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY


@contextlib.contextmanager
def opened_data(folder: int) -> Iterator[int]:
    """Opens the directory of an open entry."""
    data = open_beneath(folder, DATA_NAME, _DIRECTORY)
    try:
        yield data
    finally:
        os.close(data)


def create(folder: int, *, subvolume: bool) -> None:
    """Makes an empty directory in the open entry; a subvolume where the pool has them."""
    if subvolume:
        subvolumes.create(folder, DATA_NAME)
    else:
        os.mkdir(DATA_NAME, 0o755, dir_fd=folder)


def snapshot(source_folder: int, folder: int, *, read_only: bool) -> None:
    """Makes a copy of the subvolume of one open entry in another.

    Raises:
        NotNow: There are subvolumes in it.
    """
    with opened_data(source_folder) as data:
        if subvolumes.nested(data):
            raise NotNow(
                "the directory contains nested btrfs subvolumes, which a snapshot would leave "
                "empty; delete them, or turn them into directories, and try again"
            )
        subvolumes.snapshot(data, folder, DATA_NAME, read_only=read_only)


def is_subvolume(folder: int) -> bool:
    """Whether the directory of an open entry can be copied as one moment."""
    with opened_data(folder) as data:
        return subvolumes.is_btrfs(data) and subvolumes.is_subvolume(data)
