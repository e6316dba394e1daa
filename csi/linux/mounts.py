"""Mounting by descriptor, unmounting, and reading what is mounted."""

from __future__ import annotations

import errno
import functools
import os
import re
import select
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from csi.linux import syscalls
from csi.linux.paths import is_mount_root

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_UMOUNT_NOFOLLOW = 8
_LOOKED_AT_S = 0.5
_PAUSE_S = 0.002
_STACK_LIMIT = 1000
_READ_TRIES = 5
_READ_BYTES = 1 << 14
_OPTION = re.compile(r'(?:[^,"]|"[^"]*"?)+')
_ESCAPE = re.compile(r"\\([0-7]{3})")

_MS_RDONLY, _MS_NOSUID, _MS_NODEV = 1, 2, 4
_MOUNT_FLAGS = {
    "ro": _MS_RDONLY,
    "rw": 0,
    "nosuid": _MS_NOSUID,
    "nodev": _MS_NODEV,
    "noexec": 8,
    "sync": 16,
    "dirsync": 128,
    "noatime": 1 << 10,
    "nodiratime": 1 << 11,
    "relatime": 1 << 21,
    "strictatime": 1 << 24,
    "lazytime": 1 << 25,
}

_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV, _ATTR_NOEXEC = 1, 2, 4, 8
_ATTR_ATIME_MASK, _ATTR_NODIRATIME = 0x70, 0x80
_ATIME_MODES = {"relatime": 0x00, "noatime": 0x10, "strictatime": 0x20}


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of /proc/self/mountinfo, as proc_pid_mountinfo(5) describes it.

    Attributes:
        mount_id: Unique while the mount exists; given out again later.
        parent_id: The mount that it is mounted on.
        device: st_dev of what is on it, as "major:minor".
        root: The directory of the filesystem that shows at the target; "//deleted" follows when
            it was removed meanwhile.
        target: Where it is mounted, as this process sees it.
        options: Those of the mount, such as "ro" or "nodev".
        fs_type: The filesystem's type.
        source: Its device, or whatever was named as one.
        super_options: Those of the filesystem, the same for all its mounts.
    """

    mount_id: int
    parent_id: int
    device: str
    root: str
    target: str
    options: frozenset[str]
    fs_type: str
    source: str
    super_options: frozenset[str]


def read_mounts() -> list[Mount]:
    """Returns every mount that this process sees, in the kernel's order, as of one moment.

    When mounts keep coming and going it returns the last of a few reads, which can lack one that
    was made or taken away during it. Lines that cannot be understood are left out.
    """
    found = (_parsed(line) for line in os.fsdecode(_read_mountinfo()).split("\n"))
    return [mount for mount in found if mount is not None]


class MountTable:
    """The table as of one moment, of which only the lines that are wanted are taken apart."""

    def __init__(self) -> None:
        self._content = _read_mountinfo()

    def having(self, *fields: str) -> list[Mount]:
        """Returns the mounts one of whose fields is any of these, in the kernel's order.

        Which field it is, is for the caller to look at.
        """
        found = (_parsed(os.fsdecode(line)) for line in self._lines_having(fields))
        return [mount for mount in found if mount is not None]

    def _lines_having(self, fields: Sequence[str]) -> list[bytes]:
        content, starts = self._content, set()
        for field in fields:
            word = b" %b " % _escaped(field)
            place = content.find(word)
            while place >= 0:
                starts.add(content.rfind(b"\n", 0, place) + 1)
                place = content.find(word, place + 1)
        return [content[start : content.find(b"\n", start)] for start in sorted(starts)]


def knows_filesystem(fs_type: str) -> bool:
    """Whether the kernel has a type of filesystem now; modules may bring it more."""
    with open("/proc/filesystems", encoding="ascii") as file:
        return any(line.split()[-1:] == [fs_type] for line in file)


def mount_containing(fd: int) -> Mount:
    """Returns the mount that a descriptor was opened through.

    Raises:
        OSError: ENOENT when that mount is detached or in another mount namespace.
    """
    found = syscalls.statx(
        fd, "", syscalls.AT_EMPTY_PATH | syscalls.AT_STATX_DONT_SYNC, syscalls.STATX_MNT_ID
    )
    for mount in read_mounts():
        if mount.mount_id == found.mount_id:
            return mount
    raise OSError(errno.ENOENT, "no such mount here", f"mount {found.mount_id}")


def mount_filesystem(
    device: str,
    target_fd: int,
    fs_type: str,
    *,
    options: Sequence[str] = (),
    read_only: bool = False,
) -> None:
    """Mounts a device onto the very inode that a descriptor refers to. mount(2).

    Set-user-ID bits and device nodes never count on it.

    Args:
        device: The path of a block device.
        target_fd: A descriptor of a directory; O_PATH is enough.
        fs_type: The filesystem's type as the kernel names it.
        options: Words of mount(8). Those of every filesystem become flags, the others are handed
            to the filesystem as they are.
        read_only: Mounts the filesystem itself read-only, whatever the options say.

    Raises:
        OSError: EBUSY, EINVAL for a bad superblock or option, and so on; E2BIG for options
            longer than a page.
    """
    flags = _MS_NOSUID | _MS_NODEV | (_MS_RDONLY if read_only else 0)
    for word in options:
        flags |= _MOUNT_FLAGS.get(word, 0)
    data = ",".join(word for word in options if word not in _MOUNT_FLAGS)
    syscalls.mount(device, f"/proc/self/fd/{target_fd}", fs_type, flags, data)


def bind_mount(
    source_fd: int,
    target_fd: int,
    *,
    read_only: bool = False,
    options: Sequence[str] = (),
    allow_devices: bool = False,
) -> None:
    """Shows a directory, file or device node at another place too.

    The mount appears there with its attributes, never for a moment without them, and on the very
    inodes that the descriptors refer to. What is mounted below the source does not come along.
    Nothing is said about propagation: under a shared parent the mount reaches the parent's peers.
    open_tree(2), mount_setattr(2), move_mount(2).

    Args:
        source_fd: A descriptor of what is to be shown; O_PATH is enough.
        target_fd: A descriptor of the place, a directory for a directory and a file otherwise.
        read_only: Makes this mount read-only; False leaves it as the source's mount is.
        options: noexec, noatime, nodiratime, relatime, strictatime and ro are obeyed, of two
            that contradict the later; others are left out, since they are the filesystem's.
        allow_devices: A device node can be opened through it; otherwise the mount is nodev.

    Raises:
        OSError: EINVAL when one is a directory and the other is not, and so on.
    """
    wanted, cleared = _attributes(options, read_only=read_only, allow_devices=allow_devices)
    tree = syscalls.open_tree(source_fd, syscalls.OPEN_TREE_CLONE | syscalls.OPEN_TREE_CLOEXEC)
    try:
        syscalls.mount_setattr(tree, wanted, cleared)
        syscalls.move_mount(tree, target_fd)
    finally:
        os.close(tree)


def once_free(call: Callable[[], None]) -> None:
    """Makes a call that mounts or unmounts, again while it is EBUSY, half a second at most.

    Whoever only looks at a mount keeps it busy for that moment: it cannot be unmounted, or its
    filesystem is still there when it is to be mounted in another way.

    Raises:
        OSError: EBUSY when it stays so, and what the call raises.
    """
    deadline = time.monotonic() + _LOOKED_AT_S
    while True:
        try:
            call()
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
        else:
            return
        time.sleep(_PAUSE_S)


def unmount(target: str) -> None:
    """Takes the topmost mount at a path away; a symlink there is not followed. umount2(2).

    Raises:
        OSError: EBUSY when something is open or mounted on it, EINVAL when it is no mount.
    """
    syscalls.umount2(target, _UMOUNT_NOFOLLOW)


def unmount_all(target: str) -> None:
    """Takes every mount at a path away, however many are stacked there; none is fine.

    Raises:
        OSError: EBUSY when one is in use, ENOENT when there is no such path.
    """
    for _ in range(_STACK_LIMIT):
        if not is_mount_root(target):
            return
        try:
            unmount(target)
        except OSError as error:
            # Somebody else took it away first.
            if error.errno != errno.EINVAL:
                raise
    raise OSError(errno.EBUSY, "mounts keep coming", target)


def _attributes(options: Sequence[str], *, read_only: bool, allow_devices: bool) -> tuple[int, int]:
    """Returns what mount_setattr has to set and to clear."""
    wanted, cleared = _ATTR_NOSUID, 0
    if allow_devices:
        cleared |= _ATTR_NODEV
    else:
        wanted |= _ATTR_NODEV
    if read_only or "ro" in options:
        wanted |= _ATTR_RDONLY
    if "noexec" in options:
        wanted |= _ATTR_NOEXEC
    if "nodiratime" in options:
        wanted |= _ATTR_NODIRATIME
    modes = [_ATIME_MODES[word] for word in options if word in _ATIME_MODES]
    if modes:
        wanted |= modes[-1]
        cleared |= _ATTR_ATIME_MASK  # the kernel wants it cleared whenever it is set
    return wanted, cleared


def _read_mountinfo() -> bytes:
    """Reads the whole table, again when it changed meanwhile.

    The kernel hands out about a page a read and the table may change between two. Polling the
    open file tells whether it did since it was opened: proc_pid_mounts(5).
    """
    content = b""
    for _ in range(_READ_TRIES):
        table = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        try:
            content = b""
            while part := os.read(table, _READ_BYTES):
                content += part
            poll = select.poll()
            poll.register(table, select.POLLERR | select.POLLPRI)
            if not poll.poll(0):
                break
        finally:
            os.close(table)
    return content


def _parsed(line: str) -> Mount | None:
    """Reads one line. Only blanks separate fields: names hold every other kind of white space."""
    fields = line.split(" ")
    try:
        separator = fields.index("-", 6)
        fs_type, source, super_options = fields[separator + 1 : separator + 4]
        return Mount(
            int(fields[0]),
            int(fields[1]),
            fields[2],
            _unescaped(fields[3]),
            _unescaped(fields[4]),
            _words(fields[5]),
            _unescaped(fs_type),
            _unescaped(source),
            _words(super_options),
        )
    except ValueError:
        return None


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


def _escaped(text: str) -> bytes:
    """Writes a name as the kernel does in the table."""
    for character in ("\\", " ", "\t", "\n"):
        text = text.replace(character, f"\\{ord(character):03o}")
    return os.fsencode(text)


@functools.lru_cache(maxsize=256)
def _words(text: str) -> frozenset[str]:
    """Splits options at commas; within quotes, as SELinux shows its contexts, they are none."""
    return frozenset(_OPTION.findall(text) if '"' in text else text.split(","))
