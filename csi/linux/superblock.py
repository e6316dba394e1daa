"""Reading how large a filesystem is from its superblock, without mounting it."""

from __future__ import annotations

import errno
import os
import struct


def filesystem_bytes(fs_type: str, device_path_or_fd: str | int) -> int:
    """Returns how large a filesystem is by its superblock, however large its device is.

    Of a mounted XFS this can be what it was before it grew, because XFS does not write through
    the page cache of its device.

    Raises:
        OSError: EINVAL when there is no such filesystem; what reading raises.
    """
    if isinstance(device_path_or_fd, str):
        fd = os.open(device_path_or_fd, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return filesystem_bytes(fs_type, fd)
        finally:
            os.close(fd)
    size = _SIZE_READERS[fs_type](device_path_or_fd)
    if size is None:
        raise OSError(errno.EINVAL, f"no {fs_type} superblock", f"descriptor {device_path_or_fd}")
    return size


def ext4_keeps_data_in_place(fd: int, size_bytes: int) -> bool:
    """Whether resize2fs can grow an ext4 to that size without moving a block of data.

    It moves some when the group descriptors outgrow the blocks that were reserved for them, which
    are enough for 1,024 times the first size, unless mkfs was told otherwise.
    """
    block = os.pread(fd, 1024, 1024)
    first, per_group = (
        struct.unpack_from("<I", block, 20)[0],
        struct.unpack_from("<I", block, 32)[0],
    )
    (reserved,) = struct.unpack_from("<H", block, 0xCE)
    (features,) = struct.unpack_from("<I", block, 96)
    descriptor_bytes = struct.unpack_from("<H", block, 0xFE)[0] if features & 0x80 else 32
    block_bytes = 1 << (10 + block[24])

    def tables(bytes_: int) -> int:
        groups = -(-(bytes_ // block_bytes - first) // per_group)
        return int(-(-groups * descriptor_bytes // block_bytes))

    return tables(size_bytes) <= tables(filesystem_bytes("ext4", fd)) + int(reserved)


def _ext4_bytes(fd: int) -> int | None:
    """Reads struct ext4_super_block, little-endian, at 1 KiB."""
    block = os.pread(fd, 1024, 1024)
    if len(block) < 1024 or block[56:58] != b"\x53\xef":
        return None
    (low, log_block_size) = struct.unpack_from("<I", block, 4)[0], block[24]
    (features,) = struct.unpack_from("<I", block, 96)
    high = struct.unpack_from("<I", block, 0x150)[0] if features & 0x80 else 0
    return int((high << 32 | low) << (10 + log_block_size))


def _xfs_bytes(fd: int) -> int | None:
    """Reads struct xfs_dsb, big-endian, at 0."""
    block = os.pread(fd, 512, 0)
    if len(block) < 512 or block[:4] != b"XFSB":
        return None
    block_size, blocks = struct.unpack_from(">IQ", block, 4)
    return int(block_size * blocks)


def _btrfs_bytes(fd: int) -> int | None:
    """Reads the size in the device item of struct btrfs_super_block, little-endian, at 64 KiB."""
    block = os.pread(fd, 4096, 64 << 10)
    if len(block) < 4096 or block[64:72] != b"_BHRfS_M":
        return None
    (total,) = struct.unpack_from("<Q", block, 0xC9 + 8)
    return int(total)


_SIZE_READERS = {"ext4": _ext4_bytes, "xfs": _xfs_bytes, "btrfs": _btrfs_bytes}
