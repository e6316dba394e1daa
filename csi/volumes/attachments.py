"""Giving volumes to this node: what only the driver knows, and so is in the record."""

from __future__ import annotations

import contextlib
import threading

from csi.errors import AlreadyExists, InUse, NoRoom, NotFound, NotNow
from csi.model import Capability, Publication, Volume
from csi.volumes import capabilities
from csi.volumes.pools import Found
from csi.volumes.tools import Tools


class Attachments:
    """ControllerPublishVolume and ControllerUnpublishVolume."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._counting = threading.Lock()

    def publish(
        self, volume_id: str, node_id: str, capability: Capability, *, read_only: bool
    ) -> None:
        """Fences a volume to a node.

        Raises:
            NotFound: There is no such volume or node.
            AlreadyExists: It is published to the node in another way.
            InUse: It is published to another node.
            NoRoom: The node has as many volumes as it may have.
            InvalidRequest, NotNow: The volume cannot be used that way.
        """
        found = self._tools.pools.get_volume(volume_id)
        if node_id != self._tools.settings.node_id:
            raise NotFound(
                f"there is no node {node_id!r} here; volumes of this driver are reached from "
                f"{self._tools.settings.node_id!r} alone"
            )
        with self._tools.locks.exclusive(f"volume:{found.key}", f"volume {volume_id}"):
            found = self._tools.pools.get_volume(volume_id)
            capabilities.check_capabilities([capability], found.record.kind)
            reason = capabilities.reason_against(found.record, [capability])
            if reason:
                raise NotNow(f"volume {volume_id} cannot be published that way: {reason}")
            wanted = Publication(
                mode=capability.mode, access=capability.access, read_only=read_only
            )
            self._publish(found, node_id, wanted)

    def unpublish(self, volume_id: str, node_id: str) -> None:
        """Takes a volume back from a node, or from all where none is named; repeats are fine.

        Raises:
            OperationPending: The volume is being worked on.
        """
        found = self._tools.pools.find_volume(volume_id)
        if found is None:
            return
        with self._tools.locks.exclusive(f"volume:{found.key}", f"volume {volume_id}"):
            found = self._tools.pools.find_volume(volume_id)
            if found is None:
                return
            kept = {
                node: publication
                for node, publication in found.record.publications.items()
                if node_id and node != node_id
            }
            if kept != found.record.publications:
                found.depot.pool.volumes.change(found.record, publications=kept)

    def _publish(self, found: Found[Volume], node_id: str, wanted: Publication) -> None:
        volume = found.record
        present = volume.publications.get(node_id)
        if present == wanted:
            return
        if present is not None:
            raise AlreadyExists(
                f"volume {volume.id} is published to {node_id!r} already, as {present.mode}"
                f"{', read-only' if present.read_only else ''}"
            )
        if volume.publications:
            elsewhere = ", ".join(repr(node) for node in volume.publications)
            raise InUse(f"volume {volume.id} is published to {elsewhere}; unpublish it there first")
        with self._counting if self._tools.settings.max_volumes else contextlib.nullcontext():
            self._check_limit()
            found.depot.pool.volumes.change(volume, publications={node_id: wanted})

    def _check_limit(self) -> None:
        limit = self._tools.settings.max_volumes
        if (
            limit
            and sum(bool(found.record.publications) for found in self._tools.pools.volumes())
            >= limit
        ):
            raise NoRoom(
                f"node {self._tools.settings.node_id!r} has the {limit} volumes it may have"
            )
