"""Control groups of pods, made like the kubelet's, and processes in them whose I/O is measured.

The kernel is asked through its own files, not through the driver's code: a test has to notice
when that code is wrong.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

REMOVE_TIMEOUT_S = 10.0
WORK_TIMEOUT_S = 120.0
_RULES = {
    1: [f"blkio.throttle.{what}_device" for what in ("read_iops", "write_iops", "read_bps")]
    + ["blkio.throttle.write_bps_device"],
    2: ["io.max"],
}

_WORKER = """
import mmap, os, sys, time
for line in sys.stdin:
    what, path, flags, count, size = line.split()
    buffer = mmap.mmap(-1, int(size))
    buffer.write(os.urandom(int(size)))
    descriptor = os.open(path, int(flags), 0o600)
    started = time.monotonic()
    for _ in range(int(count)):
        if what == "write":
            os.write(descriptor, buffer)
        else:
            os.readv(descriptor, [buffer])
    elapsed = time.monotonic() - started
    os.close(descriptor)
    print(elapsed, flush=True)
"""


def io_hierarchy() -> tuple[Path, int]:
    """Where the io controller is, and its version."""
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        before, _, after = line.partition(" - ")
        path, (fs_type, _, options) = Path(before.split(" ")[4]), after.split(" ")[:3]
        if fs_type == "cgroup" and "blkio" in options.split(","):
            return path, 1
        if fs_type == "cgroup2" and "io" in (path / "cgroup.controllers").read_text().split():
            return path, 2
    raise AssertionError(
        "no control group hierarchy with the io controller is mounted, which these tests need"
    )


class PodGroup:
    """The group of one pod, below a root of the test's own, with a group for each container."""

    def __init__(self, path: Path, version: int) -> None:
        self.path = path
        self._version = version

    def container(self, name: str) -> Path:
        """Makes the group of a container, as the runtime does when it starts one."""
        group = self.path / name
        group.mkdir()
        return group

    def rule_file(self, group: Path, what: str) -> Path:
        """Where the kernel takes the rules that hold a group, for `write_iops` and the like."""
        if self._version == 2:
            return self.path / "io.max"
        return group / f"blkio.throttle.{what}_device"

    def rules(self, group: Path, device: str) -> dict[str, str]:
        """What the kernel has in force for a device (`major:minor`) in a group, by file.

        With version 2 what is in force for the pod is so in all groups below its own.
        """
        found = {}
        holder = self.path if self._version == 2 else group
        for name in _RULES[self._version]:
            for line in (holder / name).read_text(encoding="ascii").splitlines():
                numbers, _, rule = line.partition(" ")
                if numbers == device:
                    found[name] = rule
        return found


@contextlib.contextmanager
def pod_group(uid: str, name: str, *, systemd: bool = False) -> Iterator[PodGroup]:
    """Makes the group of a burstable pod below a root of that name; all is removed in the end.

    As the kubelet has it made by `systemd`, or makes it itself (its `cgroupDriver`).
    """
    parts = ("kubepods", "burstable", f"pod{uid}")
    if systemd:
        pod = f"kubepods-burstable-pod{uid.replace('-', '_')}.slice"
        parts = ("kubepods.slice", "kubepods-burstable.slice", pod)
    hierarchy, version = io_hierarchy()
    root = hierarchy / f"csi-local-path-test-{name}-{os.getpid()}"
    folder = hierarchy
    try:
        for part in (root.name, *parts):
            if version == 2:
                (folder / "cgroup.subtree_control").write_text("+io", encoding="ascii")
            folder /= part
            folder.mkdir()
        if version == 2:
            (folder / "cgroup.subtree_control").write_text("+io", encoding="ascii")
        yield PodGroup(folder, version)
    finally:
        _remove(root)


class Worker:
    """A process of a container that reads and writes when it is told to, and says how fast."""

    def __init__(self, group: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        (group / "cgroup.procs").write_text(str(self._process.pid), encoding="ascii")

    def write(self, path: Path, count: int, size: int, *, flags: int = os.O_DIRECT) -> float:
        """Writes so many blocks of a size; returns how many seconds that took."""
        return self._work("write", path, os.O_WRONLY | os.O_CREAT | flags, count, size)

    def read(self, path: Path, count: int, size: int) -> float:
        """Reads so many blocks of a size past the page cache; returns the seconds it took."""
        return self._work("read", path, os.O_RDONLY | os.O_DIRECT, count, size)

    def _work(self, what: str, path: Path, flags: int, count: int, size: int) -> float:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{what} {path} {flags} {count} {size}\n")
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate(timeout=WORK_TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _remove(root: Path) -> None:
    deadline = time.monotonic() + REMOVE_TIMEOUT_S
    # The kernel lets go of a group a moment after its last process.
    while root.exists():
        folders = [path for path in root.rglob("*") if path.is_dir()]
        for folder in [*sorted(folders, reverse=True), root]:
            with contextlib.suppress(OSError):
                folder.rmdir()
        assert time.monotonic() < deadline, f"{root} cannot be removed"
        time.sleep(0.02)
