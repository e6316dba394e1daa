"""The child that makes a call which a frozen filesystem would hold.

A script of its own that `csi.linux.bounded` starts, with nothing but the standard library. What
the kernel holds there is this process, out of reach of signals until somebody thaws, and not a
thread of the driver.

Arguments: the number of an open descriptor on the filesystem's root, the number of an ioctl, and
its argument in hexadecimal.

First it removes a name that does not exist. That changes nothing, and is held like any write. It
writes "writable" when it gets through, and then "done" with what the ioctl returned, or "failed"
with the errno.
"""

import contextlib
import fcntl
import os
import sys

NO_NAME = ".csi-local-path-is-it-frozen"


def main(fd: int, request: int, argument: bytearray) -> None:
    """Makes one call, as the module says."""
    # A read-only or broken filesystem is for the ioctl to tell.
    with contextlib.suppress(OSError):
        os.rmdir(NO_NAME, dir_fd=fd)
    tell("writable")
    try:
        tell(f"done {fcntl.ioctl(fd, request, argument)}")
    except OSError as error:
        tell(f"failed {error.errno}")


def tell(line: str) -> None:
    """Writes a line to the driver, which may have given up waiting."""
    with contextlib.suppress(BrokenPipeError):
        os.write(sys.stdout.fileno(), line.encode() + b"\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), bytearray.fromhex(sys.argv[3]))
