"""A disk that writes down every write and flush: one file of a FUSE filesystem, for a loop device.

    python -m tests.crash.disk BACKING MOUNTPOINT LOG

MOUNTPOINT/disk shows BACKING, and each write to it and each fsync of it goes to LOG in the order in
which the kernel sent them. What is written to MOUNTPOINT/mark goes there, too, so that whoever uses
the disk can note between two writes what has happened. It ends when it is unmounted.

An entry of the log is a kind, an offset and a length, followed by that many bytes.
"""

import errno
import os
import stat
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import mfusepy

WRITE, FLUSH, MARK = 1, 2, 3
_HEAD = struct.Struct("<BQI")
_FILES = ("disk", "mark")


class Entry(NamedTuple):
    """Something that happened to the disk, or what somebody noted meanwhile."""

    kind: int
    offset: int
    data: bytes


def read_log(path: Path) -> Iterator[Entry]:
    """Yields the entries of a log in their order."""
    with path.open("rb") as log:
        while head := log.read(_HEAD.size):
            kind, offset, length = _HEAD.unpack(head)
            yield Entry(kind, offset, log.read(length))


class _Disk(mfusepy.Operations):  # type: ignore[misc]  # the library has no types
    use_ns = True

    def __init__(self, backing: str, log: str) -> None:
        self._backing = os.open(backing, os.O_RDWR | os.O_CLOEXEC)
        self._log = open(log, "wb", buffering=0)  # noqa: SIM115 - it lives as long as this process

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        del fh
        if path == "/":
            return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2}
        if path.lstrip("/") not in _FILES:
            raise mfusepy.FuseOSError(errno.ENOENT)
        size = os.fstat(self._backing).st_size if path == "/disk" else 0
        return {"st_mode": stat.S_IFREG | 0o600, "st_nlink": 1, "st_size": size}

    def readdir(self, path: str, fh: int) -> list[str]:
        del path, fh
        return [".", "..", *_FILES]

    def open(self, path: str, flags: int) -> int:
        del flags
        return _FILES.index(path.lstrip("/"))

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        del path, length, fh
        return 0

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        del path, fh
        return os.pread(self._backing, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        del path
        if _FILES[fh] == "disk":
            os.pwrite(self._backing, data, offset)
            self._note(WRITE, offset, data)
        else:
            self._note(MARK, 0, data)
        return len(data)

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        del path, datasync
        if _FILES[fh] == "disk":
            self._note(FLUSH, 0, b"")
        return 0

    def _note(self, kind: int, offset: int, data: bytes) -> None:
        self._log.write(_HEAD.pack(kind, offset, len(data)) + data)


def main(words: list[str]) -> int:
    """Serves one disk until it is unmounted."""
    backing, mountpoint, log = words
    # One thread, so that the order of the log is the order of the disk.
    mfusepy.FUSE(_Disk(backing, log), mountpoint, foreground=True, nothreads=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
