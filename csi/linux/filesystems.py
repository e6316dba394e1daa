"""Making and telling filesystems: ext4, XFS and btrfs."""

from __future__ import annotations

import errno
import os
import re
import stat
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from csi.errors import ProgramFailed
from csi.linux.attributes import read_attribute
from csi.linux.growth import BTRFS_LEAST_BYTES, check_ext4, grow_mounted, resize_ext4
from csi.linux.programs import run
from csi.linux.superblock import filesystem_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from csi.linux.mounts import Mount

__all__ = [
    "FILESYSTEMS",
    "FilesystemType",
    "check_ext4",
    "filesystem_bytes",
    "grow_mounted",
    "has_journal",
    "kernel_version",
    "make_filesystem",
    "new_btrfs_identity",
    "probe",
    "resize_ext4",
]

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class FilesystemType:
    """A kind of filesystem that an image can hold.

    Attributes:
        name: As the kernel and mkfs name it.
        minimum_bytes: The smallest image that `make_filesystem` formats with no options.
        grows_online: It can be grown while it is mounted.
        least_grown_bytes: It cannot be grown to less.
        make: The start of the command line that makes one.
    """

    name: str
    minimum_bytes: int
    grows_online: bool
    make: tuple[str, ...]
    least_grown_bytes: int = 0


FILESYSTEMS: Mapping[str, FilesystemType] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            # The image is new and sparse, so nothing is discarded and no inode table zeroed: a
            # table that is zeroed lazily would fill the image with zeros once it is mounted.
            # -m 0: blocks that only root may take would be missing from the size asked for.
            FilesystemType(
                name="ext4",
                minimum_bytes=16 * _MIB,
                grows_online=True,
                make=(
                    *("mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "0"),
                    *("-E", "nodiscard,assume_storage_prezeroed=1"),
                ),
            ),
            # Sectors as large as the blocks of the loop devices it will be mounted through.
            FilesystemType(
                name="xfs",
                minimum_bytes=300 * _MIB,
                grows_online=True,
                make=("mkfs.xfs", "-q", "-f", "-K", "-s", "size=4096"),
            ),
            FilesystemType(
                name="btrfs",
                minimum_bytes=109 * _MIB,
                grows_online=True,
                make=("mkfs.btrfs", "-q", "-f", "-K"),
                least_grown_bytes=BTRFS_LEAST_BYTES,
            ),
        )
    }
)

_PROBED_BYTES = 128 << 10  # the superblock of btrfs is the last, at 64 KiB
_NOTHING_FOUND = 2


def make_filesystem(
    fs_type: str,
    path: str,
    *,
    label: str = "",
    options: Sequence[str] = (),
    timeout_s: float = 300,
    pass_fds: Sequence[int] = (),
) -> None:
    """Makes a filesystem in a new image file and syncs the image.

    Args:
        fs_type: A key of `FILESYSTEMS`.
        path: The image, or /proc/self/fd/N with N in `pass_fds`.
        label: At most 16 characters for ext4, 12 for xfs and 255 for btrfs.
        options: More words for mkfs.
        timeout_s: Seconds until mkfs is killed.
        pass_fds: Descriptors that mkfs has to see.

    Raises:
        ProgramFailed: mkfs failed; or it did not say so: of mkfs.btrfs one write and one sync may
            fail, the superblock's, and it ends with success.
        OSError: EEXIST when there is something in it already. Or the image could not be synced:
            mkfs.ext4 is content when its own sync fails.
    """
    _refuse_what_is_used(path, pass_fds)
    labelled = ("-L", label) if label else ()
    command = (*FILESYSTEMS[fs_type].make, *labelled, *options, path)
    run(command, timeout_s=timeout_s, pass_fds=pass_fds)
    image = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(image)
        filesystem_bytes(fs_type, image)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise ProgramFailed(f"mkfs.{fs_type}", 0, "it has left no filesystem") from error
    finally:
        os.close(image)


def probe(path: str, *, pass_fds: Sequence[int] = (), timeout_s: float = 60) -> str | None:
    """Returns the type of the filesystem on a device or in a file, or None when there is none.

    Anything else that is known by a signature is named, too: "LVM2_member", "crypto_LUKS", or
    "dos" and "gpt" for a partition table. blkid(8).

    Raises:
        OSError: It cannot be read, which blkid does not tell from nothing being there.
        ProgramFailed: Several signatures contradict each other.
    """
    device = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.pread(device, _PROBED_BYTES, 0)
    finally:
        os.close(device)
    command = ("blkid", "-p", "-s", "TYPE", "-s", "PTTYPE", "-o", "export", path)
    output = run(command, timeout_s=timeout_s, pass_fds=pass_fds, ok=(0, _NOTHING_FOUND))
    found = dict(line.split("=", 1) for line in output.splitlines() if "=" in line)
    return found.get("TYPE") or found.get("PTTYPE")


def new_btrfs_identity(path: str, *, pass_fds: Sequence[int] = (), timeout_s: float = 300) -> None:
    """Gives an unmounted btrfs another id, so that it can be mounted beside the one it copies.

    Kernels of 6.7 and later do not need it. btrfstune(8), metadata_uuid.

    Raises:
        ProgramFailed: btrfstune failed.
    """
    run(("btrfstune", "-f", "-m", path), timeout_s=timeout_s, pass_fds=pass_fds)


def has_journal(mount: Mount) -> bool:
    """Whether a mounted ext4 is known to have a journal: it can be made without."""
    attribute = f"/sys/fs/ext4/{os.path.basename(os.path.realpath(mount.source))}/journal_task"
    try:
        return read_attribute(attribute) not in ("", "<none>")
    except OSError:
        return False


def kernel_version() -> tuple[int, int]:
    """Returns the running kernel's version, such as (6, 7)."""
    release = os.uname().release
    match = re.match(r"([0-9]+)\.([0-9]+)", release)
    if match is None:
        raise OSError(errno.EINVAL, "the kernel's release has no version", release)
    return int(match[1]), int(match[2])


def _refuse_what_is_used(path: str, pass_fds: Sequence[int]) -> None:
    """Looks for a signature, except in a file without blocks, which can hold none."""
    state = os.stat(path)
    if stat.S_ISREG(state.st_mode) and state.st_blocks == 0:
        return
    found = probe(path, pass_fds=pass_fds)
    if found:
        raise OSError(errno.EEXIST, f"there is something on it already: {found}", path)
