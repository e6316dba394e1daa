"""Projects: the number that XFS and ext4 keep with each file and directory to count space by.

A directory whose flag says so hands its number on to whatever is made in it, so a whole tree
carries one. The kernel refuses with EXDEV to rename or hard-link what belongs to another project
into such a directory, so nothing gets in uncounted.

**It does not hold a tenant who sets out to leave.** The owner of a file may change its number and
flag, without any privilege, as long as he is not in a user namespace of his own (Linux 4.5 to at
least 6.18, `fileattr_set_prepare` in fs/ioctl.c or fs/file_attr.c).

Numbers and structure: FS_IOC_FSGETXATTR in linux/fs.h, and ioctl_xfs_fsgetxattr(2).
"""

from __future__ import annotations

import errno
import struct
from typing import NamedTuple

from csi.linux import syscalls

NO_PROJECT = 0
"""The project of everything that nobody has given one; it has no limit."""

_GET = 0x801C581F
_SET = 0x401C5820
_BYTES = 28
_FLAGS_AT, _PROJECT_AT = 0, 12
_HANDED_ON = 0x200  # FS_XFLAG_PROJINHERIT
_UNKNOWN_HERE = (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL)


class Membership(NamedTuple):
    """The project of a directory, and whether it hands it on to what is made in it."""

    project: int
    handed_on: bool


def membership(fd: int) -> Membership:
    """Returns the project of an open directory.

    A filesystem that has no projects answers `NO_PROJECT`.

    Raises:
        OSError: EIO and so on.
    """
    try:
        flags, project = _read(_attributes(fd))
    except OSError as error:
        if error.errno in _UNKNOWN_HERE:
            return Membership(NO_PROJECT, handed_on=False)
        raise
    return Membership(project, bool(flags & _HANDED_ON))


def join(fd: int, project: int) -> None:
    """Makes an open directory a member of a project, and what will be made in it.

    What is in it already stays where it is.

    Raises:
        OSError: EOPNOTSUPP where there are no projects, ENOSPC or EDQUOT where that one is full.
    """
    attributes = _attributes(fd)
    flags, _ = _read(attributes)
    struct.pack_into("=I", attributes, _FLAGS_AT, flags | _HANDED_ON)
    struct.pack_into("=I", attributes, _PROJECT_AT, project)
    syscalls.ioctl(fd, _SET, attributes, name="FS_IOC_FSSETXATTR")


def _attributes(fd: int) -> bytearray:
    attributes = bytearray(_BYTES)
    syscalls.ioctl(fd, _GET, attributes, name="FS_IOC_FSGETXATTR")
    return attributes


def _read(attributes: bytearray) -> tuple[int, int]:
    (flags,) = struct.unpack_from("=I", attributes, _FLAGS_AT)
    (project,) = struct.unpack_from("=I", attributes, _PROJECT_AT)
    return flags, project
