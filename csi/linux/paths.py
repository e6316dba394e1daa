"""Opening below a directory, renaming, syncing and telling mounts from directories."""

from __future__ import annotations

import errno
import os

from csi.linux import syscalls

_RESOLVE_NO_XDEV = 1
_RESOLVE_NO_MAGICLINKS = 2
_RESOLVE_NO_SYMLINKS = 4
_RESOLVE_BENEATH = 8
_RESOLVE = _RESOLVE_NO_XDEV | _RESOLVE_NO_MAGICLINKS | _RESOLVE_NO_SYMLINKS | _RESOLVE_BENEATH
_RACED_TRIES = 64


def open_beneath(root: int, path: str, flags: int, mode: int = 0) -> int:
    """Opens a path below an open directory, and nothing else, close-on-exec.

    No symlink is followed anywhere in the path, no mount is crossed and `..` never leads out.
    `mode` counts only where `flags` create something. openat2(2).

    Raises:
        OSError: EXDEV when the path leads out of the directory or onto another mount, ELOOP when
            a part of it is a symlink, and what open(2) may raise.
    """
    makes = flags & os.O_CREAT or flags & os.O_TMPFILE == os.O_TMPFILE
    flags |= os.O_CLOEXEC
    for _ in range(_RACED_TRIES):
        try:
            return syscalls.openat2(root, path, flags, mode if makes else 0, _RESOLVE)
        except BlockingIOError:
            # Something was renamed anywhere on the machine while `..` was looked up.
            continue
    raise OSError(errno.EAGAIN, "openat2: renames kept coming in between", path)


def is_mount_root(path: str) -> bool:
    """Whether something is mounted at that very path: bind mounts of files count, too.

    A symlink at the end of the path is not followed, an automount is not set off and no server
    of a network filesystem is asked. statx(2), STATX_ATTR_MOUNT_ROOT.

    Raises:
        OSError: ENOENT and so on when there is no such path.
    """
    flags = syscalls.AT_SYMLINK_NOFOLLOW | syscalls.AT_NO_AUTOMOUNT | syscalls.AT_STATX_DONT_SYNC
    return _is_mount_root(syscalls.statx(syscalls.AT_FDCWD, path, flags, 0), path)


def is_mount_root_fd(fd: int) -> bool:
    """Whether the descriptor refers to the root of the mount that it was opened through."""
    flags = syscalls.AT_EMPTY_PATH | syscalls.AT_STATX_DONT_SYNC
    return _is_mount_root(syscalls.statx(fd, "", flags, 0), f"descriptor {fd}")


def sync_directory(fd: int) -> None:
    """Makes the names in an open directory durable. fsync(2)."""
    syscalls.fsync(fd)


def rename_noreplace(src_dir_fd: int, src: str, dst_dir_fd: int, dst: str) -> None:
    """Renames, and fails with EEXIST where there is something already. renameat2(2)."""
    syscalls.renameat2(src_dir_fd, src, dst_dir_fd, dst, syscalls.RENAME_NOREPLACE)


def _is_mount_root(found: syscalls.Statx, name: str) -> bool:
    if not found.attributes_mask & syscalls.STATX_ATTR_MOUNT_ROOT:
        raise OSError(errno.EOPNOTSUPP, "statx: Linux before 5.8 does not tell mounts", name)
    return bool(found.attributes & syscalls.STATX_ATTR_MOUNT_ROOT)
