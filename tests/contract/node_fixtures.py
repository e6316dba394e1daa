"""What the kernel says of volumes on the node, and what others do there.

The kernel is asked through its own files, not through the driver's code: a test has to notice
when that code is wrong.
"""

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.contract.bench import wait_until

SECTOR_BYTES = 4096
UNKNOWN_VOLUME = "vol-000000000000-00000000000000000000000000000000-0000000000"
"""An id that the driver might have given out, and has not."""
DETACH_TIMEOUT_S = 5.0
_ESCAPES = ((r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", "\\"))


@dataclass(frozen=True)
class Mount:
    """A line of mountinfo."""

    root: str
    path: str
    options: frozenset[str]
    fs_type: str
    source: str
    super_options: frozenset[str]

    @property
    def read_only(self) -> bool:
        """Whether nothing can be written through it."""
        return "ro" in self.options


def all_mounts() -> list[Mount]:
    """Every mount, in the order in which they were made."""
    mounts = []
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        before, after = line.split(" - ", 1)
        _, _, _, root, path, options, *_ = before.split(" ")
        fs_type, source, super_options = after.split(" ")[:3]
        for escape, character in _ESCAPES:
            path = path.replace(escape, character)
        mounts.append(
            Mount(
                root,
                path,
                frozenset(options.split(",")),
                fs_type,
                source,
                frozenset(super_options.split(",")),
            )
        )
    return mounts


def mounts_below(folder: Path) -> list[Mount]:
    """The mounts at a folder and below it: others come and go on a machine all the time."""
    return [mount for mount in all_mounts() if Path(mount.path).is_relative_to(folder)]


def mounts_at(path: Path) -> list[Mount]:
    """The mounts at a path, the topmost last."""
    return [mount for mount in all_mounts() if mount.path == str(path)]


def the_mount_at(path: Path) -> Mount:
    """The only mount at a path."""
    found = mounts_at(path)
    assert len(found) == 1, f"{len(found)} mounts at {path}"
    return found[0]


@dataclass(frozen=True)
class Loop:
    """A loop device that has a file, by sysfs."""

    device: str
    file: str
    autoclear: bool
    direct_io: bool
    sector_bytes: int
    size_bytes: int


def all_loops() -> list[Loop]:
    """Every loop device that has a file."""
    loops = []
    for folder in Path("/sys/block").glob("loop*"):
        # A device may be detached while its files are being read.
        with contextlib.suppress(OSError):
            read = {
                name: (folder / name).read_text(encoding="utf-8").rstrip("\n")
                for name in (
                    "loop/backing_file",
                    "loop/autoclear",
                    "loop/dio",
                    "queue/logical_block_size",
                    "size",
                )
            }
            loops.append(
                Loop(
                    f"/dev/{folder.name}",
                    read["loop/backing_file"],
                    read["loop/autoclear"] == "1",
                    read["loop/dio"] == "1",
                    int(read["queue/logical_block_size"]),
                    int(read["size"]) * 512,
                )
            )
    return loops


def loops_below(folder: Path) -> list[Loop]:
    """The loop devices over files below a folder."""
    return [loop for loop in all_loops() if Path(loop.file).is_relative_to(folder)]


def loops_over(file: Path) -> list[Loop]:
    """The loop devices over a file."""
    return [loop for loop in all_loops() if loop.file == str(file)]


def no_loop_over(file: Path) -> bool:
    """Whether a file is free, or becomes so: the kernel lets go a moment after the last use."""
    deadline = time.monotonic() + DETACH_TIMEOUT_S
    while loops_over(file):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def entry_of(pool: Path, volume_id: str) -> Path:
    """The folder of a volume in its pool: the part of its id that follows from its name."""
    return pool / "volumes" / volume_id.split("-")[2]


def image_of(pool: Path, volume_id: str) -> Path:
    """The image of a volume in its pool."""
    return entry_of(pool, volume_id) / "disk.img"


def fill(path: Path) -> tuple[int, int]:
    """Writes to a file until that is refused; returns the bytes that went in, and the errno."""
    data, written = os.urandom(4 << 20), 0
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        return 0, error.errno or 0
    try:
        while True:
            try:
                written += os.write(descriptor, data)
            except OSError as error:
                if len(data) <= SECTOR_BYTES:
                    os.fsync(descriptor)
                    return written, error.errno or 0
                data = data[: len(data) // 4]
    finally:
        os.close(descriptor)


def wait_for_empty_trash(pool: Path) -> None:
    """Waits until all that was deleted is freed."""
    wait_until(lambda: not os.listdir(pool / "trash"), "that the trash was emptied")


def run(*command: str) -> str:
    """Runs a program of the system and returns what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"
    return done.stdout


@contextlib.contextmanager
def foreign_mount(path: Path) -> Iterator[None]:
    """Mounts something at a path that no driver of ours has mounted."""
    run("mount", "-t", "tmpfs", "-o", "size=1m", "somebody-elses", str(path))
    try:
        yield
    finally:
        # Where the driver took it away by mistake, the test says so.
        subprocess.run(("umount", str(path)), stderr=subprocess.DEVNULL, check=False)


@contextlib.contextmanager
def looked_at(device: str, seconds: float = 0.5) -> Iterator[None]:
    """Has a device open for a while, as programs do that look at all there are."""
    descriptor = os.open(device, os.O_RDONLY)
    timer = threading.Timer(seconds, os.close, (descriptor,))
    timer.start()
    try:
        yield
    finally:
        timer.join()


@contextlib.contextmanager
def frozen(path: Path) -> Iterator[None]:
    """Freezes the filesystem at a path: whatever writes to it waits until the end."""
    run("fsfreeze", "--freeze", str(path))
    try:
        yield
    finally:
        run("fsfreeze", "--unfreeze", str(path))


def force_away(path: Path) -> None:
    """Unmounts all that is at a path and below it, without the driver."""
    for mount in reversed(all_mounts()):
        if Path(mount.path).is_relative_to(path):
            subprocess.run(("umount", "--lazy", mount.path), check=False)
