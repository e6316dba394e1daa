"""Making a pool: of a directory that is there, in a file, or on a disk.

This is the explicit step that gives a directory its mark. Where it makes a filesystem it makes one
that can reflink, so that snapshots and clones cost next to nothing.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass

from csi.errors import InvalidRequest
from csi.linux import filesystems, loop, mounts, quota
from csi.linux.copying import can_clone
from csi.linux.paths import is_mount_root
from csi.linux.subvolume import is_btrfs
from csi.pool.mark import create_mark

POOL_FILESYSTEMS = ("xfs", "btrfs")


@dataclass(frozen=True, slots=True)
class Made:
    """What was made.

    Attributes:
        uuid: The pool's identity.
        reflink: Whether snapshots and clones of images share blocks.
        directory_quota: Whether directories can be held to their size.
        fstab: The line that mounts it again after a reboot; empty where nothing was mounted.
    """

    uuid: str
    reflink: bool
    directory_quota: bool
    fstab: str = ""


def create_in_directory(path: str, fstab: str = "") -> Made:
    """Makes a pool of a directory, which is made if only it is missing.

    On btrfs it turns simple quotas on, since nothing else there holds a directory to its size.

    Raises:
        InvalidRequest: It is a pool already, it is not empty, or its parent is missing.
        OSError: The filesystem did not take it.
    """
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        mark = create_mark(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InvalidRequest(
            f"{path} is no directory, and there is none to make it in: {error.strerror}"
        ) from error
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        limited = is_btrfs(folder) and _ensure_quotas(folder)
        return Made(mark.uuid, can_clone(folder), limited, fstab)
    finally:
        os.close(folder)


def create_in_file(path: str, file: str, size_bytes: int, fs_type: str) -> Made:
    """Makes a filesystem in a new sparse file, mounts it, and makes a pool of it.

    Raises:
        InvalidRequest: The file exists, or the directory cannot be used.
        ProgramFailed: mkfs failed.
        OSError: The file cannot be made, or not mounted.
    """
    least = filesystems.FILESYSTEMS[fs_type].minimum_bytes
    if size_bytes < least:
        raise InvalidRequest(f"--size: a {fs_type} has {least} bytes at least, not {size_bytes}")
    _check_mount_point(path)
    try:
        image = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise InvalidRequest(f"{file} exists; nothing was changed") from error
    try:
        with contextlib.ExitStack() as undo:
            undo.callback(os.unlink, file)
            os.ftruncate(image, size_bytes)
            filesystems.make_filesystem(fs_type, f"/proc/self/fd/{image}", pass_fds=(image,))
            os.fsync(image)
            with loop.attach(image, autoclear=True) as attached:
                _mount(attached.device.path, path, fs_type)
            undo.callback(mounts.unmount, path)
            made = create_in_directory(
                path, f"{os.path.abspath(file)} {os.path.abspath(path)} {fs_type} loop,nofail 0 0"
            )
            undo.pop_all()
            return made
    finally:
        os.close(image)


def create_on_device(path: str, device: str, fs_type: str) -> Made:
    """Makes a filesystem on an empty disk, mounts it, and makes a pool of it.

    Raises:
        InvalidRequest: The disk holds something, or the directory cannot be used.
        ProgramFailed: mkfs failed.
        OSError: It cannot be mounted.
    """
    _check_mount_point(path)
    present = filesystems.probe(device)
    if present is not None:
        raise InvalidRequest(
            f"{device} holds {present}; nothing was changed. If that may go, run "
            f"'wipefs --all {device}' first"
        )
    filesystems.make_filesystem(fs_type, device)
    _mount(device, path, fs_type)
    try:
        return create_in_directory(path, f"{device} {os.path.abspath(path)} {fs_type} nofail 0 0")
    except BaseException:
        mounts.unmount(path)
        raise


def _check_mount_point(path: str) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    if os.listdir(path) or is_mount_root(path):
        raise InvalidRequest(f"{path} is in use; name an empty directory to mount the pool at")


def _mount(device: str, path: str, fs_type: str) -> None:
    target = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mounts.mount_filesystem(device, target, fs_type)
    finally:
        os.close(target)


def _ensure_quotas(folder: int) -> bool:
    """Turns simple quotas on; returns whether they are."""
    if not quota.simple_quotas_enabled(folder):
        with contextlib.suppress(OSError):  # an old kernel, or full quotas are on: say so, go on
            quota.enable_simple_quotas(folder)
    return quota.simple_quotas_enabled(folder)
