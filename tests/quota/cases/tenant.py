"""What a pod does in its volume: as an ordinary user, by programs of its own."""

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.contract.requests import MIB

USER = 65534
STEP_BYTES = 64 << 10
REFUSALS = {"xfs": "No space left on device", "ext4": "Disk quota exceeded"}
"""What the kernel tells a writer who is at his limit."""
SPARE_BYTES = MIB
"""Room that the filesystem's own tables may take of a volume."""


class Written(NamedTuple):
    """What a writer got done: the length of his file, and what he was told if he was stopped."""

    size_bytes: int
    complaint: str


def open_to_all(folder: Path) -> Path:
    """Lets the pod's user write to a volume, as the kubelet does with fsGroup."""
    folder.chmod(0o777)
    return folder


def write(folder: Path, name: str, size_bytes: int, *, user: int = USER) -> Written:
    """Writes a file of that size and syncs it, or as much of it as is let through."""
    done = run(
        folder,
        *("dd", "if=/dev/zero", f"of={name}", "conv=fsync"),
        *(f"bs={STEP_BYTES}", f"count={-(-size_bytes // STEP_BYTES)}"),
        user=user,
    )
    size = (folder / name).stat().st_size if (folder / name).exists() else 0
    complaint = done.stderr if done.returncode != 0 else ""
    return Written(size, complaint)


def run(folder: Path, *command: str, user: int = USER) -> subprocess.CompletedProcess[str]:
    """Runs a program in the volume; the folders above it are closed to the pod's user."""
    return subprocess.run(
        ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *command],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def size_shown(folder: Path) -> int:
    """What `df` shows as the size in a folder: of a limited one it is the limit."""
    status = os.statvfs(folder)
    return status.f_blocks * status.f_frsize


def number_of(path: Path) -> int:
    """The project of a file or directory, by the filesystem's own tool."""
    done = subprocess.run(
        ["lsattr", "-p", "-d", path], capture_output=True, text=True, timeout=60, check=True
    )
    return int(done.stdout.split()[0])
