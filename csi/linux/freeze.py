"""Freezing mounted filesystems for a moment, in a way that outlives nobody.

A frozen filesystem blocks every writer, beyond the reach of signals. So a child process owns the
freeze (see `csi.linux.freezer`): it thaws when this process ends, however it ends, or when a bound
has run out. This process thaws when the child is killed. Only where both are killed at once, as
when a container's first process is, something stays frozen: `thaw` every mount at the start.
"""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from csi.errors import Unavailable
from csi.linux import freezer, processors, syscalls

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_FITHAW = freezer.FITHAW
_GRACE_S = 10.0
"""How long the child may take to thaw before this process does it."""


class FreezeExpired(Unavailable):
    """The filesystems were thawed before the work under the freeze was done."""


class Freeze:
    """A freeze that is being held."""

    def __init__(self, process: subprocess.Popen[bytes], own: Sequence[int]) -> None:
        self._process = process
        self._own = own

    @property
    def expired(self) -> bool:
        """Whether it has ended already, so that what is being copied is no longer one moment.

        Asks and does not wait.
        """
        return self._process.poll() is not None

    def end(self) -> bool:
        """Thaws; returns whether all was frozen until now."""
        if self._process.stdin:
            self._process.stdin.close()
        try:
            status = self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = None
        if status in (freezer.ASKED, freezer.EXPIRED):
            return status == freezer.ASKED
        # It was killed, or could not. What it had not thawed is frozen still.
        held = [_thaw(fd) for fd in reversed(self._own)]
        return all(held)


@contextlib.contextmanager
def frozen(mount_fds: Sequence[int], *, bound_s: float = 5.0) -> Iterator[Freeze]:
    """Holds filesystems frozen for the body of a `with`, after writing back what is dirty.

    One that somebody else has frozen counts as frozen and is left so. Whatever is written to a
    frozen filesystem waits, so the body must write to others only.

    Args:
        mount_fds: A descriptor on each filesystem, open for reading (O_PATH is not enough).
        bound_s: Seconds after which all are thawed in any case.

    Raises:
        FreezeExpired: The bound ran out before the body was through, which then proved nothing.
        OSError: One could not be frozen: EOPNOTSUPP, EPERM, EIO and so on; none is.
    """
    with _started(mount_fds, bound_s) as process:
        freeze = Freeze(process, _wait_until_frozen(process, mount_fds, bound_s))
        try:
            yield freeze
        except BaseException:
            freeze.end()
            raise
        if not freeze.end():
            raise _expired(bound_s)


def thaw(fd: int) -> None:
    """Thaws the filesystem of a descriptor; one that is not frozen is fine. ioctl FITHAW.

    Raises:
        OSError: EPERM, EIO and so on.
    """
    _thaw(fd)


def _started(mount_fds: Sequence[int], bound_s: float) -> subprocess.Popen[bytes]:
    numbers = [str(fd) for fd in mount_fds]
    # Isolated and without site: it starts in 10 ms and imports nothing that is not Python's.
    with processors.scattered():
        return subprocess.Popen(
            [sys.executable, "-I", "-S", freezer.__file__, str(bound_s), *numbers],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=mount_fds,
            start_new_session=True,  # what ends the driver's process group must not end this
        )


def _wait_until_frozen(
    process: subprocess.Popen[bytes], mount_fds: Sequence[int], bound_s: float
) -> list[int]:
    """Reads the child's line; returns the descriptors of what it froze itself."""
    line = process.stdout.readline() if process.stdout else b""
    match line.decode().split():
        case ["frozen", *states] if len(states) == len(mount_fds):
            states_of = zip(mount_fds, states, strict=True)
            return [fd for fd, state in states_of if state == "own"]
        case ["failed", index, number]:
            code, name = int(number), f"descriptor {mount_fds[int(index)]}"
            raise OSError(code, f"FIFREEZE: {os.strerror(code)}", name)
    if process.wait() == freezer.EXPIRED:
        raise _expired(bound_s)
    # Killed in between: any of them may be frozen, and whose freeze it was nobody can tell.
    for fd in reversed(mount_fds):
        _thaw(fd)
    raise Unavailable("the process that freezes filesystems ended before it had frozen them")


def _expired(bound_s: float) -> FreezeExpired:
    return FreezeExpired(f"the filesystem was thawed before the work was done ({bound_s:g} s)")


def _thaw(fd: int) -> bool:
    """Thaws; returns whether it was frozen."""
    try:
        syscalls.ioctl(fd, _FITHAW, name="FITHAW")
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        raise
    return True
