"""Requests of Node, from the wire to the model; the counterpart of `requests`."""

from __future__ import annotations

from typing import NamedTuple

from google.protobuf.message import Message

from csi.errors import NotNow, UnsupportedRequest
from csi.model import Access, Capability, PublishRequest, SizeRange
from csi.rpc import parameters
from csi.rpc.fields import one_capability, required, size_range
from csi.v1 import csi_pb2


class Staging(NamedTuple):
    """What NodeStageVolume asks for."""

    volume_id: str
    staging_path: str
    capability: Capability


class Place(NamedTuple):
    """A volume and where it is on the node."""

    volume_id: str
    path: str


class Growth(NamedTuple):
    """What NodeExpandVolume asks for; an empty range means as large as the volume is.

    The capability may be left out.
    """

    volume_id: str
    path: str
    size: SizeRange
    capability: Capability | None


def stage(message: csi_pb2.NodeStageVolumeRequest) -> Staging:
    """Reads NodeStageVolumeRequest."""
    return Staging(
        volume_id=required(message, "volume_id"),
        staging_path=_path(message, "staging_target_path"),
        capability=one_capability(message),
    )


def unstage(message: csi_pb2.NodeUnstageVolumeRequest) -> Place:
    """Reads NodeUnstageVolumeRequest."""
    return Place(required(message, "volume_id"), _path(message, "staging_target_path"))


def publish(message: csi_pb2.NodePublishVolumeRequest) -> PublishRequest:
    """Reads NodePublishVolumeRequest.

    Raises:
        InvalidRequest: A field is missing or malformed.
        NotNow: The staging path is missing, which the specification does not count as malformed.
    """
    volume_id = required(message, "volume_id")
    target_path = _path(message, "target_path")
    capability = one_capability(message)
    inline = parameters.inline_volume(message.volume_context)
    if inline is not None and capability.access is Access.BLOCK:
        raise UnsupportedRequest("an inline volume is a filesystem; block is not supported")
    if inline is None and not message.staging_target_path:
        raise NotNow("staging_target_path is missing; stage the volume before you publish it")
    return PublishRequest(
        volume_id=volume_id,
        target_path=target_path,
        capability=capability,
        read_only=message.readonly,
        staging_path=_without_end(message.staging_target_path),
        inline=inline,
    )


def unpublish(message: csi_pb2.NodeUnpublishVolumeRequest) -> Place:
    """Reads NodeUnpublishVolumeRequest."""
    return Place(required(message, "volume_id"), _path(message, "target_path"))


def stats(message: csi_pb2.NodeGetVolumeStatsRequest) -> Place:
    """Reads NodeGetVolumeStatsRequest."""
    return Place(required(message, "volume_id"), _path(message, "volume_path"))


def expand(message: csi_pb2.NodeExpandVolumeRequest) -> Growth:
    """Reads NodeExpandVolumeRequest."""
    volume_id = required(message, "volume_id")
    path = _path(message, "volume_path")
    has_capability = message.HasField("volume_capability")
    wanted = one_capability(message) if has_capability else None
    has_size = message.HasField("capacity_range")
    size = size_range(message.capacity_range) if has_size else SizeRange()
    return Growth(volume_id, path, size, wanted)


def _path(message: Message, field: str) -> str:
    return _without_end(required(message, field))


def _without_end(path: str) -> str:
    """Returns a path without slashes at its end: with one, a link there would be followed."""
    return path.rstrip("/") or path
