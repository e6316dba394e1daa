"""Whether anybody has a file open, asked of the kernel without a look at every process and device.

A write lease is granted only where no other open file description refers to the file: no
process's, and no loop device's either, which keeps the one that it was given. fcntl(2), F_SETLEASE.
"""

from __future__ import annotations

import fcntl
import signal

_F_SETSIG, _F_SETLEASE = 10, 1024


def is_open_elsewhere(fd: int) -> bool:
    """Whether a file may be open besides by this descriptor, which must be able to read it.

    O_PATH does not count as open. Where the kernel cannot tell, as on some filesystems or for a
    file of another user without CAP_LEASE, it may be. Who opens the file just then waits for the
    few microseconds that the lease is held.
    """
    try:
        # What would say that somebody waits: one that is ignored, in place of one that kills.
        fcntl.fcntl(fd, _F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, _F_SETLEASE, fcntl.F_WRLCK)
    except OSError:
        return True
    fcntl.fcntl(fd, _F_SETLEASE, fcntl.F_UNLCK)
    return False
