"""Removing single entries, whatever stands in the way: large files, flags, subvolumes."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
from typing import TYPE_CHECKING

from csi.linux import quota, subvolume, syscalls
from csi.linux.paths import open_beneath

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_STEP_BYTES = 1 << 30
_MOST_STEPS = 4096
_INSISTING_TRIES = 8

_FS_IOC_GETFLAGS = 0x80086601
_FS_IOC_SETFLAGS = 0x40086602
_IMMUTABLE, _APPEND_ONLY = 0x10, 0x20
# struct file_attr of linux/fs.h
_FILE_ATTR_BYTES = 24
_XFLAG_IMMUTABLE, _XFLAG_APPEND = 0x8, 0x10


class _SpecialFile(OSError):
    """A fifo, a device, a link: nothing to be opened."""


def unlink(above: int, name: str, step: Callable[[], None]) -> None:
    """Removes a name that is no directory, from an open directory.

    A large file is cut down first, 1 GiB or 1/4096 of its length at a time, since freeing a
    hundred thousand extents at once can stop a filesystem for seconds; `step` is called between.

    Raises:
        OSError: EISDIR, ENOENT, EBUSY when something is mounted on it, and so on.
    """
    if _is_large(os.stat(name, dir_fd=above, follow_symlinks=False)):
        _shrink(above, name, step)
    _insist(os.unlink, above, name)


def remove_directory(above: int, name: str) -> None:
    """Removes an empty directory from an open directory.

    Raises:
        OSError: ENOTEMPTY, ENOTDIR, ENOENT, EBUSY when something is mounted on it, and so on.
    """
    _insist(os.rmdir, above, name)


def destroy_subvolumes(fd: int, above: int, step: Callable[[], None]) -> None:
    """Destroys the subvolume of a descriptor and all subvolumes inside it, the innermost first.

    They are found and destroyed by their ids, so that no name can mislead; `step` is called after
    each. What they held comes back after the next commits, see `subvolume.start_commit`. Their
    quota groups go where the kernel lets them go yet, see `quota.drop_dead_groups`.

    Args:
        fd: The top directory of the subvolume.
        above: Any descriptor on the same mount, outside of the subvolume.
        step: Called between steps.
    """
    waiting = [subvolume.subvolume_id(fd)]
    while waiting:
        inner = _nested_of(above, waiting[-1])
        waiting += inner
        if not inner and _destroyed(above, waiting[-1]):
            waiting.pop()
        step()


def _nested_of(fd: int, number: int) -> list[int]:
    """Returns what has to be destroyed first, and makes the subvolume let it go."""
    try:
        inside = subvolume.open_by_id(fd, number)
    except OSError as error:
        if error.errno == errno.ESTALE:
            return []
        raise
    try:
        found = subvolume.nested(inside)
        if found:
            # To destroy what is inside is to write to it, which a flag or a limit may forbid.
            if subvolume.is_read_only(inside):
                subvolume.set_read_only(inside, False)
            quota.leave_groups(fd, number)
        return found
    finally:
        os.close(inside)


def _destroyed(fd: int, number: int) -> bool:
    """Destroys one; False when something stood in the way that is gone, or has to go first."""
    try:
        subvolume.destroy_by_id(fd, number)
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:
            return False
        if error.errno == errno.EPERM and _unlocked(fd, number):
            return False
        if error.errno not in (errno.ENOENT, errno.ESTALE):
            raise
    with contextlib.suppress(OSError):
        quota.drop_subvolume_group(fd, number)
    return True


def _unlocked(fd: int, number: int) -> bool:
    """Clears the flags that forbid to destroy a subvolume; whether there were any.

    They are on its top directory or on the one that it is in, wherever its tenant has moved it.
    """
    inside = subvolume.open_by_id(fd, number)
    try:
        above = os.open("..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=inside)
        try:
            cleared = [_clear_flags(above), _clear_flags(inside)]
        finally:
            os.close(above)
    finally:
        os.close(inside)
    return any(cleared)


def _is_large(found: os.stat_result) -> bool:
    """Whether it is a file to be cut down first. One with another name keeps its data there."""
    allocated = found.st_blocks * 512
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and allocated > _STEP_BYTES


def _shrink(above: int, name: str, step: Callable[[], None]) -> None:
    """Frees the blocks of a large file from its end, a bounded part at a time.

    Where that cannot be done unlinking does it all at once: a btrfs at its limit has no room for
    truncating, a program that runs has no writers.
    """
    with contextlib.suppress(OSError), _opened(above, name, os.O_WRONLY) as fd:
        if not _is_large(os.fstat(fd)):
            return
        size = os.fstat(fd).st_size
        part = max(_STEP_BYTES, size // _MOST_STEPS)
        while size > 0:
            before = os.fstat(fd).st_blocks
            size = max(0, size - part)
            os.ftruncate(fd, size)
            if os.fstat(fd).st_blocks != before:
                step()


def _insist(remove: Callable[..., None], above: int, name: str) -> None:
    """Unlinks or removes a directory, without the flags that forbid it."""
    for _ in range(_INSISTING_TRIES):
        try:
            remove(name, dir_fd=above)
            return
        except PermissionError:
            # A tenant who is still there may set them again.
            with contextlib.suppress(OSError):
                _clear_flags(above)
            with contextlib.suppress(OSError):
                _clear_flags_of(above, name)
    remove(name, dir_fd=above)


@contextlib.contextmanager
def _opened(above: int, name: str, flags: int) -> Iterator[int]:
    """Opens a file or directory, and nothing swapped for it: opening a device can do things."""
    path = open_beneath(above, name, os.O_PATH)
    try:
        mode = os.fstat(path).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise _SpecialFile(errno.EINVAL, "neither file nor directory", name)
        fd = os.open(f"/proc/self/fd/{path}", flags | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(path)
    try:
        yield fd
    finally:
        os.close(fd)


def _clear_flags_of(above: int, name: str) -> None:
    """Is `_clear_flags` for a name; one that is not to be opened needs Linux 6.17."""
    try:
        with _opened(above, name, os.O_RDONLY) as fd:
            _clear_flags(fd)
    except _SpecialFile:
        attributes = bytearray(_FILE_ATTR_BYTES)
        syscalls.file_getattr(above, name, attributes)
        (flags,) = struct.unpack_from("=Q", attributes)
        struct.pack_into("=Q", attributes, 0, flags & ~(_XFLAG_IMMUTABLE | _XFLAG_APPEND))
        syscalls.file_setattr(above, name, attributes)


def _clear_flags(fd: int) -> bool:
    """Clears the flags of chattr(1) that forbid to remove a file, or anything from a directory.

    Returns whether there were any.
    """
    argument = bytearray(8)
    syscalls.ioctl(fd, _FS_IOC_GETFLAGS, argument, name="FS_IOC_GETFLAGS")
    (flags,) = struct.unpack_from("=I", argument)
    if not flags & (_IMMUTABLE | _APPEND_ONLY):
        return False
    struct.pack_into("=I", argument, 0, flags & ~(_IMMUTABLE | _APPEND_ONLY))
    syscalls.ioctl(fd, _FS_IOC_SETFLAGS, argument, name="FS_IOC_SETFLAGS")
    return True
