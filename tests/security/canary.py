"""A tree that belongs to somebody else, and whether anything in it was touched."""

import os
import stat
from pathlib import Path
from typing import NamedTuple

LARGE_BYTES = 64 << 10


class Found(NamedTuple):
    """What a file or directory is like, its times included: reading leaves a trace in them."""

    inode: int
    mode: int
    owner: int
    links: int
    size: int
    read_ns: int
    written_ns: int
    content: bytes


class Canary:
    """Files and directories beside the volumes; they are to stay as they are.

    They have to be on a filesystem that keeps the time of each reading (mount option strictatime).
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "inner" / "deep").mkdir(parents=True)
        (root / "file").write_text("precious")
        (root / "inner" / "file").write_text("precious")
        (root / "inner" / "deep" / "file").write_text("precious")
        (root / "large").write_bytes(b"x" * LARGE_BYTES)
        (root / "empty").mkdir()
        (root / "empty file").touch()
        self._before = self._look()

    def touched(self) -> list[str]:
        """What is not as it was."""
        after = self._look()
        return sorted(
            name
            for name in self._before.keys() | after.keys()
            if self._before.get(name) != after.get(name)
        )

    def _look(self) -> dict[str, Found]:
        """Looks without leaving a trace."""
        found: dict[str, Found] = {}
        waiting = [self.root]
        while waiting:
            path = waiting.pop()
            status = path.lstat()
            content = b""
            if stat.S_ISDIR(status.st_mode):
                waiting += map(Path, _listed(path))
            elif stat.S_ISREG(status.st_mode):
                content = _content(path)
            found[str(path.relative_to(self.root))] = Found(
                status.st_ino,
                status.st_mode,
                status.st_uid,
                status.st_nlink,
                status.st_size,
                status.st_atime_ns,
                status.st_mtime_ns,
                content,
            )
        return found


def _listed(path: Path) -> list[str]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOATIME)
    try:
        return [f"{path}/{name}" for name in os.listdir(descriptor)]
    finally:
        os.close(descriptor)


def _content(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOATIME)
    try:
        return os.read(descriptor, 1 << 20)
    finally:
        os.close(descriptor)
