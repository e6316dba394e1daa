"""Requests of Controller and GroupController, from the wire to the model.

One function a request, and every INVALID_ARGUMENT that the request alone gives cause for. They
come in the order of the calls in the proto file; those of Node are in `node_requests`.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import NamedTuple

from csi.errors import InvalidRequest, UnsupportedRequest
from csi.model import (
    Capability,
    LimitChanges,
    Parameters,
    SizeRange,
    SnapshotParameters,
    Source,
    SourceType,
    VolumeRequest,
)
from csi.rpc import parameters
from csi.rpc.fields import capabilities, ids, one_capability, page_limit, required, size_range
from csi.v1 import csi_pb2


class Attachment(NamedTuple):
    """What ControllerPublishVolume asks for."""

    volume_id: str
    node_id: str
    capability: Capability
    read_only: bool


class Detachment(NamedTuple):
    """What ControllerUnpublishVolume asks for; no node means every one."""

    volume_id: str
    node_id: str


class Question(NamedTuple):
    """What ValidateVolumeCapabilities asks.

    `refusal` says why no volume of this driver can be used so; the rest is empty then.
    """

    volume_id: str
    capabilities: tuple[Capability, ...] = ()
    parameters: Parameters | None = None
    limits: LimitChanges = MappingProxyType({})
    refusal: str = ""


class PageRequest(NamedTuple):
    """Which page of a list is wanted, and of snapshots which ones; no limit is 0."""

    token: str
    limit: int
    snapshot_id: str = ""
    source_volume_id: str = ""


class CapacityRequest(NamedTuple):
    """What GetCapacity asks; no segments means anywhere."""

    capabilities: tuple[Capability, ...]
    parameters: Parameters
    segments: dict[str, str] | None


class SnapshotRequest(NamedTuple):
    """What CreateSnapshot asks for."""

    name: str
    source_volume_id: str
    parameters: SnapshotParameters


class Growth(NamedTuple):
    """What ControllerExpandVolume asks for; the capability may be left out."""

    volume_id: str
    size: SizeRange
    capability: Capability | None


class Modification(NamedTuple):
    """What ControllerModifyVolume asks for."""

    volume_id: str
    limits: LimitChanges


class GroupRequest(NamedTuple):
    """What CreateVolumeGroupSnapshot asks for."""

    name: str
    source_volume_ids: tuple[str, ...]
    parameters: SnapshotParameters


class GroupMembers(NamedTuple):
    """A group and the members that a caller takes it to have."""

    group_id: str
    snapshot_ids: tuple[str, ...]


def create_volume(message: csi_pb2.CreateVolumeRequest) -> VolumeRequest:
    """Reads CreateVolumeRequest.

    Raises:
        InvalidRequest: A field is missing, malformed or contradicts another one.
    """
    name = required(message, "name")
    wanted = capabilities(message.volume_capabilities)
    if not wanted:
        raise InvalidRequest("volume_capabilities is missing")
    if len({capability.access for capability in wanted}) > 1:
        raise InvalidRequest("volume_capabilities mixes block and mount; a volume is one of them")
    limits = parameters.limit_changes(message.mutable_parameters)
    has_size = message.HasField("capacity_range")
    return VolumeRequest(
        name=name,
        size=size_range(message.capacity_range) if has_size else SizeRange(),
        capabilities=wanted,
        parameters=parameters.volume_parameters(message.parameters),
        limits=limits,
        source=_source(message),
        claim=parameters.claim(message.parameters),
        requisite=_requisite(message),
    )


def _source(message: csi_pb2.CreateVolumeRequest) -> Source | None:
    if not message.HasField("volume_content_source"):
        return None
    content = message.volume_content_source
    kind = content.WhichOneof("type")
    if kind == "snapshot":
        found = Source(type=SourceType.SNAPSHOT, id=content.snapshot.snapshot_id)
    elif kind == "volume":
        found = Source(type=SourceType.VOLUME, id=content.volume.volume_id)
    else:
        raise InvalidRequest("volume_content_source must be a snapshot or a volume")
    if not found.id:
        raise InvalidRequest(f"volume_content_source.{kind}.{kind}_id is missing")
    return found


def _requisite(message: csi_pb2.CreateVolumeRequest) -> tuple[dict[str, str], ...]:
    if not message.HasField("accessibility_requirements"):
        return ()
    topology = message.accessibility_requirements
    # Without requisite places any will do, and a driver with one node has no choice to prefer.
    if not topology.requisite and not topology.preferred:
        raise InvalidRequest("accessibility_requirements needs requisite or preferred, or both")
    return tuple(dict(place.segments) for place in topology.requisite)


def delete_volume(message: csi_pb2.DeleteVolumeRequest) -> str:
    """Reads DeleteVolumeRequest: the volume's id."""
    return required(message, "volume_id")


def controller_publish(message: csi_pb2.ControllerPublishVolumeRequest) -> Attachment:
    """Reads ControllerPublishVolumeRequest."""
    return Attachment(
        volume_id=required(message, "volume_id"),
        node_id=required(message, "node_id"),
        capability=one_capability(message),
        read_only=message.readonly,
    )


