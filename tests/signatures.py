"""What other software leaves on a disk to say that it is its own."""

import os
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

SECTOR = 512
MIB = 1 << 20


def _put(*parts: tuple[int, bytes]) -> Callable[[Path], None]:
    """Returns what writes bytes at places; those below 0 count from the end."""

    def write(path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR)
        try:
            size = os.lseek(descriptor, 0, os.SEEK_END)
            for place, content in parts:
                os.pwrite(descriptor, content, place if place >= 0 else size + place)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    return write


def _size_of(path: Path) -> int:
    """The size of a file or a device."""
    with path.open("rb") as file:
        return file.seek(0, os.SEEK_END)


def _made_by(*command: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        subprocess.run([*command, str(path)], check=True, capture_output=True)

    return make


def _partition(kind: int) -> bytes:
    """An MBR with one partition: its status and heads, kind, heads, first sector, sectors."""
    entry = struct.pack("<B3sB3sII", 0x80, b"\x00\x02\x00", kind, b"\xfe\xff\xff", 2048, 4096)
    return bytes(446) + entry.ljust(64, b"\0") + b"\x55\xaa"


def _gpt(path: Path) -> None:
    """UEFI 2.10, 5.3: a protecting MBR, a header and its entries."""
    last = _size_of(path) // SECTOR - 1
    entry = struct.pack("<16s16sQQQ72s", b"\x0f" * 16, b"\x01" * 16, 2048, 4096, 0, b"d\0")
    entries = entry.ljust(128 * 128, b"\0")
    places = (1, last, 34, last - 34, b"\x02" * 16, 2, 128, 128, zlib.crc32(entries))

    def header(check: int) -> bytes:
        start = struct.pack("<8sIIII", b"EFI PART", 0x10000, 92, check, 0)
        return start + struct.pack("<QQQQ16sQIII", *places)

    _put(
        (0, _partition(0xEE)),
        (SECTOR, header(zlib.crc32(header(0)))),
        (2 * SECTOR, entries),
    )(path)


def _raid(version: int, at: int) -> Callable[[Path], None]:
    """Struct mdp_superblock_1 of linux/raid/md_p.h, at its place; it says itself where that is."""

    def write(path: Path) -> None:
        place = at if at >= 0 else (_size_of(path) + at) & ~0xFFF
        block = struct.pack("<IIII16s32sQ", 0xA92B4EFC, version, 0, 0, b"\x03" * 16, b"md0", 0)
        block = block.ljust(144, b"\0") + struct.pack("<Q", place // SECTOR)
        _put((place, block.ljust(4096, b"\0")))(path)

    return write


def _lvm(path: Path) -> None:
    """Struct label_header of LVM2 in the second sector, with its checksum."""
    label = struct.pack("<I8s32s", 32, b"LVM2 001", b"u" * 32).ljust(SECTOR - 20, b"\0")
    # CRC-32 with a start of LVM's own, and not inverted.
    check = zlib.crc32(label, 0xF597A6CF ^ 0xFFFFFFFF) ^ 0xFFFFFFFF
    head = struct.pack("<8sQI", b"LABELONE", 1, check)
    _put((SECTOR, head + label))(path)


SIGNATURES: dict[str, Callable[[Path], None]] = {
    "crypto_LUKS": _put((0, b"LUKS\xba\xbe\x00\x02" + bytes(4088))),
    "linux_raid_member": _raid(1, 4096),
    "linux_raid_member at the end": _raid(1, -8192),
    "LVM2_member": _lvm,
    "gpt": _gpt,
    "dos": _put((0, _partition(0x83))),
    "swap": _made_by("mkswap"),
    "squashfs": _put((0, b"hsqs" + struct.pack("<IIIIHHHHHH", 1, 0, 4096, 1, 1, 12, 0, 1, 4, 0))),
    "iso9660": _put((32 << 10, b"\x01CD001\x01" + bytes(2041))),
    "ext4": _made_by("mkfs.ext4", "-q", "-F"),
    "xfs": _made_by("mkfs.xfs", "-q"),
    "btrfs": _made_by("mkfs.btrfs", "-q"),
}
"""By the name that blkid has for each, what writes it on a disk or image."""


def kind_of(name: str) -> str:
    """The name that blkid has for a signature."""
    return name.split(" ", maxsplit=1)[0]
