"""NodeStageVolume and NodeUnstageVolume: a volume made ready on the node, once for all its pods.

A filesystem is mounted at the staging path. A raw block volume gets its loop device, whose node is
shown as a file in the staging path; so the kernel knows what is staged where, and nobody else has
to. Staging again after a reboot finds nothing mounted and simply does it again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re

from csi.errors import AlreadyExists, NotNow, OperationPending, UnsupportedRequest
from csi.linux import mounts
from csi.linux.mounts import Mount
from csi.model import Access, Capability, Volume
from csi.volumes import capabilities, devices, presence, targets
from csi.volumes.contexts import check_same_context, take_context
from csi.volumes.pools import Found, measure_volume
from csi.volumes.presence import Presence
from csi.volumes.tools import Tools

DEVICE_NAME = "device"
_BUSY = frozenset({errno.EBUSY, errno.EINVAL})
_COMPARED = frozenset({"ro", "noexec", "noatime", "nodiratime"})
"""Options of a mount that the kernel shows as they were given."""
_SHOWN = re.compile(r"sync|dirsync|lazytime|data=(journal|writeback)|commit=(?!0*(5|30)?$)\d+")
"""Options of a filesystem that the kernel shows as they were given, unless they are its defaults.
Others it shows in words of its own, and a repeated call must not be refused for that."""


class Staging:
    """The two verbs."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    def stage(self, volume_id: str, path: str, capability: Capability) -> None:
        """Makes a volume ready at a staging path.

        Raises:
            NotFound: There is no such volume.
            InvalidRequest: The path cannot be mounted on, or a mount flag is not allowed.
            NotNow: The volume cannot be used that way.
            AlreadyExists: Something else, or this volume in another way, is at that path.
            OperationPending: It is being worked on, or its contents are still being copied.
        """
        capability = take_context(capability, self._tools.settings)
        found = self._tools.pools.get_volume(volume_id)
        found.depot.pool.check_answers()
        if found.record.copying:
            # Nobody creates it again: a copy that has failed can begin again from here alone.
            self._tools.copies.ensure_volume(found.depot, found.record)
        with self._tools.locks.exclusive(f"volume:{found.key}", f"volume {volume_id}"):
            found = self._tools.pools.get_volume(volume_id)
            check_usable(found.record, capability)
            if found.record.access is Access.BLOCK:
                _stage_block(found, path, capability)
            else:
                _stage_filesystem(found, path, capability)
            watch(found)

    def unstage(self, volume_id: str, path: str) -> None:
        """Takes a volume away from a staging path; one that is not there is no error.

        Raises:
            NotNow: Something that is not this volume is mounted there, or it is busy.
            OperationPending: It is being worked on.
        """
        targets.check_absolute(path, "staging_target_path")
        located = self._tools.pools.locate_volume(volume_id)
        if located is None:
            _leave_alone(volume_id, path)
            return
        depot, key = located
        shown = targets.is_mounted(path) or os.path.lexists(f"{path}/{DEVICE_NAME}")
        if not shown and not presence.look(depot.pool, key).anywhere:
            return  # there is nothing to do, also while a copy is made into it or of it
        depot.pool.check_answers()
        with (
            self._tools.releases.letting_go(key),
            self._tools.locks.exclusive(f"volume:{key}", f"volume {volume_id}"),
        ):
            present = presence.look(depot.pool, key)
            for place in (path, f"{path}/{DEVICE_NAME}"):
                take_away(volume_id, place, present)
            if os.path.lexists(f"{path}/{DEVICE_NAME}"):
                targets.remove_target(f"{path}/{DEVICE_NAME}")
            left = presence.look(depot.pool, key)
            if not left.mounts:
                self._tools.throttling.end(key)
                devices.let_go(depot.pool, key, left.devices)
                depot.ledger.settle(key)


def check_usable(volume: Volume, capability: Capability) -> None:
    """Checks that a volume can be used in a way on this node now.

    Raises:
        OperationPending: Its contents are still being copied.
        UnsupportedRequest: It belongs to a pod.
        NotNow: It cannot be used that way.
    """
    if volume.copying:
        raise OperationPending(f"the contents of volume {volume.id} are still being copied")
    if volume.ephemeral is not None:
        raise UnsupportedRequest(f"volume {volume.id} is inline and is never staged")
    capabilities.check_mount_flags([capability], volume.kind, volume.fs_type)
    reason = capabilities.reason_against(volume, [capability])
    if reason:
        raise NotNow(f"volume {volume.id} cannot be used that way: {reason}")