def controller_unpublish(message: csi_pb2.ControllerUnpublishVolumeRequest) -> Detachment:
    """Reads ControllerUnpublishVolumeRequest."""
    return Detachment(required(message, "volume_id"), message.node_id)


def validate(message: csi_pb2.ValidateVolumeCapabilitiesRequest) -> Question:
    """Reads ValidateVolumeCapabilitiesRequest.

    What is well-formed and yet not supported is an answer here and no error.
    """
    volume_id = required(message, "volume_id")
    if not message.volume_capabilities:
        raise InvalidRequest("volume_capabilities is missing")
    try:
        wanted = capabilities(message.volume_capabilities)
        limits = parameters.limit_changes(message.mutable_parameters)
        given = parameters.volume_parameters(message.parameters) if message.parameters else None
    except UnsupportedRequest as error:
        return Question(volume_id, refusal=str(error))
    return Question(volume_id, wanted, given, limits)


def list_volumes(message: csi_pb2.ListVolumesRequest) -> PageRequest:
    """Reads ListVolumesRequest."""
    return PageRequest(message.starting_token, page_limit(message.max_entries))


def get_capacity(message: csi_pb2.GetCapacityRequest) -> CapacityRequest:
    """Reads GetCapacityRequest.

    Parameters that are wrong count as not given. Refused here, they would leave a class without
    capacity, and its claims pending for want of storage, so the scheduler says; but CreateVolume
    refuses them with an event on the claim that names the parameter.
    """
    has_place = message.HasField("accessible_topology")
    try:
        given = parameters.volume_parameters(message.parameters)
    except UnsupportedRequest:
        given = Parameters()
    return CapacityRequest(
        capabilities=capabilities(message.volume_capabilities),
        parameters=given,
        segments=dict(message.accessible_topology.segments) if has_place else None,
    )


def create_snapshot(message: csi_pb2.CreateSnapshotRequest) -> SnapshotRequest:
    """Reads CreateSnapshotRequest."""
    return SnapshotRequest(
        name=required(message, "name"),
        source_volume_id=required(message, "source_volume_id"),
        parameters=parameters.snapshot_parameters(message.parameters),
    )


def delete_snapshot(message: csi_pb2.DeleteSnapshotRequest) -> str:
    """Reads DeleteSnapshotRequest: the snapshot's id."""
    return required(message, "snapshot_id")


def list_snapshots(message: csi_pb2.ListSnapshotsRequest) -> PageRequest:
    """Reads ListSnapshotsRequest."""
    return PageRequest(
        message.starting_token,
        page_limit(message.max_entries),
        message.snapshot_id,
        message.source_volume_id,
    )


def get_snapshot(message: csi_pb2.GetSnapshotRequest) -> str:
    """Reads GetSnapshotRequest: the snapshot's id."""
    return required(message, "snapshot_id")


def controller_expand(message: csi_pb2.ControllerExpandVolumeRequest) -> Growth:
    """Reads ControllerExpandVolumeRequest."""
    volume_id = required(message, "volume_id")
    if not message.HasField("capacity_range"):
        raise InvalidRequest("capacity_range is missing")
    has_capability = message.HasField("volume_capability")
    wanted = one_capability(message) if has_capability else None
    return Growth(volume_id, size_range(message.capacity_range), wanted)


def controller_get_volume(message: csi_pb2.ControllerGetVolumeRequest) -> str:
    """Reads ControllerGetVolumeRequest: the volume's id."""
    return required(message, "volume_id")


def controller_modify(message: csi_pb2.ControllerModifyVolumeRequest) -> Modification:
    """Reads ControllerModifyVolumeRequest."""
    return Modification(
        required(message, "volume_id"), parameters.limit_changes(message.mutable_parameters)
    )


def create_group(message: csi_pb2.CreateVolumeGroupSnapshotRequest) -> GroupRequest:
    """Reads CreateVolumeGroupSnapshotRequest."""
    name = required(message, "name")
    if not message.source_volume_ids:
        raise InvalidRequest("source_volume_ids is missing")
    return GroupRequest(
        name=name,
        source_volume_ids=ids(message.source_volume_ids, "source_volume_ids"),
        parameters=parameters.snapshot_parameters(message.parameters),
    )


def delete_group(message: csi_pb2.DeleteVolumeGroupSnapshotRequest) -> GroupMembers:
    """Reads DeleteVolumeGroupSnapshotRequest.

    The list of members is judged against the group, after it is found: an unknown group is no
    error, whatever the list.
    """
    return GroupMembers(required(message, "group_snapshot_id"), tuple(message.snapshot_ids))


def get_group(message: csi_pb2.GetVolumeGroupSnapshotRequest) -> GroupMembers:
    """Reads GetVolumeGroupSnapshotRequest; the list of members as in `delete_group`."""
    return GroupMembers(required(message, "group_snapshot_id"), tuple(message.snapshot_ids))
