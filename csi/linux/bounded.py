"""Calls that change a mounted filesystem, in a process that may be held.

A frozen filesystem holds whoever writes to it, beyond the reach of signals, until it is thawed:
for ever, if its pod has frozen it and forgot. No call tells whether it is frozen without freezing
or thawing it. So a child process makes the call (see `csi.linux.held_call`), and is left to itself
when it is held.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
import time

from csi.errors import Unavailable
from csi.linux import held_call, processors

_WRITABLE_S = 4.0
"""A disk that is only busy lets a write begin sooner."""
_DONE_S = 60.0
_THAWED_S = 0.5
"""A child that was held ends within this once the filesystem is thawed."""

_guard = threading.Lock()
_held: dict[int, subprocess.Popen[bytes]] = {}
"""Children that were left to themselves, by the filesystem's st_dev: one each is enough."""


class FilesystemHeld(Unavailable):
    """The filesystem is frozen, or its disk does not answer."""


def ioctl(fd: int, request: int, argument: bytearray, *, name: str) -> int:
    """Makes an ioctl that changes the filesystem of a descriptor; returns what the call returned.

    The argument is only read. What was begun may still be done later, once the filesystem is
    thawed, so it has to be something that may be repeated.

    Args:
        fd: A directory of the filesystem, open for reading.
        request: The number of the ioctl.
        argument: What it points to.
        name: The name of the ioctl, for the error.

    Raises:
        FilesystemHeld: The filesystem takes no writes now, or took too long.
        OSError: What the kernel says.
    """
    device = os.fstat(fd).st_dev
    _refuse_while_held(device)
    # Isolated and without site: it starts in 10 ms and imports nothing that is not Python's.
    with processors.scattered():
        process = subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", held_call.__file__),
                *(str(fd), str(request), argument.hex()),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            pass_fds=(fd,),
            start_new_session=True,
        )
    try:
        lines = _lines_of(process)
    finally:
        _leave(process, device)
    match lines[-1].split() if lines else []:
        case ["done", result]:
            return int(result)
        case ["failed", number]:
            raise OSError(int(number), f"{name}: {os.strerror(int(number))}", name)
        case ["writable"]:
            raise FilesystemHeld(f"the filesystem took too long over {name}; try again")
    if process.returncode is not None:
        raise Unavailable(f"the process that was to call {name} ended before it had")
    raise _frozen()


def _lines_of(process: subprocess.Popen[bytes]) -> list[str]:
    """Returns what the child says, up to its end or as long as there is patience."""
    if process.stdout is None:
        return []
    output = process.stdout.fileno()
    said, deadline = b"", time.monotonic() + _WRITABLE_S
    while True:
        patience_s = max(0.0, deadline - time.monotonic())
        readable, _, _ = select.select([output], [], [], patience_s)
        part = os.read(output, 4096) if readable else b""
        if not part:
            break
        if not said:
            deadline = time.monotonic() + _DONE_S
        said += part
    if readable:
        process.wait()
    return said.decode().splitlines()


def _leave(process: subprocess.Popen[bytes], device: int) -> None:
    """Lets go of a child; one that is held is remembered until it has ended."""
    if process.stdout is not None:
        process.stdout.close()
    if process.poll() is None:
        process.kill()  # it takes effect when the kernel lets it go
        with _guard:
            _held[device] = process


def _refuse_while_held(device: int) -> None:
    with _guard:
        before = _held.get(device)
    if before is None:
        return
    try:
        before.wait(_THAWED_S)
    except subprocess.TimeoutExpired:
        raise _frozen() from None
    with _guard:
        if _held.get(device) is before:
            del _held[device]


def _frozen() -> FilesystemHeld:
    return FilesystemHeld(
        "the filesystem takes no writes: it is frozen, by its pod or by a backup, or its disk does "
        "not answer; thaw it (fsfreeze --unfreeze, at its mount on the node)"
    )
