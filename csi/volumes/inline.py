"""Inline ephemeral volumes: made when a pod starts, gone when it ends.

A pod's author makes them, without a StorageClass in between, so that he may say little: a size, a
filesystem, and a class that the administrator has named in the configuration. They are limited in
size and number, never listed, and swept when their pod is gone without having said so.
"""

from __future__ import annotations

import logging
import os
import threading

from csi.errors import (
    AlreadyExists,
    DriverError,
    InvalidRequest,
    NoRoom,
    NotFound,
    OutOfRange,
    UnsupportedRequest,
)
from csi.model import (
    Access,
    Ephemeral,
    InlineVolume,
    Kind,
    Parameters,
    PublishRequest,
    SizeRange,
    Volume,
    VolumeRequest,
)
from csi.pool import ids
from csi.volumes import capabilities, devices, presence, targets
from csi.volumes.creation import Creation
from csi.volumes.lifecycle import Lifecycle
from csi.volumes.pools import Depot, Found
from csi.volumes.staging import check_same_mount, find_mount, watch
from csi.volumes.tools import Tools

_log = logging.getLogger(__name__)


class Inline:
    """What publishing does where the volume is the pod's own."""

    def __init__(self, tools: Tools, creation: Creation, lifecycle: Lifecycle) -> None:
        self._tools = tools
        self._creation = creation
        self._lifecycle = lifecycle
        self._counting = threading.Lock()
        self._pending: set[str] = set()

    def publish(self, request: PublishRequest, inline: InlineVolume) -> None:
        """Makes the pod's volume and mounts it at the target path; repeats are fine.

        Raises:
            UnsupportedRequest: Inline volumes are switched off, or it is to be a block device.
            NotFound: The id is none of the kubelet's.
            InvalidRequest: The class is unknown.
            OutOfRange: It is larger than pods may have.
            NoRoom: There are as many as there may be, or the pool is full.
            AlreadyExists: Something else is at the target path.
        """
        if not self._tools.settings.ephemeral.enabled:
            raise UnsupportedRequest("inline volumes are switched off in the configuration")
        if request.capability.access is Access.BLOCK:
            raise UnsupportedRequest("an inline volume cannot be a block device")
        if not ids.is_ephemeral(request.volume_id):
            raise NotFound(f"{request.volume_id!r} is no id that the kubelet gives inline volumes")
        made = self._tools.pools.find_volume_name(request.volume_id) is None
        found = self._ensure(request, inline)
        with self._tools.locks.exclusive(f"volume:{found.key}", f"volume {request.volume_id}"):
            found = self._tools.pools.get_volume(request.volume_id)
            if found.record.ephemeral is None:
                raise AlreadyExists(f"volume {request.volume_id} is not an inline volume")
            try:
                _mount(found, request)
            except BaseException:
                # The kubelet never unpublishes what it was refused.
                if made:
                    self.end(found.depot, found.key)
                raise
            watch(found)

    def is_inline(self, depot: Depot, key: str) -> bool:
        """Whether a volume lives and dies with its pod."""
        volume = depot.pool.volumes.peek(key)
        return volume is not None and volume.ephemeral is not None

    def end(self, depot: Depot, key: str) -> None:
        """Deletes a volume that the caller has locked, once its pod has let go of it.

        Raises:
            Unavailable: Some process keeps its device open.
        """
        if not self.is_inline(depot, key):
            return
        present = presence.look(depot.pool, key)
        if not present.mounts:
            devices.let_go(depot.pool, key, present.devices)
            self.forget(depot, key)

    def forget(self, depot: Depot, key: str) -> None:
        """Deletes a volume that the caller has locked, if it is inline and mounted nowhere."""
        volume = depot.pool.volumes.peek(key)
        if volume is None or volume.ephemeral is None or presence.look(depot.pool, key).anywhere:
            return
        self._lifecycle.discard(Found(depot, volume))

    def sweep(self) -> int:
        """Deletes inline volumes whose pods are gone; returns how many.

        A pod lives as long as the kubelet keeps a folder for it; a volume that is still mounted
        is left for the kubelet to unpublish.
        """
        swept = 0
        for found in list(self._tools.pools.volumes()):
            ephemeral = found.record.ephemeral
            if ephemeral is None or os.path.lexists(pod_folder(ephemeral)):
                continue
            try:
                with self._tools.locks.exclusive(f"volume:{found.key}", found.record.id):
                    self.forget(found.depot, found.key)
            except DriverError as error:
                _log.info(
                    "an inline volume is left for later",
                    extra={"volume_id": found.record.id, "reason": str(error)},
                )
            else:
                swept += 1
        return swept

    def _ensure(self, request: PublishRequest, inline: InlineVolume) -> Found[Volume]:
        found = self._tools.pools.find_volume_name(request.volume_id)
        if found is not None:
            return found
        wanted = self._request(request, inline)
        with self._counting:
            count = sum(1 for other in self._tools.pools.volumes() if other.record.ephemeral)
            limit = self._tools.settings.ephemeral.max_volumes
            if count + len(self._pending) >= limit:
                raise NoRoom(f"this node has the {limit} inline volumes it may have")
            self._pending.add(request.volume_id)
        try:
            self._creation.create(wanted)
        finally:
            with self._counting:
                self._pending.discard(request.volume_id)
        return self._tools.pools.get_volume(request.volume_id)

    def _request(self, request: PublishRequest, inline: InlineVolume) -> VolumeRequest:
        parameters = self._parameters(inline.class_name)
        allowed = self._tools.settings.ephemeral
        size = inline.size_bytes or allowed.default_size_bytes
        if size > allowed.max_size_bytes:
            raise OutOfRange(
                f"an inline volume may have {allowed.max_size_bytes} bytes, not {size}"
            )
        capability = request.capability
        if inline.fs_type:
            capability = capability.replace(fs_type=inline.fs_type)
        if parameters.kind is Kind.IMAGE:
            capabilities.choose_filesystem([capability], "", "")
        return VolumeRequest(
            name=request.volume_id,
            size=SizeRange(required_bytes=size),
            capabilities=(capability.replace(selinux_context=""),),
            parameters=parameters,
            claim=inline.claim,
            ephemeral=Ephemeral(pod_uid=inline.pod_uid, target_path=request.target_path),
        )

    def _parameters(self, class_name: str) -> Parameters:
        if not class_name:
            return Parameters()
        try:
            return self._tools.settings.ephemeral.classes[class_name]
        except KeyError:
            known = ", ".join(sorted(self._tools.settings.ephemeral.classes)) or "none"
            raise InvalidRequest(
                f"class {class_name!r} is not one for inline volumes; the configuration has {known}"
            ) from None


def pod_folder(ephemeral: Ephemeral) -> str:
    """Returns the kubelet's folder of the pod that a volume belongs to.

    It is the part of the target path up to the pod's UID; elsewhere the target path itself.
    """
    before, found, _ = ephemeral.target_path.partition(f"/pods/{ephemeral.pod_uid}/")
    return f"{before}/pods/{ephemeral.pod_uid}" if found else ephemeral.target_path


def _mount(found: Found[Volume], request: PublishRequest) -> None:
    capability = request.capability
    if request.read_only and not capability.read_only:
        capability = capability.replace(mount_flags=(*capability.mount_flags, "ro"))
    with targets.directory_target(request.target_path, "target_path") as target:
        mount = find_mount(presence.look(found.depot.pool, found.key), request.target_path)
        if mount is not None:
            check_same_mount(mount, capability, read_only=False)
            return
        devices.mount_volume(found, request.target_path, target, capability)
