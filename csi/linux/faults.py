"""What the kernel shows to be wrong with a mounted filesystem.

There is no one place for it. Older kernels make a broken filesystem read-only, which shows in its
options; since 6.15 ext4 says `emergency_ro` or `shutdown` there instead, and counts its errors in
sysfs whatever it does about them. XFS shuts down and then answers EIO.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from csi.linux.mounts import Mount

BROKEN = (errno.EIO, errno.EUCLEAN, errno.ESHUTDOWN, errno.ENODEV, errno.ENXIO)
"""What a filesystem answers that has failed, or whose disk has."""


def find_fault(mount: Mount) -> str:
    """Returns what is wrong with the filesystem of a mount, or nothing.

    A filesystem that was mounted read-only is not at fault, one that has become so is. Nothing is
    written, and nothing read but the root's own attributes.
    """
    if "shutdown" in mount.super_options:
        return f"its {mount.fs_type} has shut down after an error"
    became_read_only = "ro" in mount.super_options and "rw" in mount.options
    if became_read_only or "emergency_ro" in mount.super_options:
        return f"its {mount.fs_type} has become read-only, after an error perhaps"
    errors = _recorded_errors(mount)
    if errors:
        return f"its {mount.fs_type} has recorded {errors} errors and needs fsck"
    try:
        os.stat(mount.target)
    except OSError as error:
        if error.errno in BROKEN:
            return f"its {mount.fs_type} has failed: {error.strerror}"
    return ""


def _recorded_errors(mount: Mount) -> int:
    """The errors that ext4 has met since it was last checked; they outlast being unmounted."""
    if mount.fs_type != "ext4":
        return 0
    path = f"/sys/fs/ext4/{os.path.basename(mount.source)}/errors_count"
    with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as attribute:
        return int(attribute.read())
    return 0
