"""btrfs subvolumes and snapshots. Numbers and structures: linux/btrfs.h."""

from __future__ import annotations

import errno
import os
import struct

from csi.linux import syscalls
from csi.linux.attributes import read_attribute

_FS_INFO, _FS_INFO_BYTES = 0x8400941F, 1024
_MAGIC = 0x9123683E
_ROOT_INODE = 256  # of every subvolume, and of nothing else

_SUBVOL_CREATE_V2 = 0x50009418
_SNAP_CREATE_V2 = 0x50009417
_SNAP_DESTROY_V2 = 0x5000943F
_SUBVOL_GETFLAGS = 0x80089419
_SUBVOL_SETFLAGS = 0x4008941A
_INO_LOOKUP = 0xD0009412
_GET_SUBVOL_ROOTREF = 0xD000943D
_GET_LABEL, _SET_LABEL, _LABEL_BYTES = 0x81009431, 0x41009432, 256
_START_SYNC, _TRANSACTION_BYTES = 0x80089418, 8

_READ_ONLY = 1 << 1
_SPEC_BY_ID = 1 << 4
_ARGUMENT_BYTES = 4096
_NAME_AT, _NAME_LIMIT_BYTES = 56, 4039
_ROOTREF_COUNT_AT = 4088

_HANDLE_WITHOUT_PARENT = 0x4D  # FILEID_BTRFS_WITHOUT_PARENT of the kernel's linux/exportfs.h


def sysfs_folder(fd: int) -> str:
    """Returns where the kernel shows the state of the btrfs that a descriptor is on.

    Raises:
        OSError: ENOTTY when it is no btrfs.
    """
    info = bytearray(_FS_INFO_BYTES)
    syscalls.ioctl(fd, _FS_INFO, info, name="BTRFS_IOC_FS_INFO")
    digits = info[16:32].hex()
    parts = digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]
    return f"/sys/fs/btrfs/{'-'.join(parts)}"


def pending_bytes(folder: str) -> int:
    """Returns the data bytes that a btrfs has taken since its last commit.

    statvfs(3) shows them as free until then, which can be 30 s. `folder` is its `sysfs_folder`.
    """
    names = ("bytes_may_use", "bytes_reserved")
    return sum(int(read_attribute(f"{folder}/allocation/data/{name}")) for name in names)


def is_btrfs(fd: int) -> bool:
    """Whether a descriptor, which may be O_PATH, is on btrfs."""
    return syscalls.filesystem_magic(fd) == _MAGIC


def is_subvolume(fd: int) -> bool:
    """Whether a descriptor refers to the top directory of a btrfs subvolume or snapshot."""
    return os.fstat(fd).st_ino == _ROOT_INODE and is_btrfs(fd)


def subvolume_id(fd: int) -> int:
    """Returns the id of the subvolume that a directory or file is in; none is used twice."""
    argument = bytearray(_ARGUMENT_BYTES)
    struct.pack_into("=QQ", argument, 0, 0, _ROOT_INODE)
    syscalls.ioctl(fd, _INO_LOOKUP, argument, name="BTRFS_IOC_INO_LOOKUP")
    (found,) = struct.unpack_from("=Q", argument, 0)
    return int(found)


def create(parent_fd: int, name: str) -> None:
    """Makes an empty subvolume in an open directory.

    With simple quotas it belongs to the groups of the subvolume that the directory is in, unless
    who makes it says otherwise: see `csi.linux.quota`.

    Raises:
        OSError: EEXIST, ENOSPC, EDQUOT and so on.
    """
    argument = _named(name)
    syscalls.ioctl(parent_fd, _SUBVOL_CREATE_V2, argument, name="BTRFS_IOC_SUBVOL_CREATE_V2")


def snapshot(source_fd: int, parent_fd: int, name: str, *, read_only: bool) -> None:
    """Makes a snapshot of a subvolume in an open directory of the same filesystem.

    Costs 1 to 2 ms and the write-back of what is dirty in the source. Subvolumes inside the source
    are empty directories in the snapshot.

    Raises:
        OSError: EINVAL when the source is no subvolume, EEXIST, EXDEV and so on.
    """
    argument = _named(name, source_fd, _READ_ONLY if read_only else 0)
    syscalls.ioctl(parent_fd, _SNAP_CREATE_V2, argument, name="BTRFS_IOC_SNAP_CREATE_V2")


def destroy(parent_fd: int, name: str) -> None:
    """Destroys a subvolume in an open directory with all that is in it, read-only or not.

    The names are gone at once; the space comes back in the background.

    Raises:
        OSError: ENOTEMPTY when there is another subvolume in it, ENOENT, ENOTDIR, EBUSY when
            something is mounted on it.
    """
    argument = _named(name)
    syscalls.ioctl(parent_fd, _SNAP_DESTROY_V2, argument, name="BTRFS_IOC_SNAP_DESTROY_V2")


def destroy_by_id(fd: int, subvolume_id: int) -> None:
    """Destroys that very subvolume of the filesystem of `fd`, wherever its name has moved to.

    Raises:
        OSError: As `destroy`; EROFS when the subvolume that it is in is read-only.
    """
    argument = bytearray(_ARGUMENT_BYTES)
    struct.pack_into("=qQQ", argument, 0, 0, 0, _SPEC_BY_ID)
    struct.pack_into("=Q", argument, _NAME_AT, subvolume_id)
    syscalls.ioctl(fd, _SNAP_DESTROY_V2, argument, name="BTRFS_IOC_SNAP_DESTROY_V2")


