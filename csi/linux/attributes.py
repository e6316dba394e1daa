"""Reading attributes of sysfs: short texts, made anew by the kernel at each opening."""

from __future__ import annotations

import os

_MOST_BYTES = 4096  # no attribute is longer


def read_attribute(path: str) -> str:
    """Returns the text of an attribute, without blanks around it.

    For what is read in every call: `open` asks the kernel seven things for it, this three.

    Raises:
        OSError: ENOENT when there is none, and so on.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.fsdecode(os.read(descriptor, _MOST_BYTES)).strip()
    finally:
        os.close(descriptor)
