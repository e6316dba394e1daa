"""Loop devices: block devices over files.

A loop is known by device and inode of its file, never by a path, because the path that the kernel
keeps goes stale when the file is renamed or the driver's container is made anew. loop(4).
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import struct
from functools import partial
from typing import TYPE_CHECKING, Self

from csi.linux import syscalls
from csi.linux.loop_status import AUTOCLEAR, DIRECT_IO, READ_ONLY, LoopDevice, read_status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_CONFIGURE = 0x4C0A
_LOOP_CLR_FD = 0x4C01
_LOOP_SET_CAPACITY = 0x4C07
_BLKGETSIZE64 = 0x80081272
_BLKFLSBUF = 0x1261

_STRUCT_CONFIG_BYTES = 304
_INFO_FLAGS_AT = 52
_TRIES = 200
_LOOK = os.O_RDONLY | os.O_NONBLOCK

_UNBOUND = (errno.ENXIO, errno.ENODEV, errno.ENOENT)
_NAME = re.compile(r"loop([0-9]+)")


class Attached:
    """A loop device held open; an autoclear one lives until this is closed and it is unmounted."""

    def __init__(self, device: LoopDevice, fd: int) -> None:
        self.device = device
        self.fd = fd

    def close(self) -> None:
        """Lets go of the device; may be called again."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def attach(
    file_fd: int,
    *,
    autoclear: bool,
    read_only: bool = False,
    direct_io: bool = True,
    block_size: int = 4096,
) -> Attached:
    """Binds an open file to a free loop device and returns that, held open.

    Args:
        file_fd: The file, open for reading and, unless `read_only`, for writing.
        autoclear: The kernel detaches it at the last close.
        read_only: Nothing can be written through the device.
        direct_io: Past the page cache, so that data is cached once and written when synced.
        block_size: Logical block size in bytes. Left to itself the kernel picks another one once
            the file was reflinked, and a filesystem made for 512 no longer mounts.

    Raises:
        OSError: EINVAL when the file's filesystem takes no direct I/O, EROFS when the file is
            not open for writing though it should be, EBUSY when no device could be had.
    """
    config = _config(file_fd, autoclear, read_only, direct_io, block_size)
    fd = _configure_free(config, os.O_RDONLY if read_only else os.O_RDWR)
    attached = Attached(read_status(fd), fd)
    try:
        _check(attached.device, read_only=read_only, direct_io=direct_io)
    except OSError:
        with contextlib.suppress(OSError):
            syscalls.ioctl(fd, _LOOP_CLR_FD, name="LOOP_CLR_FD")
        attached.close()
        raise
    return attached


def find(device: int, inode: int, *, hint: int | None = None) -> list[LoopDevice]:
    """Returns every loop device over one file, given its st_dev and st_ino.

    `hint` is the number of a device that is looked at first: the one it was last time.
    """
    numbers = sorted(_bound_numbers(), key=lambda number: (number != hint, number))
    found = (_status_unless_unbound(partial(_open_node, number, _LOOK)) for number in numbers)
    wanted = device, inode
    return [loop for loop in found if loop and (loop.backing_device, loop.backing_inode) == wanted]


def find_by_path(part: str) -> list[LoopDevice]:
    """Returns every loop device over a file whose path has a part, removed files included.

    A path tells less than an inode, but it is all that is left when a file is gone.
    """
    found = []
    for number in _bound_numbers():
        if part in path_of_file(number):
            with contextlib.suppress(OSError):
                found.append(_status_unless_unbound(partial(_open_node, number, _LOOK)))
    return [loop for loop in found if loop is not None]


def bound() -> list[LoopDevice]:
    """Returns every loop device that has a file."""
    found = (_status_unless_unbound(partial(_open_node, n, _LOOK)) for n in _bound_numbers())
    return [loop for loop in found if loop is not None]


def status(path: str) -> LoopDevice | None:
    """Returns what a loop device is bound to, or None when there is none or it has no file.

    Raises:
        OSError: ENOTTY when it is no loop device, EACCES and so on.
    """
    return _status_unless_unbound(lambda: os.open(path, _LOOK | os.O_CLOEXEC))


def detach(path: str) -> None:
    """Unbinds a loop device from its file; one without is fine.

    While somebody has it open or mounted, the kernel accepts this and detaches at the last close;
    `status` tells. Until then the file stays in use.
    """
    try:
        with _opened(path, os.O_RDONLY) as fd:
            syscalls.ioctl(fd, _LOOP_CLR_FD, name="LOOP_CLR_FD")
    except OSError as error:
        if error.errno not in _UNBOUND:
            raise


