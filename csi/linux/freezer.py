"""The child that holds a freeze: freezes, waits until its input ends or a bound runs out, thaws.

A script of its own that `csi.linux.freeze` starts, with nothing but the standard library. When the
driver is killed its end of the pipe closes, and nothing stays frozen.

Arguments: the bound in seconds, then the numbers of open descriptors, one a filesystem.

It writes one line: "frozen" and for each descriptor "own", or "busy" when somebody else had frozen
that filesystem already, who alone thaws it; or "failed", the index of the descriptor and the
errno, when nothing is left frozen. Its status is 0 when it was asked to thaw, 3 when the bound ran
out (without a line when it did before all were frozen), 1 when it failed, and 4 when the kernel did
not let it thaw all that it had frozen.
"""

import _thread
import ctypes
import errno
import fcntl
import os
import select
import signal
import sys

FIFREEZE = 0xC0045877
FITHAW = 0xC0045878
ASKED, FAILED, EXPIRED, STUCK = 0, 1, 3, 4
_TRIES, _PAUSE_S = 50, 0.02


class RefusalError(Exception):
    """The kernel did not sync or freeze one of the filesystems."""

    def __init__(self, index: int, number: int) -> None:
        self.index = index
        self.number = number


class Freeze:
    """What this process has frozen, shared by the thread that freezes and the one that watches.

    A freeze blocks until the filesystem is written back. The others must not stay frozen past
    the bound for that, hence the second thread.
    """

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self._own: list[int] = []
        self.status: int | None = None
        self.stuck = False

    def add(self, index: int, fd: int) -> str:
        """Freezes one more and says whose freeze it is."""
        try:
            fcntl.ioctl(fd, FIFREEZE, 0)
        except OSError as error:
            if error.errno == errno.EBUSY:
                return "busy"
            raise RefusalError(index, error.errno or errno.EIO) from None
        with self._lock:
            self._own.append(fd)
            if self.status is not None:
                self._thaw()
        return "own"

    def end(self, status: int) -> None:
        """Thaws all, now and what is added later; the first reason given is the one that counts."""
        with self._lock:
            if self.status is None:
                self.status = status
            self._thaw()

    def _thaw(self) -> None:
        while self._own:
            self.stuck |= not thaw(self._own.pop())


def thaw(fd: int) -> bool:
    """Thaws a filesystem; returns whether it is thawed. The kernel may refuse it for a while."""
    for _ in range(_TRIES):
        try:
            fcntl.ioctl(fd, FITHAW, 0)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return True  # somebody else has thawed it meanwhile
        else:
            return True
        select.select([], [], [], _PAUSE_S)
    return False


def main(bound_s: float, fds: list[int]) -> int:
    """Holds one freeze, as the module says, and returns the status to end with."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    freeze = Freeze()
    watched = _thread.allocate_lock()
    watched.acquire()
    try:
        sync(fds)
        _thread.start_new_thread(watch, (freeze, bound_s, watched))
        states = [freeze.add(index, fd) for index, fd in enumerate(fds)]
    except RefusalError as refusal:
        freeze.end(FAILED)
        tell(f"failed {refusal.index} {refusal.number}")
        return FAILED
    if freeze.status is None:
        tell(" ".join(["frozen", *states]))
    watched.acquire()
    if freeze.stuck:
        return STUCK
    return EXPIRED if freeze.status is None else freeze.status


def watch(freeze: Freeze, bound_s: float, watched: _thread.LockType) -> None:
    """Ends the freeze when the input does, or when the bound has run out."""
    asked, _, _ = select.select([sys.stdin.fileno()], [], [], bound_s)
    freeze.end(ASKED if asked else EXPIRED)
    watched.release()


def sync(fds: list[int]) -> None:
    """Writes back what is dirty before anything stops, so that the freeze itself is short."""
    libc = ctypes.CDLL(None, use_errno=True)
    for index, fd in enumerate(fds):
        if libc.syncfs(fd) != 0:
            raise RefusalError(index, ctypes.get_errno())


def tell(line: str) -> None:
    """Writes a line to the driver; when that is gone, the input has ended, too."""
    try:
        os.write(sys.stdout.fileno(), line.encode() + b"\n")
    except BrokenPipeError:
        return


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), [int(word) for word in sys.argv[2:]]))
