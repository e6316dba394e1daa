"""Where a file's data lies on its disk: FIEMAP, read page by page.

Two files that share a block report the same place for it, which is how a clone and its source are
told apart without reading either. The kernel's Documentation/filesystems/fiemap.rst.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, NamedTuple

from csi.linux import syscalls

if TYPE_CHECKING:
    from collections.abc import Iterator

_FIEMAP = 0xC020660B
_FLAG_SYNC = 1
_HEADER = struct.Struct("=QQIIII")
_EXTENT = struct.Struct("=QQQ16xI12x")
_EXTENTS_A_PAGE = 1024

_LAST = 0x1
_UNWRITTEN = 0x800
# The place is not known yet (unknown, delayed), or is that of something that has first to be
# decoded (encoded, encrypted), or is shared with other things (not aligned, inline, tail).
_NOT_EXACT = 0x2 | 0x4 | 0x8 | 0x80 | 0x100 | 0x200 | 0x400


class Extent(NamedTuple):
    """A range of a file that has room on the disk.

    Attributes:
        offset: Where it is in the file, in bytes.
        length: How long it is, in bytes.
        physical: Where it is on the disk, in bytes.
        written: Whether it holds data; otherwise it reads as zeros, like a hole.
        exact: Whether `physical` tells its bytes from all others. Those of compressed extents,
            say, do not.
    """

    offset: int
    length: int
    physical: int
    written: bool
    exact: bool

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.offset + self.length


def read_extents(fd: int, start: int, end: int) -> Iterator[Extent]:
    """Yields the extents of an open file that touch a range, in ascending order.

    What is dirty is written back first. The file is asked for more as the extents are taken, so
    it has to stay as it is meanwhile.

    Args:
        fd: The file.
        start: Where the range begins, in bytes.
        end: Where it ends; the last extent may reach further.

    Raises:
        OSError: EOPNOTSUPP where the filesystem cannot tell.
    """
    buffer = bytearray(_HEADER.size + _EXTENTS_A_PAGE * _EXTENT.size)
    position = start
    while position < end:
        _HEADER.pack_into(buffer, 0, position, end - position, _FLAG_SYNC, 0, _EXTENTS_A_PAGE, 0)
        syscalls.ioctl(fd, _FIEMAP, buffer, name="FIEMAP")
        _, _, _, count, _, _ = _HEADER.unpack_from(buffer, 0)
        if count == 0:
            return
        flags = 0
        before = position
        page = memoryview(bytes(buffer))[_HEADER.size : _HEADER.size + count * _EXTENT.size]
        for offset, physical, length, flags in _EXTENT.iter_unpack(page):
            yield Extent(
                offset, length, physical, not flags & _UNWRITTEN, exact=not flags & _NOT_EXACT
            )
            position = offset + length
        if flags & _LAST:
            return
        if position <= before:
            raise OSError(errno.EIO, "FIEMAP: the kernel reports the same extents again")


def first_extent_flags(fd: int) -> int:
    """Returns the flags of a file's first extent as it is now; nothing is written back for it.

    0 where there is none. What they mean: linux/fiemap.h.
    """
    buffer = bytearray(_HEADER.size + _EXTENT.size)
    _HEADER.pack_into(buffer, 0, 0, (1 << 64) - 1, 0, 0, 1, 0)
    syscalls.ioctl(fd, _FIEMAP, buffer, name="FIEMAP")
    _, _, _, count, _, _ = _HEADER.unpack_from(buffer, 0)
    _, _, _, flags = _EXTENT.unpack_from(buffer, _HEADER.size)
    return int(flags) if count else 0
