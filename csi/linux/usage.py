"""What a filesystem says about its space."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FilesystemUsage:
    """Bytes and inodes of one filesystem, as statvfs(3) gives them.

    `available_bytes` is what an ordinary user may still take; `used_bytes` and it do not add up
    to `total_bytes` where some is reserved. btrfs counts no inodes: its three numbers are 0.
    """

    total_bytes: int
    available_bytes: int
    used_bytes: int
    total_inodes: int
    free_inodes: int
    used_inodes: int


def filesystem_usage(fd: int | str) -> FilesystemUsage:
    """Returns the usage of the filesystem that a descriptor, or a path, is on.

    Raises:
        OSError: EIO when the filesystem has shut down, ENOENT and so on for a path.
    """
    found = os.statvfs(fd)
    return FilesystemUsage(
        total_bytes=found.f_blocks * found.f_frsize,
        available_bytes=found.f_bavail * found.f_frsize,
        used_bytes=(found.f_blocks - found.f_bfree) * found.f_frsize,
        total_inodes=found.f_files,
        free_inodes=found.f_ffree,
        used_inodes=found.f_files - found.f_ffree,
    )
