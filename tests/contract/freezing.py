"""Holding a filesystem still from outside the driver, and telling whether somebody does."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from tests.disks import opened

_FIFREEZE = 0xC0045877
_FITHAW = 0xC0045878


@contextlib.contextmanager
def frozen(path: Path) -> Iterator[None]:
    """Freezes the filesystem at a path for the body of a `with`, as fsfreeze(8) does."""
    with opened(path, os.O_RDONLY) as descriptor:
        fcntl.ioctl(descriptor, _FIFREEZE, 0)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                fcntl.ioctl(descriptor, _FITHAW, 0)


def freeze(path: Path) -> None:
    """Freezes the filesystem at a path and forgets it, as a hook does that fails halfway."""
    with opened(path, os.O_RDONLY) as descriptor:
        fcntl.ioctl(descriptor, _FIFREEZE, 0)


def thaw(path: Path) -> bool:
    """Thaws the filesystem at a path; returns whether it was frozen."""
    with opened(path, os.O_RDONLY) as descriptor:
        try:
            fcntl.ioctl(descriptor, _FITHAW, 0)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return False
        return True
