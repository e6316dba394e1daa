"""What a pod's fsGroup costs: every file is given to a group, as the kubelet does it.

The kubelet walks the volume after it was published, contents before their folder, and gives each
file its group and mode (pkg/volume/volume_linux.go of Kubernetes: an lstat, an lchown and a chmod
each). It does so at each start of a pod, unless the pod says `fsGroupChangePolicy: OnRootMismatch`
and the root is as it should be, which is looked at first.
"""

from __future__ import annotations

import os
import stat

from bench.cases import Subject
from bench.figures import Samples
from bench.life import MIB, Kind, Life

_FOLDER_FILES = 1000
_FILE_BYTES_OF_VOLUME = 17 << 10  # ext4 makes an inode for each 16 KiB
_FIRST_GROUP = 100_000


class Ownership:
    """Fills a volume with empty files and gives them to one group after another."""

    def __init__(self, kind: str, files: int, rounds: int) -> None:
        self.name = f"fsGroup, {kind}, {files} files"
        self.rounds = rounds
        self._kind = kind
        self._files = files
        self._group = _FIRST_GROUP
        self._lives: dict[str, Life] = {}

    def problem(self, subject: Subject) -> str:
        """Files are in filesystems."""
        kind = subject.kinds.get(self._kind)
        return "there is no such kind" if kind is None or kind.block else ""

    def prepare(self, subject: Subject) -> None:
        """Publishes a volume and makes the files."""
        life = Life(subject.client, self._sized(subject), f"group-{self._kind}", subject.folder)
        self._lives[subject.name] = life.__enter__()
        for _, call in life.beginning(attach=False):
            call()
        for number in range(self._files):
            folder = life.target / f"folder-{number // _FOLDER_FILES}"
            if number % _FOLDER_FILES == 0:
                folder.mkdir()
            os.close(os.open(folder / f"file-{number}", os.O_CREAT | os.O_WRONLY, 0o600))
        os.sync()

    def measure(self, subject: Subject, samples: Samples) -> None:
        """Gives everything to a new group, then to the same again, then asks the root alone."""
        root = str(self._lives[subject.name].target)
        self._group += 1
        with samples.timed("a new group"):
            give(root, self._group)
        with samples.timed("the same group again"):
            give(root, self._group)
        with samples.timed("the same, OnRootMismatch"):
            if not is_given(root, self._group):
                give(root, self._group)

    def finish(self, subject: Subject) -> None:
        """Takes the volume away."""
        life = self._lives.pop(subject.name, None)
        if life is not None:
            life.undo()
            life.__exit__()

    def _sized(self, subject: Subject) -> Kind:
        kind = subject.kinds[self._kind]
        needed = -(-self._files * _FILE_BYTES_OF_VOLUME // MIB) * MIB
        return kind._replace(size_bytes=max(kind.size_bytes, needed))


def give(path: str, group: int) -> None:
    """Gives what is below a path, and then the path itself, to a group."""
    status = os.lstat(path)
    if stat.S_ISDIR(status.st_mode):
        for name in sorted(os.listdir(path)):
            give(f"{path}/{name}", group)
    os.lchown(path, -1, group)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(path, stat.S_IMODE(status.st_mode) | _wanted(status))


def is_given(root: str, group: int) -> bool:
    """Whether the root is the group's already, which OnRootMismatch takes for the whole."""
    status = os.stat(root)
    return status.st_gid == group and status.st_mode & _wanted(status) == _wanted(status)


def _wanted(status: os.stat_result) -> int:
    return 0o660 | (0o2110 if stat.S_ISDIR(status.st_mode) else 0)
