"""What the kernel says of processes."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import psutil


def running_machines(state: Path) -> list[psutil.Process]:
    """The processes 1 of all machines whose folders lie below a folder."""
    return [process for process in find_inits(None) if Path(process.cmdline()[2]).parent == state]


def find_inits(root: Path | None) -> Iterator[psutil.Process]:
    """The processes 1 of the machine whose folder that is, or of all machines."""
    for pid in psutil.pids():
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            command = process.cmdline()
            if len(command) == 3 and command[1] == "--machine" and root in (None, Path(command[2])):
                yield process


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs, which a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# Asked of the kernel each time: psutil remembers a process's program beyond its exec.
def program_of(pid: int) -> str:
    """The full path of the program that a process runs, empty if it is gone."""
    return _link(f"/proc/{pid}/exe")


def pid_namespace(pid: int) -> str:
    """What tells the process's namespace of processes from others, empty if it is gone."""
    return _link(f"/proc/{pid}/ns/pid")


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