def commit(fd: int) -> None:
    """Commits to the disk what has been done to a btrfs so far, and returns when it is there.

    Unlike syncfs(2) it does not write back what other files hold, which may be any amount of a
    tenant's: only what is in the trees by now. Giving the filesystem the label that it has is what
    commits so, in the caller's own context; a label that somebody else sets in the same moment is
    lost. ioctls BTRFS_IOC_GET_FSLABEL and _SET_FSLABEL.

    Raises:
        OSError: ENOTTY when it is no btrfs: others have labels too, and commit nothing for them;
            EIO, EROFS and so on: it could not, and the filesystem takes nothing any more.
    """
    if not is_btrfs(fd):
        raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY), "BTRFS_IOC_SET_FSLABEL")
    label = bytearray(_LABEL_BYTES)
    syscalls.ioctl(fd, _GET_LABEL, label, name="BTRFS_IOC_GET_FSLABEL")
    syscalls.ioctl(fd, _SET_LABEL, label, name="BTRFS_IOC_SET_FSLABEL")


def start_commit(fd: int) -> None:
    """Has the kernel commit a btrfs in the background; not for what anybody waits for.

    From Linux 5.17 on its cleaner begins after that to free what destroyed subvolumes held, which
    is there after one more commit; older kernels begin each half minute. Now and then the kernel
    misses the request, when its thread is just about to sleep, and commits half a minute later:
    seen on 6.18, and whoever waits by BTRFS_IOC_WAIT_SYNC waits as long. ioctl
    BTRFS_IOC_START_SYNC.
    """
    transaction = bytearray(_TRANSACTION_BYTES)
    syscalls.ioctl(fd, _START_SYNC, transaction, name="BTRFS_IOC_START_SYNC")


def open_by_id(fd: int, subvolume_id: int) -> int:
    """Opens the top directory of a subvolume of the filesystem of `fd`, by no path.

    open_by_handle_at(2); a generation of 0 in the handle is any.

    Raises:
        OSError: ESTALE when there is no such subvolume any more.
    """
    handle = struct.pack("=QQI", _ROOT_INODE, subvolume_id, 0)
    flags = os.O_RDONLY | os.O_DIRECTORY
    return syscalls.open_by_handle(fd, _HANDLE_WITHOUT_PARENT, handle, flags)


def nested(fd: int) -> list[int]:
    """Returns the ids of the subvolumes directly inside the subvolume of a descriptor."""
    found: list[int] = []
    start, complete = 0, False
    while not complete:
        argument = bytearray(_ARGUMENT_BYTES)
        struct.pack_into("=Q", argument, 0, start)
        complete = _rootrefs(fd, argument)
        references = struct.unpack_from(f"={2 * argument[_ROOTREF_COUNT_AT]}Q", argument, 8)
        found += references[::2]
        start = found[-1] + 1 if found else 0
    return found


def descendants(fd: int) -> list[int]:
    """Returns the ids of all subvolumes inside the subvolume of a descriptor, at any depth."""
    found = nested(fd)
    for number in found:  # which grows meanwhile
        try:
            child = open_by_id(fd, number)
        except OSError as error:
            if error.errno == errno.ESTALE:
                continue
            raise
        try:
            found += nested(child)
        finally:
            os.close(child)
    return found


def is_read_only(fd: int) -> bool:
    """Whether the subvolume of a descriptor is read-only by its own flag."""
    flags = bytearray(8)
    syscalls.ioctl(fd, _SUBVOL_GETFLAGS, flags, name="BTRFS_IOC_SUBVOL_GETFLAGS")
    return bool(int.from_bytes(flags, "little") & _READ_ONLY)


def set_read_only(fd: int, read_only: bool) -> None:
    """Sets or clears that flag, given the top directory of the subvolume."""
    flags = bytearray(struct.pack("=Q", _READ_ONLY if read_only else 0))
    syscalls.ioctl(fd, _SUBVOL_SETFLAGS, flags, name="BTRFS_IOC_SUBVOL_SETFLAGS")


def _named(name: str, fd: int = 0, flags: int = 0) -> bytearray:
    """Fills struct btrfs_ioctl_vol_args_v2."""
    encoded = os.fsencode(name)
    if b"\0" in encoded:
        raise ValueError("embedded null byte")
    if len(encoded) > _NAME_LIMIT_BYTES:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), name)
    argument = bytearray(_ARGUMENT_BYTES)
    struct.pack_into("=qQQ", argument, 0, fd, 0, flags)
    argument[_NAME_AT : _NAME_AT + len(encoded)] = encoded
    return argument


def _rootrefs(fd: int, argument: bytearray) -> bool:
    """Asks for up to 255 references; returns whether there are no more."""
    try:
        syscalls.ioctl(fd, _GET_SUBVOL_ROOTREF, argument, name="BTRFS_IOC_GET_SUBVOL_ROOTREF")
    except OSError as error:
        if error.errno != errno.EOVERFLOW:
            raise
        return False
    return True
