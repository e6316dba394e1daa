"""Which system calls change the state of disks, mounts and loop devices: the points of a sweep."""

import contextlib
import os
import struct
from collections.abc import Callable

from tests.crash import ptrace

_IOCTLS = {
    0x40049409: "FICLONE",
    0xC0045877: "FIFREEZE",
    0xC0045878: "FITHAW",
    0x4C0A: "LOOP_CONFIGURE",
    0x4C01: "LOOP_CLR_FD",
    0x4C07: "LOOP_SET_CAPACITY",
    0x4C82: "LOOP_CTL_GET_FREE",
    0x4010586E: "XFS_IOC_FSGROWFSDATA",
    0x40086610: "EXT4_IOC_RESIZE_FS",
    0x50009403: "BTRFS_IOC_RESIZE",
    0x4008941A: "BTRFS_IOC_SUBVOL_SETFLAGS",
    0x50009418: "BTRFS_IOC_SUBVOL_CREATE_V2",
    0x50009417: "BTRFS_IOC_SNAP_CREATE_V2",
    0x80089418: "BTRFS_IOC_START_SYNC",
    0x41009432: "BTRFS_IOC_SET_FSLABEL",
    0x5000943F: "BTRFS_IOC_SNAP_DESTROY_V2",
    0x5000940F: "BTRFS_IOC_SNAP_DESTROY",
    0xC0109428: "BTRFS_IOC_QUOTA_CTL",
    0x40189429: "BTRFS_IOC_QGROUP_ASSIGN",
    0x4010942A: "BTRFS_IOC_QGROUP_CREATE",
    0x8030942B: "BTRFS_IOC_QGROUP_LIMIT",
    0x1261: "BLKFLSBUF",
    0x40086602: "FS_IOC_SETFLAGS",
    0x401C5820: "FS_IOC_FSSETXATTR",
}
_O_TMPFILE = 0o20200000
_MAKES = os.O_CREAT | os.O_TRUNC
_IGNORED = ("/dev/null", "/proc/", "/sys/")


class Watcher:
    """Tells the calls that change something from all others.

    Args:
        below: Folders; of what happens to files elsewhere nothing counts, so that the driver's
            log and its sockets are no points. Devices count always.
    """

    def __init__(self, below: tuple[str, ...]) -> None:
        self._below = below

    def describe(self, task: int, entry: ptrace.Entry) -> str | None:
        """Returns the call in words, or None for one that changes nothing."""
        found = _CALLS.get(entry.number)
        if found is None:
            return None
        name, look = found
        try:
            what = look(self, task, entry.arguments)
        except (OSError, struct.error):
            return name  # its arguments are no good and it will fail, which is a point as well
        return None if what is None else f"{name}({what})"

    def fd(self, task: int, arguments: tuple[int, ...]) -> str | None:
        """The file behind the descriptor that is the first argument."""
        path = os.readlink(f"/proc/{task}/fd/{arguments[0] & 0xFFFFFFFF}")
        # The driver touches its lock every few seconds to see whether the pool takes writes.
        if path.endswith("/pool.json"):
            return None
        return path if path.startswith(("/dev/loop", *self._below)) else None

    def opened(self, task: int, arguments: tuple[int, ...]) -> str | None:
        """The file that openat(2) makes or empties."""
        flags = arguments[2] & 0xFFFFFFFF
        return self._made(task, arguments, flags)

    def opened2(self, task: int, arguments: tuple[int, ...]) -> str | None:
        """The file that openat2(2) makes or empties."""
        (flags,) = struct.unpack("=Q", ptrace.read_memory(task, arguments[2], 8))
        return self._made(task, arguments, flags)

    def _made(self, task: int, arguments: tuple[int, ...], flags: int) -> str | None:
        if not flags & _MAKES and flags & _O_TMPFILE != _O_TMPFILE:
            return None
        path = ptrace.read_string(task, arguments[1])
        directory = arguments[0] & 0xFFFFFFFF
        if not path.startswith("/") and directory != 0xFFFFFF9C:
            path = os.path.join(os.readlink(f"/proc/{task}/fd/{directory}"), path)
        if path.startswith(_IGNORED) and not path.startswith("/proc/self/fd/"):
            return None
        if path.startswith("/") and not path.startswith((*self._below, "/proc/self/fd/")):
            return None
        return path

    def path_at(self, task: int, arguments: tuple[int, ...]) -> str | None:
        """The path that is the second argument, after a directory."""
        return ptrace.read_string(task, arguments[1])

    def path(self, task: int, arguments: tuple[int, ...]) -> str | None:
        """The path that is the first argument."""
        return ptrace.read_string(task, arguments[0])

    def mounted(self, task: int, arguments: tuple[int, ...]) -> str | None:
        """The source that mount(2) mounts."""
        return ptrace.read_string(task, arguments[0])

    def ioctl(self, task: int, arguments: tuple[int, ...]) -> str | None:
        """The name of an ioctl that changes something."""
        return _IOCTLS.get(arguments[1] & 0xFFFFFFFF)

    def always(self, task: int, arguments: tuple[int, ...]) -> str | None:
        """Whatever it is."""
        del task, arguments
        return ""


_Look = Callable[[Watcher, int, tuple[int, ...]], str | None]
_CALLS: dict[int, tuple[str, _Look]] = {
    1: ("write", Watcher.fd),
    16: ("ioctl", Watcher.ioctl),
    18: ("pwrite64", Watcher.fd),
    20: ("writev", Watcher.fd),
    74: ("fsync", Watcher.fd),
    75: ("fdatasync", Watcher.fd),
    77: ("ftruncate", Watcher.fd),
    82: ("rename", Watcher.path),
    83: ("mkdir", Watcher.path),
    84: ("rmdir", Watcher.path),
    86: ("link", Watcher.path),
    87: ("unlink", Watcher.path),
    165: ("mount", Watcher.mounted),
    166: ("umount2", Watcher.path),
    257: ("openat", Watcher.opened),
    258: ("mkdirat", Watcher.path_at),
    259: ("mknodat", Watcher.path_at),
    263: ("unlinkat", Watcher.path_at),
    264: ("renameat", Watcher.path_at),
    265: ("linkat", Watcher.path_at),
    277: ("sync_file_range", Watcher.fd),
    285: ("fallocate", Watcher.fd),
    296: ("pwritev", Watcher.fd),
    306: ("syncfs", Watcher.fd),
    316: ("renameat2", Watcher.path_at),
    326: ("copy_file_range", Watcher.always),
    428: ("open_tree", Watcher.always),
    429: ("move_mount", Watcher.always),
    437: ("openat2", Watcher.opened2),
    442: ("mount_setattr", Watcher.always),
}


_OF_FILES = ("FICLONE", "_IOC_S")
_NOT_OF_FILES = ("ioctl(", "mount", "umount2", "open_tree", "move_mount")


def is_of_files(call: str) -> bool:
    """Whether a call, as `describe` words it, is one that a disk which has died would fail."""
    return not call.startswith(_NOT_OF_FILES) or any(word in call for word in _OF_FILES)


def task_group(task: int) -> int:
    """Returns the process that a thread belongs to."""
    with (
        contextlib.suppress(FileNotFoundError),
        open(f"/proc/{task}/status", encoding="ascii") as status,
    ):
        for line in status:
            if line.startswith("Tgid:"):
                return int(line.split()[1])
    return task