def detach_unmounted(path: str) -> bool:
    """Is `detach` for a device that holds no mounted filesystem, in no mount namespace.

    Returns:
        Whether it held none; otherwise it is left as it is. open(2), O_EXCL on block devices.
    """
    try:
        with _opened(path, os.O_RDONLY | os.O_EXCL) as fd:
            syscalls.ioctl(fd, _LOOP_CLR_FD, name="LOOP_CLR_FD")
    except OSError as error:
        if error.errno == errno.EBUSY:
            return False
        if error.errno not in _UNBOUND:
            raise
    return True


def path_of_file(number: int) -> str:
    """Returns the path that a device's file once had, as the kernel tells; empty if it has none."""
    try:
        with open(f"/sys/block/loop{number}/loop/backing_file", "rb") as attribute:
            return os.fsdecode(attribute.read().rstrip(b"\n"))
    except OSError:
        return ""


def refresh_size(path: str) -> None:
    """Lets a loop device see that its file grew."""
    with _opened(path, os.O_RDONLY) as fd:
        syscalls.ioctl(fd, _LOOP_SET_CAPACITY, name="LOOP_SET_CAPACITY")


def device_size(path_or_fd: str | int) -> int:
    """Returns the size of a block device in bytes."""
    if isinstance(path_or_fd, str):
        with _opened(path_or_fd, os.O_RDONLY) as fd:
            return device_size(fd)
    size = bytearray(8)
    syscalls.ioctl(path_or_fd, _BLKGETSIZE64, size, name="BLKGETSIZE64")
    return int.from_bytes(size, "little")


def flush(path: str) -> None:
    """Writes what the page cache of a block device holds to the device, durably, and drops it.

    Without it a clone of the file under a raw block volume lacks what went through that cache.
    """
    with _opened(path, os.O_RDONLY) as fd:
        syscalls.fsync(fd)
        syscalls.ioctl(fd, _BLKFLSBUF, name="BLKFLSBUF")


def _config(
    file_fd: int, autoclear: bool, read_only: bool, direct_io: bool, block_size: int
) -> bytearray:
    """Fills struct loop_config: descriptor, block size, struct loop_info64, reserved words."""
    flags = autoclear * AUTOCLEAR | read_only * READ_ONLY | direct_io * DIRECT_IO
    config = bytearray(_STRUCT_CONFIG_BYTES)
    struct.pack_into("=II", config, 0, file_fd, block_size)
    struct.pack_into("=I", config, 8 + _INFO_FLAGS_AT, flags)
    return config


def _check(device: LoopDevice, *, read_only: bool, direct_io: bool) -> None:
    """Sees to it that what was asked for is there: the kernel drops it without a word."""
    if direct_io and not device.direct_io:
        raise OSError(errno.EINVAL, "LOOP_CONFIGURE: no direct I/O on that file", device.path)
    if device.read_only and not read_only:
        raise OSError(errno.EROFS, "LOOP_CONFIGURE: the file is read-only", device.path)


def _configure_free(config: bytearray, flags: int) -> int:
    """Configures the first free device that nobody else takes first; returns it opened."""
    with _opened("/dev/loop-control", os.O_RDWR) as control:
        for _ in range(_TRIES):
            number = syscalls.ioctl(control, _LOOP_CTL_GET_FREE, name="LOOP_CTL_GET_FREE")
            fd = -1
            try:
                fd = _open_node(number, flags)
                syscalls.ioctl(fd, _LOOP_CONFIGURE, config, name="LOOP_CONFIGURE")
                return fd
            except OSError as error:
                if fd >= 0:
                    os.close(fd)
                # Another took it between the two calls, or it is just being removed.
                if error.errno not in (errno.EBUSY, errno.ENXIO, errno.ENODEV):
                    raise
    raise OSError(errno.EBUSY, "no free loop device could be had", "/dev/loop-control")


def _bound_numbers() -> Iterator[int]:
    """The numbers of the devices that have a file: only those carry attributes of a loop."""
    for name in os.listdir("/sys/block"):
        match = _NAME.fullmatch(name)
        if match and os.path.exists(f"/sys/block/{name}/loop"):
            yield int(match[1])


def _status_unless_unbound(opened: Callable[[], int]) -> LoopDevice | None:
    try:
        fd = opened()
        try:
            return read_status(fd)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno in _UNBOUND:
            return None
        raise


def _open_node(number: int, flags: int) -> int:
    """Opens /dev/loopN, which is made first where a container's /dev lacks it."""
    path = f"/dev/loop{number}"
    try:
        return os.open(path, flags | os.O_CLOEXEC)
    except FileNotFoundError:
        with open(f"/sys/block/loop{number}/dev", encoding="ascii") as attribute:
            major, minor = attribute.read().split(":")
        with contextlib.suppress(FileExistsError):
            os.mknod(path, 0o660 | stat.S_IFBLK, os.makedev(int(major), int(minor)))
        return os.open(path, flags | os.O_CLOEXEC)


@contextlib.contextmanager
def _opened(path: str, flags: int) -> Iterator[int]:
    fd = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
