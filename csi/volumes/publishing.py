"""NodePublishVolume and NodeUnpublishVolume: a staged volume shown at a pod's target path."""

from __future__ import annotations

from csi.errors import NotNow
from csi.linux import mounts
from csi.model import Access, AccessMode, PublishRequest, Volume
from csi.volumes import devices, presence, targets
from csi.volumes.contexts import check_same_context, take_context
from csi.volumes.devices import opened_mount
from csi.volumes.inline import Inline
from csi.volumes.pools import Found
from csi.volumes.staging import (
    DEVICE_NAME,
    check_same_mount,
    check_usable,
    find_mount,
    take_away,
)
from csi.volumes.tools import Tools


class Publishing:
    """The two verbs."""

    def __init__(self, tools: Tools, inline: Inline) -> None:
        self._tools = tools
        self._inline = inline

    def publish(self, request: PublishRequest) -> None:
        """Shows a volume at a target path.

        Raises:
            NotFound: There is no such volume.
            InvalidRequest: The target path cannot be mounted on.
            NotNow: It is not staged, or is published elsewhere and its mode allows one pod.
            AlreadyExists: It is there in another way, or something else is.
            OperationPending: It is being worked on.
            Unavailable: It is there, and its pod cannot be held to its limits.
        """
        capability = take_context(request.capability, self._tools.settings)
        request = request.replace(capability=capability)
        if request.inline is not None:
            self._inline.publish(request, request.inline)
            return
        found = self._tools.pools.get_volume(request.volume_id)
        with self._tools.locks.exclusive(f"volume:{found.key}", f"volume {request.volume_id}"):
            found = self._tools.pools.get_volume(request.volume_id)
            check_usable(found.record, request.capability)
            if found.record.access is Access.BLOCK:
                _publish_block(found, request)
            else:
                _publish_filesystem(found, request)
            self._tools.throttling.start(found)

    def unpublish(self, volume_id: str, path: str) -> None:
        """Takes a volume away from a target path and removes the path; repeats are fine.

        Raises:
            NotNow: What is mounted there is not this volume, it is busy, or the path holds data.
            OperationPending: It is being worked on.
        """
        targets.check_absolute(path, "target_path")
        located = self._tools.pools.locate_volume(volume_id)
        if located is None or not (targets.is_mounted(path) or self._inline.is_inline(*located)):
            take_away(volume_id, path, None)
            targets.remove_target(path)
            return
        depot, key = located
        if self._inline.is_inline(depot, key):
            depot.pool.check_answers()  # the last unmount writes to the pool
        with self._tools.locks.exclusive(f"volume:{key}", f"volume {volume_id}"):
            take_away(volume_id, path, presence.look(depot.pool, key))
            self._tools.throttling.leave(key, path)
            targets.remove_target(path)
            self._inline.end(depot, key)


def _publish_filesystem(found: Found[Volume], request: PublishRequest) -> None:
    with targets.directory_target(request.target_path, "target_path") as target:
        if _is_published(found, request, request.staging_path):
            return
        with opened_mount(request.staging_path) as staged:
            mounts.bind_mount(
                staged,
                target,
                read_only=_read_only(request),
                options=request.capability.mount_flags,
            )


def _publish_block(found: Found[Volume], request: PublishRequest) -> None:
    with targets.file_target(request.target_path, "target_path") as target:
        if not _is_published(found, request, f"{request.staging_path}/{DEVICE_NAME}"):
            device = devices.attach_block(
                found.depot.pool, found.key, read_only=_read_only(request)
            )
            devices.bind_device(device, target)


def _is_published(found: Found[Volume], request: PublishRequest, staged: str) -> bool:
    """Whether the volume is at the target already.

    Raises:
        AlreadyExists: It is there in another way, or something else is.
        NotNow: It is not staged, or it is somewhere else and may not be at both.
    """
    present = presence.look(found.depot.pool, found.key)
    staging = present.at(staged)
    if staging is None:
        raise NotNow(f"volume {found.record.id} is not staged at {staged}; stage it first")
    mount = find_mount(present, request.target_path)
    if mount is not None:
        check_same_mount(mount, request.capability, read_only=request.read_only, staged=staging)
        return True
    check_same_context(staging, request.capability)
    if request.capability.mode is not AccessMode.SINGLE_NODE_MULTI_WRITER:
        for other in present.shown_beside(staging):
            raise NotNow(
                f"volume {found.record.id} is published at {other.target} already, and access "
                f"mode {request.capability.mode} allows one place only"
            )
    return False


def _read_only(request: PublishRequest) -> bool:
    return request.read_only or devices.is_read_only(request.capability)
