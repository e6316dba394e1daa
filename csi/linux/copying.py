"""Copying files: by reflink, or sparse and interruptible."""

from __future__ import annotations

import errno
import os
import secrets
from typing import TYPE_CHECKING

from csi.linux import processors, syscalls
from csi.linux.paths import open_beneath

if TYPE_CHECKING:
    from collections.abc import Callable

_FICLONE = 0x40049409
_BLOCK_BYTES = 4096
_READ_BYTES = 1 << 20
_CANNOT_CLONE = (
    errno.EOPNOTSUPP,
    errno.EXDEV,
    errno.EINVAL,
    errno.ENOSYS,
    errno.ENOTTY,
)
_CANNOT_COPY_IN_KERNEL = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
_NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT)


def clone_file(source_fd: int, target_fd: int) -> None:
    """Lets a new, empty file share all the blocks of another of the same filesystem.

    Takes 12 to 15 µs an extent, and writes back what is dirty in the source. ioctl_ficlone(2).

    Raises:
        OSError: EOPNOTSUPP or EXDEV where that cannot be done, ENOSPC.
    """
    with processors.scattered():
        syscalls.ioctl(target_fd, _FICLONE, source_fd, name="FICLONE")


def can_clone(directory_fd: int) -> bool:
    """Whether files in a directory can be cloned: tried for real, nothing is left behind.

    Raises:
        OSError: It could not be tried: ENOSPC, EROFS and so on.
    """
    source = _open_unnamed(directory_fd)
    try:
        target = _open_unnamed(directory_fd)
        try:
            # Not empty, for the clone of an empty file succeeds everywhere.
            os.write(source, b"\1" * _BLOCK_BYTES)
            clone_file(source, target)
        finally:
            os.close(target)
    except OSError as error:
        if error.errno in _CANNOT_CLONE:
            return False
        raise
    finally:
        os.close(source)
    return True


def copy_sparse(
    source_fd: int,
    target_fd: int,
    *,
    keep_going: Callable[[], bool],
    chunk_bytes: int = 16 << 20,
) -> int:
    """Copies a file's data into a new file, holes stay holes; returns the bytes copied.

    The target has to read as zeros, be it empty or only preallocated; it ends up as long as the
    source. Nothing is synced, and the read position of the source moves.

    Args:
        source_fd: Open for reading.
        target_fd: Open for writing.
        keep_going: Asked before each chunk.
        chunk_bytes: The most that is copied between two questions.

    Raises:
        InterruptedError: `keep_going` said no.
        OSError: ENOSPC, EIO and so on; EIO also when the source was cut short meanwhile.
    """
    size = os.fstat(source_fd).st_size
    os.ftruncate(target_fd, size)
    copied = position = 0
    while (start := _next_data(source_fd, position)) is not None and start < size:
        position = min(os.lseek(source_fd, start, os.SEEK_HOLE), size)
        while start < position:
            if not keep_going():
                raise InterruptedError(errno.EINTR, "the copy was stopped")
            step = _copy_range(source_fd, target_fd, start, min(chunk_bytes, position - start))
            start += step
            copied += step
    return copied


def allocated_bytes(fd: int) -> int:
    """Returns the bytes that a file takes on its disk, shared ones included."""
    return bytes_of_blocks(os.fstat(fd))


def bytes_of_blocks(status: os.stat_result) -> int:
    """Is `allocated_bytes` of a file whose state is known already."""
    return status.st_blocks * 512


def is_hole(fd: int, position: int) -> bool:
    """Whether a file holds no data from a position on; blocks that were never written are none."""
    return _next_data(fd, position) is None


def preallocate(fd: int, size: int) -> None:
    """Gives a file real blocks up to `size` bytes; what it holds stays. fallocate(2).

    Raises:
        OSError: ENOSPC, after which some of it may be allocated; EOPNOTSUPP.
    """
    syscalls.fallocate(fd, 0, size)


def _open_unnamed(directory_fd: int) -> int:
    """Opens a file that has no name, or not for long, and is gone when it is closed."""
    try:
        return open_beneath(directory_fd, ".", os.O_TMPFILE | os.O_RDWR, 0o600)
    except OSError as error:
        if error.errno not in _NO_TMPFILE:
            raise
    name = f".clone-{secrets.token_hex(8)}"
    fd = open_beneath(directory_fd, name, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    os.unlink(name, dir_fd=directory_fd)
    return fd


def _next_data(fd: int, position: int) -> int | None:
    try:
        return os.lseek(fd, position, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:  # only holes from here on
            return None
        raise


def _copy_range(source_fd: int, target_fd: int, offset: int, count: int) -> int:
    """Copies up to `count` bytes at one offset, in the kernel where it can; returns how many."""
    try:
        copied = os.copy_file_range(source_fd, target_fd, count, offset, offset)
    except OSError as error:
        if error.errno not in _CANNOT_COPY_IN_KERNEL:
            raise
        copied = 0
    return copied or _copy_by_hand(source_fd, target_fd, offset, count)


def _copy_by_hand(source_fd: int, target_fd: int, offset: int, count: int) -> int:
    end = offset + count
    position = offset
    while position < end:
        data = os.pread(source_fd, min(_READ_BYTES, end - position), position)
        if not data:
            raise OSError(errno.EIO, "the source was cut short while it was copied")
        while data:
            written = os.pwrite(target_fd, data, position)
            position += written
            data = data[written:]
    return count
