"""Project quotas of XFS and ext4: how much the members of a project may take together.

The commands are those that XFS brought in; the kernel answers them for every filesystem that has
quotas (Linux 4.1, fs/quota/quota.c), so ext4 needs none of its own. They go by descriptor, since
the device of a filesystem has no name in a container (quotactl_fd, Linux 5.14). See quotactl(2);
structures: linux/dqblk_xfs.h.

What was tried, on Linux 6.1:

- At the limit XFS answers ENOSPC, to root too; ext4 answers EDQUOT, and to nobody who has
  CAP_SYS_RESOURCE, which containers lack unless they are privileged.
- statfs(2) in a directory that hands its project on shows the limit as the size.
- Usage is as of now, and a number without any is like one that was never used.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass

from csi.linux import syscalls

_PROJECT = 2  # PRJQUOTA


def _command(number: int) -> int:
    return (ord("X") << 8 | number) << 8 | _PROJECT


_GET_QUOTA, _SET_LIMIT, _GET_STATE = _command(3), _command(4), _command(8)

# struct fs_disk_quota: version, flags, fields to set and number; then the limits of blocks (hard,
# soft) and inodes (hard, soft) and the two counts. Blocks are of 512 bytes.
_QUOTA_BYTES = 112
_QUOTA = struct.Struct("=bBHI6Q")
_QUOTA_VERSION = 1
_BLOCK_BYTES = 512
_SOFT_AND_HARD_BLOCKS = 4 | 8

# struct fs_quota_statv: version, padding and flags at its start.
_STATE_BYTES = 160
_STATE = struct.Struct("=bBH")
_STATE_VERSION = 1
_ENFORCED = 1 << 5  # FS_QUOTA_PDQ_ENFD

_NO_QUOTAS = (errno.ENOSYS, errno.ESRCH, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTBLK)


@dataclass(frozen=True, slots=True)
class ProjectUsage:
    """What the members of a project take, and may.

    Attributes:
        used_bytes: The blocks of its files and directories.
        inodes: How many of them there are.
        limit_bytes: What it may take, rounded up to 512; 0 for no limit.
        limited: Whether there is any limit, one on inodes included.
    """

    used_bytes: int
    inodes: int
    limit_bytes: int
    limited: bool

    @property
    def free(self) -> bool:
        """Whether nobody has anything to do with that number."""
        return not (self.used_bytes or self.inodes or self.limited)


def is_enforced(fd: int) -> bool:
    """Whether the filesystem of a descriptor holds projects to their limits.

    An ext4 that counts without the mount option `prjquota` does not.

    Raises:
        OSError: EIO and so on; EPERM without CAP_SYS_ADMIN.
    """
    state = bytearray(_STATE_BYTES)
    _STATE.pack_into(state, 0, _STATE_VERSION, 0, 0)
    try:
        syscalls.quotactl_fd(fd, _GET_STATE, 0, state)
    except OSError as error:
        if error.errno in _NO_QUOTAS:
            return False
        raise
    return bool(_STATE.unpack_from(state)[2] & _ENFORCED)


def limit(fd: int, project: int, max_bytes: int) -> None:
    """Sets how many bytes the members of a project may take together; 0 is no limit.

    Takes effect at once, and one below what is used only forbids to take more.

    Raises:
        OSError: ESRCH when there are no quotas.
    """
    blocks = -(-max_bytes // _BLOCK_BYTES)
    quota = bytearray(_QUOTA_BYTES)
    _QUOTA.pack_into(
        *(quota, 0, _QUOTA_VERSION, 0, _SOFT_AND_HARD_BLOCKS, project),
        *(blocks, 0, 0, 0, 0, 0),
    )
    syscalls.quotactl_fd(fd, _SET_LIMIT, project, quota)


def usage(fd: int, project: int) -> ProjectUsage:
    """Returns what a project takes and may take; one that nobody uses takes nothing.

    Raises:
        OSError: ESRCH when there are no quotas.
    """
    quota = bytearray(_QUOTA_BYTES)
    try:
        syscalls.quotactl_fd(fd, _GET_QUOTA, project, quota)
    except OSError as error:
        if error.errno == errno.ENOENT:  # XFS knows only those that were ever used
            return ProjectUsage(0, 0, 0, limited=False)
        raise
    _, _, _, _, hard, soft, inodes_hard, inodes_soft, blocks, inodes = _QUOTA.unpack_from(quota)
    return ProjectUsage(
        used_bytes=blocks * _BLOCK_BYTES,
        inodes=inodes,
        limit_bytes=hard * _BLOCK_BYTES,
        limited=bool(hard or soft or inodes_hard or inodes_soft),
    )
