"""The raw system calls that Python lacks, for this package only; section 2 of the manual.

One C library handle with typed arguments; ctypes releases the interpreter lock in each call, which
`fcntl.ioctl` does not do for arguments above 1,024 bytes (a btrfs snapshot would stop every thread
of the driver). A call that a signal interrupted is made again: none of those below has done
anything when it answers EINTR.

A failed call is an `OSError` whose message starts with the call's name and whose `filename` is the
path it was given, or the name when it was given none.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_NO_AUTOMOUNT = 0x800
AT_EMPTY_PATH = 0x1000
AT_STATX_DONT_SYNC = 0x4000

STATX_MNT_ID = 0x1000
STATX_ATTR_MOUNT_ROOT = 0x2000

OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_T_EMPTY_PATH = 0x40

RENAME_NOREPLACE = 1

_WRITE_AND_WAIT = 1 | 2 | 4  # SYNC_FILE_RANGE_WAIT_BEFORE, _WRITE, _WAIT_AFTER

_STRUCT_STATX_BYTES = 256
_STRUCT_STATFS_BYTES = 256
_OPTIONS_LIMIT_BYTES = 4096

_libc = ctypes.CDLL(None, use_errno=True)
_int, _uint, _long, _ulong = ctypes.c_int, ctypes.c_uint, ctypes.c_long, ctypes.c_ulong
_text, _pointer, _size = ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t


def _typed(name: str, *arguments: type, result: type = _int) -> Callable[..., int]:
    function = _libc[name]  # a new object each time, so that `syscall` can be typed many times
    function.argtypes = list(arguments)
    function.restype = result
    return function


def _numbered(number: int, *arguments: type) -> Callable[..., int]:
    return functools.partial(_typed("syscall", _long, *arguments, result=_long), number)


_ioctl = _typed("ioctl", _int, _ulong, _pointer)
_statx = _typed("statx", _int, _text, _int, _uint, _pointer)
_renameat2 = _typed("renameat2", _int, _text, _int, _text, _uint)
_fsync = _typed("fsync", _int)
_sync_file_range = _typed("sync_file_range", _int, ctypes.c_int64, ctypes.c_int64, _uint)
_fallocate = _typed("fallocate", _int, _int, ctypes.c_int64, ctypes.c_int64)
_fstatfs = _typed("fstatfs", _int, _pointer)
_mount = _typed("mount", _text, _text, _text, _ulong, _text)
_umount2 = _typed("umount2", _text, _int)
_open_by_handle_at = _typed("open_by_handle_at", _int, _pointer, _int)
# By number, because C libraries of 2021 do not name them yet; the same on every architecture.
_open_tree = _numbered(428, _int, _text, _uint)
_move_mount = _numbered(429, _int, _text, _int, _text, _uint)
_openat2 = _numbered(437, _int, _text, _pointer, _size)
_mount_setattr = _numbered(442, _int, _text, _uint, _pointer, _size)
_file_getattr = _numbered(468, _int, _text, _pointer, _size, _uint)
_file_setattr = _numbered(469, _int, _text, _pointer, _size, _uint)
_quotactl_fd = _numbered(443, _uint, _uint, _uint, _pointer)


class Statx(NamedTuple):
    """The part of struct statx that is used here."""

    mask: int
    attributes: int
    attributes_mask: int
    mount_id: int


def ioctl(fd: int, request: int, argument: bytearray | int = 0, *, name: str) -> int:
    """Makes an ioctl; a bytearray is read and written in place. Returns what the call returned."""
    if isinstance(argument, int):
        return _call(name, None, _ioctl, fd, request, argument)
    buffer = (ctypes.c_char * len(argument)).from_buffer(argument)
    return _call(name, None, _ioctl, fd, request, ctypes.addressof(buffer))


def openat2(root: int, path: str, flags: int, mode: int, resolve: int) -> int:
    """Opens a path."""
    how = _open_how(flags, mode, resolve)
    return _call("openat2", path, _openat2, root, _encoded(path), how, 24)


@functools.lru_cache
def _open_how(flags: int, mode: int, resolve: int) -> ctypes.Array[ctypes.c_char]:
    """Fills struct open_how, which the kernel only reads."""
    return ctypes.create_string_buffer(struct.pack("=QQQ", flags, mode, resolve), 24)


def statx(directory: int, path: str, flags: int, mask: int) -> Statx:
    """Asks about a path, or with AT_EMPTY_PATH about a descriptor."""
    buffer = ctypes.create_string_buffer(_STRUCT_STATX_BYTES)
    _call("statx", path or None, _statx, directory, _encoded(path), flags, mask, buffer)
    got, _, attributes = struct.unpack_from("=IIQ", buffer, 0)
    (attributes_mask,) = struct.unpack_from("=Q", buffer, 0x38)
    (mount_id,) = struct.unpack_from("=Q", buffer, 0x90)
    return Statx(got, attributes, attributes_mask, mount_id)


def renameat2(source: int, source_name: str, target: int, target_name: str, flags: int) -> None:
    """Renames."""
    names = _encoded(source_name), _encoded(target_name)
    _call("renameat2", target_name, _renameat2, source, names[0], target, names[1], flags)


def file_getattr(directory: int, name: str, attributes: bytearray) -> None:
    """Fills in the flags of a name, which is not opened nor followed. Linux 6.17."""
    _file_attributes("file_getattr", _file_getattr, directory, name, attributes)


def file_setattr(directory: int, name: str, attributes: bytearray) -> None:
    """Sets the flags of a name, which is not opened nor followed. Linux 6.17."""
    _file_attributes("file_setattr", _file_setattr, directory, name, attributes)


def _file_attributes(
    call: str, function: Callable[..., int], directory: int, name: str, attributes: bytearray
) -> None:
    buffer = (ctypes.c_char * len(attributes)).from_buffer(attributes)
    _call(
        call,
        name,
        function,
        directory,
        _encoded(name),
        ctypes.addressof(buffer),
        len(attributes),
        AT_SYMLINK_NOFOLLOW,
    )


def fsync(fd: int) -> None:
    """Writes back one file."""
    _call("fsync", None, _fsync, fd)


def write_back(fd: int) -> None:
    """Writes a file's dirty pages and waits for them; neither disk caches nor names are synced."""
    _call("sync_file_range", None, _sync_file_range, fd, 0, 0, _WRITE_AND_WAIT)