def check_same_mount(
    mount: Mount, capability: Capability, *, read_only: bool, staged: Mount | None = None
) -> None:
    """Checks that what is mounted already is what is asked for.

    Args:
        mount: What is mounted.
        capability: What is asked for.
        read_only: Whether it is to be read-only, whatever the capability says.
        staged: The mount that this one was made from, whose options it has too.

    Raises:
        AlreadyExists: It is not the same.
    """
    check_same_context(mount, capability)
    asked = {flag for flag in capability.mount_flags if flag in _COMPARED}
    if read_only or devices.is_read_only(capability):
        asked.add("ro")
    if staged is not None:
        asked |= staged.options & _COMPARED
    there = mount.options & _COMPARED
    shown = {flag for flag in capability.mount_flags if _SHOWN.fullmatch(flag)}
    if staged is None and not shown <= mount.super_options:
        raise AlreadyExists(
            f"the volume is mounted at {mount.target} already, without "
            f"{', '.join(sorted(shown - mount.super_options))}"
        )
    if asked != there:
        raise AlreadyExists(
            f"the volume is mounted at {mount.target} already, with options "
            f"{', '.join(sorted(there)) or 'rw'} and not {', '.join(sorted(asked)) or 'rw'}"
        )


def find_mount(present: Presence, path: str) -> Mount | None:
    """Returns the volume's mount at a path, None where nothing is mounted.

    Raises:
        AlreadyExists: Something else is mounted there.
    """
    if not targets.is_mounted(path):
        return None
    mount = present.at(path)
    if mount is None:
        raise AlreadyExists(f"something else is mounted at {path} already")
    return mount


def take_away(volume_id: str, path: str, present: Presence | None) -> None:
    """Unmounts a volume from a path and makes sure that it is gone.

    Raises:
        NotNow: What is mounted there is not this volume, or it is busy.
        OSError: It could not be unmounted for another reason.
    """
    if not targets.is_mounted(path):
        return
    try:
        if present is not None:
            _unmount_layers(path, present)
    except OSError as error:
        if error.errno not in _BUSY:
            raise
        raise NotNow(f"{path} cannot be unmounted: {error.strerror}") from error
    if targets.is_mounted(path):
        raise NotNow(f"what is mounted at {path} is not volume {volume_id}; it is left alone")


def _unmount_layers(path: str, present: Presence) -> None:
    while present.directory_shows_at(path):
        mounts.once_free(lambda: mounts.unmount(path))
    if targets.is_mounted(path):
        for _ in range(present.layers_at(path)):
            devices.thaw_before_last(present, path)
            mounts.once_free(lambda: mounts.unmount(path))


def watch(found: Found[Volume]) -> None:
    """Tells the ledger that workloads may write to a volume from now on."""
    pool, volume = found.depot.pool, found.record
    found.depot.ledger.watch(found.key, lambda: measure_volume(pool, volume))


def _stage_filesystem(found: Found[Volume], path: str, capability: Capability) -> None:
    with targets.directory_target(path, "staging_target_path") as target:
        mount = find_mount(presence.look(found.depot.pool, found.key), path)
        if mount is not None:
            check_same_mount(mount, capability, read_only=False)
            devices.grow_staged(found.record, mount, capability)
            return
        if targets.is_mounted(f"{path}/{DEVICE_NAME}"):
            raise AlreadyExists(f"a raw block volume is staged at {path} already")
        devices.mount_volume(found, path, target, capability)


def _stage_block(found: Found[Volume], path: str, capability: Capability) -> None:
    if targets.is_mounted(path):
        # The device would be shown in a volume, by a file that is made in it.
        raise AlreadyExists(f"something else is mounted at {path} already")
    with contextlib.ExitStack() as stack:
        stack.enter_context(targets.directory_target(path, "staging_target_path"))
        place = f"{path}/{DEVICE_NAME}"
        target = stack.enter_context(targets.file_target(place, "staging_target_path"))
        read_only = devices.is_read_only(capability)
        mount = find_mount(presence.look(found.depot.pool, found.key), place)
        if mount is not None:
            check_same_mount(mount, capability, read_only=read_only)
            return
        device = devices.attach_block(found.depot.pool, found.key, read_only=read_only)
        devices.bind_device(device, target)


def _leave_alone(volume_id: str, path: str) -> None:
    for place in (path, f"{path}/{DEVICE_NAME}"):
        if targets.is_mounted(place):
            raise NotNow(
                f"volume {volume_id} does not exist, and what is mounted at {place} is left alone"
            )
