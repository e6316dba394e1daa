"""Growing filesystems to the size of their device."""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from typing import TYPE_CHECKING

from csi.linux import bounded, syscalls
from csi.linux.programs import run
from csi.linux.superblock import filesystem_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

# Numbers and structures: the kernel's fs/xfs/libxfs/xfs_fs.h, fs/ext4/ext4.h, linux/btrfs.h.
_XFS_IOC_FSGEOMETRY_V4 = 0x8070587C
_XFS_IOC_FSGROWFSDATA = 0x4010586E
_EXT4_IOC_RESIZE_FS = 0x40086610
_BTRFS_IOC_RESIZE = 0x50009403
_BTRFS_IOC_FS_INFO = 0x8400941F
_BTRFS_IOC_DEV_INFO = 0xD000941E

_XFS_GEOMETRY_BYTES, _XFS_GROW_BYTES = 112, 16
_BTRFS_ARGUMENT_BYTES, _BTRFS_FS_INFO_BYTES = 4096, 1024
BTRFS_LEAST_BYTES = 256 << 20
"""The kernel resizes a btrfs to no less, although it can be made smaller: EINVAL by
btrfs_ioctl_resize in fs/btrfs/ioctl.c."""
_E2FSCK_FINE, _E2FSCK_CORRECTED = 0, 1


def grow_mounted(fs_type: str, mount_fd: int, device_size_bytes: int) -> None:
    """Grows a mounted filesystem to the size of its device; one that fills it stays as it is.

    A rest too small for the filesystem's own units (an XFS allocation group of 64 blocks, say)
    stays unused, and so does what a btrfs has below 256 MiB.

    Args:
        fs_type: ext4, xfs or btrfs.
        mount_fd: A descriptor on the filesystem, open for reading.
        device_size_bytes: The size of its device.

    Raises:
        FilesystemHeld: It is frozen, or its disk does not answer.
        OSError: What the kernel says. EPERM: for ext4 it wants CAP_SYS_RESOURCE, for all of them
            CAP_SYS_ADMIN. EBUSY: btrfs is balancing or resizing already.
    """
    {"ext4": _grow_ext4, "xfs": _grow_xfs, "btrfs": _grow_btrfs}[fs_type](
        mount_fd, device_size_bytes
    )


def check_ext4(path: str, *, timeout_s: float = 3600, pass_fds: Sequence[int] = ()) -> None:
    """Checks an unmounted ext4, its journal replayed first; `resize_ext4` wants that. e2fsck(8).

    Raises:
        ProgramFailed: It found what it cannot repair unasked.
    """
    check = ("e2fsck", "-f", "-p", path)
    run(check, timeout_s=timeout_s, pass_fds=pass_fds, ok=(_E2FSCK_FINE, _E2FSCK_CORRECTED))


def expect_whole_ext4(path: str, *, timeout_s: float = 3600, pass_fds: Sequence[int] = ()) -> None:
    """Checks that nothing is wrong with an unmounted ext4, and changes nothing.

    Raises:
        ProgramFailed: Something is.
    """
    run(("e2fsck", "-f", "-n", path), timeout_s=timeout_s, pass_fds=pass_fds)


def copy_ext4_metadata(
    source: str, target: str, *, timeout_s: float = 3600, pass_fds: Sequence[int] = ()
) -> None:
    """Copies an unmounted ext4 without the contents of its files, which become holes. e2image(8).

    Its journal is copied, too, so that the copy can be checked and grown like the whole.

    Raises:
        ProgramFailed: It could not be read.
    """
    run(("e2image", "-r", source, target), timeout_s=timeout_s, pass_fds=pass_fds)


def resize_ext4(path: str, *, timeout_s: float = 3600, pass_fds: Sequence[int] = ()) -> None:
    """Grows an unmounted ext4 to the size of its device or image. resize2fs(8).

    Killed amid it leaves the filesystem damaged, in the worst case beyond the repair of e2fsck: it
    writes the superblock in pieces. When it cannot write a block it may say so, and it may not:
    `expect_whole_ext4` tells.

    Raises:
        ProgramFailed: It failed.
    """
    run(("resize2fs", path), timeout_s=timeout_s, pass_fds=pass_fds)