def fallocate(fd: int, offset: int, length: int) -> None:
    """Allocates; posix_fallocate(3) would write zeros where the call is missing."""
    _call("fallocate", None, _fallocate, fd, 0, offset, length)


def filesystem_magic(fd: int) -> int:
    """The f_type of fstatfs(2)."""
    buffer = ctypes.create_string_buffer(_STRUCT_STATFS_BYTES)
    _call("fstatfs", None, _fstatfs, fd, buffer)
    return int(struct.unpack_from("=q", buffer, 0)[0]) & 0xFFFFFFFF


def mount(source: str, target: str, fs_type: str, flags: int, data: str) -> None:
    """Mounts. Options longer than a page, which the kernel cuts off silently, are E2BIG."""
    words = _encoded(data)
    if len(words) >= _OPTIONS_LIMIT_BYTES:
        raise OSError(errno.E2BIG, "mount: the options are longer than a page", target)
    call = _encoded(source), _encoded(target), _encoded(fs_type), flags, words
    _call("mount", target, _mount, *call)


def umount2(target: str, flags: int) -> None:
    """Unmounts."""
    _call("umount2", target, _umount2, _encoded(target), flags)


def open_tree(fd: int, flags: int) -> int:
    """Opens the very directory or file of a descriptor as a tree."""
    return _call("open_tree", None, _open_tree, fd, b"", flags | AT_EMPTY_PATH)


def mount_setattr(fd: int, set_: int, clear: int) -> None:
    """Changes the mount of a descriptor, not those below it."""
    attributes = ctypes.create_string_buffer(struct.pack("=QQQQ", set_, clear, 0, 0), 32)
    _call("mount_setattr", None, _mount_setattr, fd, b"", AT_EMPTY_PATH, attributes, 32)


def move_mount(tree: int, target: int) -> None:
    """Mounts a detached tree onto the very inode of a descriptor."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
    _call("move_mount", None, _move_mount, tree, b"", target, b"", flags)


def open_by_handle(mount_fd: int, handle_type: int, handle: bytes, flags: int) -> int:
    """Opens a file handle, close-on-exec."""
    packed = struct.pack("=Ii", len(handle), handle_type) + handle
    buffer = ctypes.create_string_buffer(packed, len(packed))
    call = mount_fd, buffer, flags | os.O_CLOEXEC
    return _call("open_by_handle_at", None, _open_by_handle_at, *call)


def quotactl_fd(fd: int, command: int, number: int, argument: bytearray) -> None:
    """Makes a call on quotas; the argument is read and written in place."""
    buffer = (ctypes.c_char * len(argument)).from_buffer(argument)
    address = ctypes.addressof(buffer)
    _call("quotactl_fd", None, _quotactl_fd, fd, command, number, address)


def _encoded(text: str) -> bytes:
    """Encodes like the os module, and like it refuses what C would read as the end."""
    if "\0" in text:
        raise ValueError("embedded null byte")
    return os.fsencode(text)


def _call(name: str, path: str | None, function: Callable[..., int], *arguments: object) -> int:
    while (result := function(*arguments)) == -1:
        number = ctypes.get_errno()
        if number != errno.EINTR:
            raise OSError(number, f"{name}: {os.strerror(number)}", path or name)
    return result
