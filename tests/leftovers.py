"""Finds what a test left mounted or attached, and takes it away.

On purpose this uses the system's own programs and none of the driver's code: it has to work most
of all where that code does not.
"""

import contextlib
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

DETACH_TIMEOUT_S = 5.0
_ESCAPES = {r"\040": " ", r"\011": "\t", r"\012": "\n", r"\134": "\\"}


class Mount(NamedTuple):
    """A line of mountinfo."""

    mount_id: str
    path: str


class Loop(NamedTuple):
    """An attached loop device."""

    device: str
    backing_file: str


@dataclass(frozen=True)
class Before:
    """What was there before a test began, and is none of its doing (its pool, for one)."""

    mounts: frozenset[Mount]
    loops: frozenset[Loop]

    @classmethod
    def now(cls) -> Self:
        """Takes stock."""
        return cls(frozenset(_mounts()), frozenset(_loops()))


def release_leftovers(before: Before, directory: Path, pool: Path) -> list[str]:
    """Unmounts what is mounted below a directory and detaches the loop devices on files of a pool.

    Args:
        before: What to leave alone.
        directory: The test's own folder.
        pool: The pool whose files loop devices may hold.

    Returns:
        What was found, in words; nothing when the test has cleaned up behind itself.
    """
    found = []
    # The last mounted first, as mountinfo lists what is stacked from the bottom up.
    for mount in reversed(_mounts()):
        if mount not in before.mounts and _is_below(mount.path, directory):
            found.append(f"the mount {mount.path}")
            if not _run("umount", mount.path):
                _run("umount", "--lazy", mount.path)
    # A device with autoclear goes by itself once its mount is gone, though not in the same instant.
    deadline = time.monotonic() + (DETACH_TIMEOUT_S if found else 0.0)
    while (loops := _new_loops(before, pool)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for loop in loops:
        found.append(f"{loop.device} on {loop.backing_file}")
        _run("losetup", "--detach", loop.device)
    return found


def _new_loops(before: Before, pool: Path) -> list[Loop]:
    return [
        loop for loop in _loops() if loop not in before.loops and _is_below(loop.backing_file, pool)
    ]


def _mounts() -> list[Mount]:
    mounts = []
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        mount_id, _, _, _, path, *_ = line.split(" ")
        for escape, character in _ESCAPES.items():
            path = path.replace(escape, character)
        mounts.append(Mount(mount_id, path))
    return mounts


def _loops() -> list[Loop]:
    loops = []
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        # The device may be detached between the listing and the reading.
        with contextlib.suppress(OSError):
            path = backing.read_text(encoding="utf-8").rstrip("\n")
            loops.append(Loop(f"/dev/{backing.parts[3]}", path.removesuffix(" (deleted)")))
    return loops


def _is_below(path: str, directory: Path) -> bool:
    return Path(path).is_relative_to(directory.resolve())


def _run(*command: str) -> bool:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        print(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.returncode == 0