def _grow_ext4(mount_fd: int, device_size_bytes: int) -> None:
    block_size = os.fstatvfs(mount_fd).f_bsize
    blocks = device_size_bytes // block_size
    # The ioctl asks for its capability even where it has nothing to do.
    if _ext4_blocks(mount_fd, block_size) == blocks:
        return
    argument = bytearray(struct.pack("=Q", blocks))
    bounded.ioctl(mount_fd, _EXT4_IOC_RESIZE_FS, argument, name="EXT4_IOC_RESIZE_FS")


def _ext4_blocks(mount_fd: int, block_size: int) -> int | None:
    """Reads the size from the device, which ext4 keeps its superblock current on; None if not.

    statfs(2) leaves out the filesystem's own tables, so it does not tell.
    """
    device = os.fstat(mount_fd).st_dev
    with contextlib.suppress(OSError):
        link = os.readlink(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
        return filesystem_bytes("ext4", f"/dev/{os.path.basename(link)}") // block_size
    return None


def _grow_xfs(mount_fd: int, device_size_bytes: int) -> None:
    geometry = bytearray(_XFS_GEOMETRY_BYTES)
    syscalls.ioctl(mount_fd, _XFS_IOC_FSGEOMETRY_V4, geometry, name="XFS_IOC_FSGEOMETRY")
    (block_size,) = struct.unpack_from("=I", geometry, 0)
    inode_percent, blocks = struct.unpack_from("=IQ", geometry, 28)
    wanted = device_size_bytes // block_size
    if wanted <= blocks:
        return
    argument = bytearray(_XFS_GROW_BYTES)
    struct.pack_into("=QI", argument, 0, wanted, inode_percent)
    bounded.ioctl(mount_fd, _XFS_IOC_FSGROWFSDATA, argument, name="XFS_IOC_FSGROWFSDATA")


def _grow_btrfs(mount_fd: int, device_size_bytes: int) -> None:
    number, size, sector_bytes = _btrfs_device(mount_fd)
    if size >= device_size_bytes // sector_bytes * sector_bytes:
        return
    if device_size_bytes < BTRFS_LEAST_BYTES:
        return
    argument = bytearray(_BTRFS_ARGUMENT_BYTES)
    struct.pack_into("=q4088s", argument, 0, 0, f"{number}:max".encode())
    # An operation that is under way is no errno but a number above 0.
    if bounded.ioctl(mount_fd, _BTRFS_IOC_RESIZE, argument, name="BTRFS_IOC_RESIZE") > 0:
        raise OSError(errno.EBUSY, "BTRFS_IOC_RESIZE: another operation runs", "BTRFS_IOC_RESIZE")


def _btrfs_device(mount_fd: int) -> tuple[int, int, int]:
    """Returns number and size of the only device of a btrfs, and its sector size."""
    info = bytearray(_BTRFS_FS_INFO_BYTES)
    syscalls.ioctl(mount_fd, _BTRFS_IOC_FS_INFO, info, name="BTRFS_IOC_FS_INFO")
    highest, devices = struct.unpack_from("=QQ", info, 0)
    _, sector_bytes = struct.unpack_from("=II", info, 32)
    if devices != 1:
        raise OSError(errno.EINVAL, f"a btrfs of {devices} devices", "BTRFS_IOC_FS_INFO")
    # Of a single device the highest number is its own.
    device = bytearray(_BTRFS_ARGUMENT_BYTES)
    struct.pack_into("=Q", device, 0, highest)
    syscalls.ioctl(mount_fd, _BTRFS_IOC_DEV_INFO, device, name="BTRFS_IOC_DEV_INFO")
    (size,) = struct.unpack_from("=Q", device, 32)
    return highest, size, sector_bytes
