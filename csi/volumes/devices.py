"""Putting a volume's data where a workload can use it: the one place that mounts.

Used by staging and by inline volumes, which have no staging. Every mount is nosuid and nodev: what
a filesystem image says about its files is not to be trusted.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from collections.abc import Iterator, Sequence

from csi.errors import NotNow, OperationPending, ProgramFailed, Unavailable
from csi.linux import loop, mounts
from csi.linux.bounded import FilesystemHeld
from csi.linux.filesystems import probe
from csi.linux.freeze import thaw
from csi.linux.growth import grow_mounted
from csi.linux.loop_status import LoopDevice
from csi.linux.mounts import Mount
from csi.model import Capability, Kind, Volume
from csi.pool.directory import DATA_NAME
from csi.pool.image import IMAGE_NAME
from csi.pool.image_growth import ensure_ext4_fills
from csi.pool.pool import Pool
from csi.selinux import context_option
from csi.volumes import presence
from csi.volumes.contexts import refusal_of
from csi.volumes.pools import Found
from csi.volumes.presence import Presence

_log = logging.getLogger(__name__)

_DAMAGED = frozenset({errno.EUCLEAN, errno.EBADMSG})
_LET_GO_S = 3.0
_GROWN_MOUNTED = ("xfs", "btrfs")
"""What needs no privilege to grow while it is mounted, unlike ext4."""
_ALWAYS = {"xfs": ("nouuid",)}
"""A restored XFS has the UUID of its source, and is mounted beside it."""


def mount_volume(found: Found[Volume], path: str, target: int, capability: Capability) -> None:
    """Mounts a filesystem volume on a directory, given by its path and opened as `target`.

    A filesystem that is smaller than its image, after a restore into a larger volume or growth
    while nobody used it, is grown first.
    """
    pool, volume = found.depot.pool, found.record
    if volume.kind is Kind.DIRECTORY:
        with pool.volumes.opened(found.key, DATA_NAME, os.O_PATH | os.O_DIRECTORY) as data:
            mounts.bind_mount(
                data, target, read_only=is_read_only(capability), options=capability.mount_flags
            )
        return
    present = presence.look(pool, found.key)
    if present.devices:
        device = present.devices[0].path
        loop.refresh_size(device)
        _mount_device(volume, device, path, target, capability, orphan=not present.mounts)
        return
    if volume.fs_type == "ext4":
        with pool.volumes.opened(found.key) as folder:
            ensure_ext4_fills(
                folder, reflink=pool.features.reflink, may_grow=not is_read_only(capability)
            )
    with (
        pool.volumes.opened(found.key, IMAGE_NAME, os.O_RDWR) as image,
        loop.attach(image, autoclear=True) as attached,
    ):
        _mount_device(volume, attached.device.path, path, target, capability)


def attach_block(pool: Pool, key: str, *, read_only: bool) -> LoopDevice:
    """Returns a loop device of a raw block volume, attached if there is none.

    One that goes with the last process that has it open does not count. Who may only read gets a
    device of its own that takes no writes: a read-only mount of a device node keeps nobody from
    writing to the device.
    """
    for device in presence.loops_of(pool, key):
        if device.read_only == read_only and not device.autoclear:
            loop.refresh_size(device.path)
            return device
    with (
        pool.volumes.opened(key, IMAGE_NAME, os.O_RDONLY if read_only else os.O_RDWR) as image,
        loop.attach(image, autoclear=False, read_only=read_only) as attached,
    ):
        return attached.device


def bind_device(device: LoopDevice, target: int) -> None:
    """Makes a device node appear at the open target file."""
    node = os.open(device.path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        mounts.bind_mount(node, target, read_only=device.read_only, allow_devices=True)
    finally:
        os.close(node)


def let_go(pool: Pool, key: str, devices: Sequence[LoopDevice]) -> None:
    """Detaches the loop devices of a volume that is mounted nowhere, and waits until they are gone.

    `devices` are those it has. Whoever looks at one just then (udev, blkid, losetup) keeps it for
    that long.

    Raises:
        Unavailable: Somebody keeps one open.
    """
    deadline = time.monotonic() + _LET_GO_S
    pause_s = 0.001
    while devices:
        if time.monotonic() > deadline:
            raise Unavailable(
                f"{devices[0].path} is unmounted, and some process on this node keeps it open, or "
                "mounted in a mount namespace of its own; the volume is free once that ends"
            )
        for device in devices:
            if not device.autoclear:
                loop.detach(device.path)
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 0.1)
        devices = presence.loops_of(pool, key)


def grow_in_use(pool: Pool, volume: Volume, key: str) -> None:
    """Grows the device and the mounted filesystem of an image to the size of the image.

    Raises:
        NotNow: The kernel does not let this driver grow the filesystem while it is mounted.
        Unavailable: Somebody has frozen it.
    """
    present = presence.look(pool, key)
    for device in present.devices:
        loop.refresh_size(device.path)
    if not volume.fs_type or not present.mounts:
        return
    try:
        with opened_mount(present.mounts[0].target) as mount:
            grow_mounted(volume.fs_type, mount, loop.device_size(present.mounts[0].source))
    except PermissionError as error:
        raise NotNow(
            f"the kernel does not let this driver grow a mounted {volume.fs_type} "
            "(CAP_SYS_RESOURCE is missing): the volume has its new size, and its filesystem grows "
            "when the pods that use it have stopped and start again"
        ) from error
    except FilesystemHeld as error:
        raise Unavailable(
            f"volume {volume.id} has its new size, and its filesystem, mounted at "
            f"{present.mounts[0].target}, cannot grow now: {error}"
        ) from error
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        raise NotNow(
            f"the {volume.fs_type} of volume {volume.id} is mounted read-only and cannot grow now"
        ) from error


def grow_staged(volume: Volume, mount: Mount, capability: Capability) -> None:
    """Grows a filesystem that an earlier try has mounted and did not come to grow.

    It never fails: the filesystem is mounted and can be used as it is.
    """
    if volume.fs_type not in _GROWN_MOUNTED or is_read_only(capability):
        return
    try:
        with opened_mount(mount.target) as root:
            grow_mounted(volume.fs_type, root, loop.device_size(mount.source))
    except (OSError, FilesystemHeld) as error:
        _log.warning(
            "a filesystem could not be grown to its volume's size",
            extra={"volume_id": volume.id, "reason": str(error)},
        )


@contextlib.contextmanager
def opened_mount(path: str) -> Iterator[int]:
    """Opens the root of what is mounted at a path."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def thaw_before_last(present: Presence, path: str) -> None:
    """Thaws the filesystem of an image that is about to be unmounted from its last place.

    Unmounted while it is frozen, it would keep its loop device, and nobody could thaw it any more.
    Whoever froze it was in a pod that is gone, or a backup that was not told. A directory is on the
    filesystem of its pool, which is left as it is.
    """
    shown = present.image_mounts(path)
    if shown and all(mount.target == shown[0].target for mount in shown):
        _thaw(path)


