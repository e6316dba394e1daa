"""What a loop device is bound to, as the kernel tells. loop(4)."""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import dataclass

from csi.linux import syscalls

READ_ONLY, AUTOCLEAR, DIRECT_IO = 1, 4, 16
_LOOP_GET_STATUS64 = 0x4C05
_STRUCT_INFO_BYTES = 232
_DISK_GONE = (errno.EIO, errno.ESTALE, errno.ESHUTDOWN, errno.ENOTCONN, errno.EUCLEAN)


@dataclass(frozen=True, slots=True)
class LoopDevice:
    """A loop device that has a file.

    Attributes:
        path: /dev/loopN.
        number: N.
        backing_device: st_dev of the file, as os.stat reports it; 0 where the filesystem that it
            is on has failed.
        backing_inode: st_ino of the file, likewise.
        size_limit: Bytes of the file that show, 0 for all of it.
        autoclear: It lets go of the file when the last that has it open or mounted is gone.
        direct_io: It reads and writes the file past the page cache.
        read_only: Nothing can be written through it.
    """

    path: str
    number: int
    backing_device: int
    backing_inode: int
    size_limit: int
    autoclear: bool
    direct_io: bool
    read_only: bool


def read_status(fd: int) -> LoopDevice:
    """Returns what an open loop device is bound to.

    Raises:
        OSError: ENXIO when it has no file, ENOTTY when it is no loop device.
    """
    info = bytearray(_STRUCT_INFO_BYTES)
    try:
        syscalls.ioctl(fd, _LOOP_GET_STATUS64, info, name="LOOP_GET_STATUS64")
    except OSError as error:
        # The kernel asks the filesystem of the file, and one that has shut down or is gone does not
        # answer. Such a device may be anybody's, and must not keep others from being found.
        if error.errno not in _DISK_GONE:
            raise
        return _status_by_sysfs(fd)
    device, inode, _, _, limit, number, _, _, flags = struct.unpack_from("=5Q4I", info)
    return LoopDevice(
        path=f"/dev/loop{number}",
        number=number,
        backing_device=device,
        backing_inode=inode,
        size_limit=limit,
        autoclear=bool(flags & AUTOCLEAR),
        direct_io=bool(flags & DIRECT_IO),
        read_only=bool(flags & READ_ONLY),
    )


def _status_by_sysfs(fd: int) -> LoopDevice:
    """Is `read_status` where device and inode of the file cannot be had: they are 0 then."""
    node = os.fstat(fd).st_rdev
    block = os.path.realpath(f"/sys/dev/block/{os.major(node)}:{os.minor(node)}")

    def number_in(name: str) -> int:
        with open(f"{block}/{name}", encoding="ascii") as attribute:
            return int(attribute.read())

    name = os.path.basename(block)
    return LoopDevice(
        path=f"/dev/{name}",
        number=int(name.removeprefix("loop")),
        backing_device=0,
        backing_inode=0,
        size_limit=number_in("loop/sizelimit"),
        autoclear=bool(number_in("loop/autoclear")),
        direct_io=bool(number_in("loop/dio")),
        read_only=bool(number_in("ro")),
    )
