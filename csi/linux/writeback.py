"""Writing a small file back so that it is part of what its filesystem commits next."""

from __future__ import annotations

from csi.linux import syscalls
from csi.linux.extents import first_extent_flags

_IN_TREE = 0x200  # FIEMAP_EXTENT_DATA_INLINE
_NOT_YET = 0x2 | 0x4  # unknown, delayed


def is_in_tree(fd: int) -> bool:
    """Writes an open file back; returns whether its bytes now lie in the tree of a btrfs.

    btrfs keeps files of up to 2 KiB (mount option `max_inline`) beside their names, and enters
    them when they are written back: with the transaction that runs, or one before it. That is
    asked, not assumed: a file that is larger, compressed or for another reason elsewhere is not.
    No disk is waited for. sync_file_range(2), and fiemap.rst of the kernel.
    """
    syscalls.write_back(fd)
    flags = first_extent_flags(fd)
    return bool(flags & _IN_TREE) and not flags & _NOT_YET
