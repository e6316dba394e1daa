"""Making a pool: of a directory that is there, in a file, or on a disk.

This is the explicit step that gives a directory its mark. Where it makes a filesystem it makes one
that can reflink, so that snapshots and clones cost next to nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass

from csi.errors import InvalidRequest
from csi.linux import filesystems, loop, mounts, project_quota, quota
from csi.linux.copying import can_clone
from csi.linux.paths import is_mount_root
from csi.linux.subvolume import is_btrfs
from csi.pool.mark import create_mark

POOL_FILESYSTEMS = ("xfs", "btrfs")
_PROJECT_QUOTA = "prjquota"
_ADVICE = {
    "xfs": "that takes the mount option prjquota, given when it is first mounted and not by a "
    "remount, on a kernel with quotas for xfs; or btrfs",
    "ext4": "that takes the mount option prjquota, after 'tune2fs -O project -Q prjquota {device}' "
    "while it is unmounted, on a kernel with project quotas; or btrfs",
    "btrfs": "that takes simple quotas: Linux 6.7, and no other quotas turned on",
}
_NO_ADVICE = "that takes btrfs, or xfs or ext4 mounted with prjquota"


@dataclass(frozen=True, slots=True)
class Made:
    """What was made.

    Attributes:
        uuid: The pool's identity.
        reflink: Whether snapshots and clones of images share blocks.
        directory_quota: Whether directories can be held to their size.
        quota_advice: What that takes where they cannot.
        fstab: The line that mounts it again after a reboot; empty where nothing was mounted.
    """

    uuid: str
    reflink: bool
    directory_quota: bool
    quota_advice: str = ""
    fstab: str = ""


def create_in_directory(path: str, fstab: str = "") -> Made:
    """Makes a pool of a directory, which is made if only it is missing.

    On btrfs it turns simple quotas on, since nothing else there holds a directory to its size.
    xfs and ext4 have theirs from the time they are mounted, or not at all.

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
        enforced = _ensure_quotas if is_btrfs(folder) else project_quota.is_enforced
        limited = enforced(folder)
        advice = "" if limited else _advice(folder)
        return Made(mark.uuid, can_clone(folder), limited, advice, fstab)
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
                options = _mount(attached.device.path, path, fs_type)
            undo.callback(mounts.unmount, path)
            made = create_in_directory(
                path, _fstab(os.path.abspath(file), path, fs_type, ("loop", "nofail", *options))
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
    options = _mount(device, path, fs_type)
    try:
        return create_in_directory(path, _fstab(device, path, fs_type, ("nofail", *options)))
    except BaseException:
        mounts.unmount(path)
        raise


def _check_mount_point(path: str) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    if os.listdir(path) or is_mount_root(path):
        raise InvalidRequest(f"{path} is in use; name an empty directory to mount the pool at")


def _mount(device: str, path: str, fs_type: str) -> tuple[str, ...]:
    """Mounts a new filesystem, xfs with project quotas where the kernel has them.

    Returns the options that it takes to mount it so again.
    """
    target = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if fs_type == "xfs":
            try:
                mounts.mount_filesystem(device, target, fs_type, options=(_PROJECT_QUOTA,))
                return (_PROJECT_QUOTA,)
            except OSError as error:
                if error.errno != errno.EINVAL:  # a kernel that was built without
                    raise
        mounts.mount_filesystem(device, target, fs_type)
        return ()
    finally:
        os.close(target)


def _fstab(source: str, path: str, fs_type: str, options: tuple[str, ...]) -> str:
    return f"{source} {os.path.abspath(path)} {fs_type} {','.join(options)} 0 0"


def _advice(folder: int) -> str:
    """Returns what it takes to hold directories to their size where the pool cannot."""
    mount = mounts.mount_containing(folder)
    return _ADVICE.get(mount.fs_type, _NO_ADVICE).format(device=mount.source)


def _ensure_quotas(folder: int) -> bool:
    """Turns simple quotas on; returns whether they are."""
    if not quota.simple_quotas_enabled(folder):
        with contextlib.suppress(OSError):  # an old kernel, or full quotas are on: say so, go on
            quota.enable_simple_quotas(folder)
    return quota.simple_quotas_enabled(folder)