def is_read_only(capability: Capability) -> bool:
    """Whether a capability lets nobody write."""
    return capability.read_only or "ro" in capability.mount_flags


def _thaw(path: str) -> None:
    # One that has shut down can be neither opened nor thawed, and is unmounted all the same.
    with contextlib.suppress(OSError), opened_mount(path) as mount:
        thaw(mount)


def _mount_device(
    volume: Volume,
    device: str,
    path: str,
    target: int,
    capability: Capability,
    *,
    orphan: bool = False,
) -> None:
    """Mounts a device; an orphan is one that is attached although nothing shows it."""
    read_only, context = is_read_only(capability), capability.selinux_context
    options = [*_ALWAYS.get(volume.fs_type, ()), *capability.mount_flags]
    if context:
        options.append(context_option(context))
    with _explained(volume, device, context):
        mounts.once_free(
            lambda: mounts.mount_filesystem(
                device, target, volume.fs_type, options=options, read_only=read_only
            )
        )
    if orphan:
        _thaw(path)  # somebody unmounted it by hand while it was frozen
    if read_only or volume.fs_type not in _GROWN_MOUNTED:
        return
    try:
        with opened_mount(path) as mount:
            grow_mounted(volume.fs_type, mount, loop.device_size(device))
    except BaseException:
        mounts.unmount(path)
        raise


@contextlib.contextmanager
def _explained(volume: Volume, device: str, context: str) -> Iterator[None]:
    """Says why the kernel did not mount what is on a device, where that can be told.

    Raises:
        NotNow: It is damaged, something else is on it, or it does not go with the SELinux context.
        OperationPending: It is mounted already, read-only for writing or the other way round.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _DAMAGED:
            raise NotNow(
                f"the {volume.fs_type} of volume {volume.id} is damaged and cannot be mounted "
                f"({os.strerror(error.errno)}): restore it from a snapshot, or have its image "
                "repaired"
            ) from error
        if error.errno == errno.EBUSY:
            raise OperationPending(
                f"the {volume.fs_type} of volume {volume.id} is still mounted in another way, "
                "where this driver does not see it; try again"
            ) from error
        if error.errno != errno.EINVAL:
            raise
        present = _signature_on(device)
        if present != volume.fs_type:
            raise NotNow(
                f"volume {volume.id} holds {present or 'nothing that is known'} in place of its "
                f"{volume.fs_type}: it is left as it is, and is mounted again once its "
                f"{volume.fs_type} is back"
            ) from error
        if context:
            raise refusal_of(context) from error
        raise


def _signature_on(device: str) -> str:
    try:
        return probe(device) or ""
    except ProgramFailed:
        return "several signatures that contradict each other"
