"""Answers, from the model to the wire.

The limits for strings hold in this direction too: what a person is told in a field of its own is
cut to them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import Int64Value

from csi.answers import CapacityFigures, Stats, UsageFigures
from csi.model import Kind, Snapshot, Source, SourceType, Volume
from csi.rpc.limits import STRING_BYTES
from csi.rpc.verbs import GroupSnapshot
from csi.v1 import csi_pb2

_NS = 1_000_000_000


def volume_context(record: Volume) -> dict[str, str]:
    """Returns what later calls on a volume bring back; it never changes."""
    return {"kind": record.kind.value}


def volume(record: Volume, segments: Mapping[str, str]) -> csi_pb2.Volume:
    """Returns a volume; `segments` is the topology of the node that has it."""
    return csi_pb2.Volume(
        capacity_bytes=record.size_bytes,
        volume_id=record.id,
        volume_context=volume_context(record),
        content_source=None if record.source is None else _source(record.source),
        accessible_topology=[csi_pb2.Topology(segments=segments)],
    )


def _source(source: Source) -> csi_pb2.VolumeContentSource:
    if source.type is SourceType.SNAPSHOT:
        snapshot_source = csi_pb2.VolumeContentSource.SnapshotSource(snapshot_id=source.id)
        return csi_pb2.VolumeContentSource(snapshot=snapshot_source)
    volume_source = csi_pb2.VolumeContentSource.VolumeSource(volume_id=source.id)
    return csi_pb2.VolumeContentSource(volume=volume_source)


def condition(problem: str) -> csi_pb2.VolumeCondition:
    """Returns the condition of a volume; no problem is normal."""
    message = shortened(problem) or "the volume is in order"
    return csi_pb2.VolumeCondition(abnormal=bool(problem), message=message)


def listed_volumes(
    records: Iterable[Volume], problems: Iterable[str], segments: Mapping[str, str]
) -> Iterator[csi_pb2.ListVolumesResponse.Entry]:
    """Yields the entries of ListVolumes.

    What is the same in most of them is made once and copied, since there may be very many.
    """
    entry_type = csi_pb2.ListVolumesResponse.Entry
    alike: dict[tuple[Kind, str], csi_pb2.ListVolumesResponse.Entry] = {}
    for record, problem in zip(records, problems, strict=True):
        pattern = alike.get((record.kind, problem))
        if pattern is None:
            status = csi_pb2.ListVolumesResponse.VolumeStatus(volume_condition=condition(problem))
            shared = csi_pb2.Volume(
                volume_context=volume_context(record),
                accessible_topology=[csi_pb2.Topology(segments=segments)],
            )
            pattern = alike[record.kind, problem] = entry_type(volume=shared, status=status)
        entry = entry_type()
        entry.CopyFrom(pattern)
        entry.volume.volume_id = record.id
        entry.volume.capacity_bytes = record.size_bytes
        if record.source is not None:
            entry.volume.content_source.CopyFrom(_source(record.source))
        if record.publications:
            entry.status.published_node_ids.extend(sorted(record.publications))
        yield entry


def found_volume(
    record: Volume, segments: Mapping[str, str], problem: str
) -> csi_pb2.ControllerGetVolumeResponse:
    """Returns the answer of ControllerGetVolume."""
    return csi_pb2.ControllerGetVolumeResponse(
        volume=volume(record, segments),
        status=csi_pb2.ControllerGetVolumeResponse.VolumeStatus(
            published_node_ids=sorted(record.publications),
            volume_condition=condition(problem),
        ),
    )


def snapshot(record: Snapshot) -> csi_pb2.Snapshot:
    """Returns a snapshot."""
    return csi_pb2.Snapshot(
        size_bytes=record.size_bytes,
        snapshot_id=record.id,
        source_volume_id=record.source_volume_id,
        creation_time=_timestamp(record.created_ns),
        ready_to_use=record.ready,
        group_snapshot_id=record.group_id,
    )


def group_snapshot(found: GroupSnapshot) -> csi_pb2.VolumeGroupSnapshot:
    """Returns a group; it is ready once all of its members are."""
    return csi_pb2.VolumeGroupSnapshot(
        group_snapshot_id=found.group.id,
        snapshots=[snapshot(member) for member in found.snapshots],
        creation_time=_timestamp(found.group.created_ns),
        ready_to_use=all(member.ready for member in found.snapshots),
    )


def capacity(figures: CapacityFigures) -> csi_pb2.GetCapacityResponse:
    """Returns the answer of GetCapacity."""
    return csi_pb2.GetCapacityResponse(
        available_capacity=figures.available_bytes,
        maximum_volume_size=Int64Value(value=figures.maximum_bytes),
        minimum_volume_size=Int64Value(value=figures.minimum_bytes),
    )


def stats(figures: Stats) -> csi_pb2.NodeGetVolumeStatsResponse:
    """Returns the answer of NodeGetVolumeStats."""
    usage = [_usage(figures.size, csi_pb2.VolumeUsage.BYTES)]
    if figures.inodes is not None:
        usage.append(_usage(figures.inodes, csi_pb2.VolumeUsage.INODES))
    return csi_pb2.NodeGetVolumeStatsResponse(
        usage=usage, volume_condition=condition(figures.problem)
    )


def _usage(figures: UsageFigures, unit: csi_pb2.VolumeUsage.Unit.ValueType) -> csi_pb2.VolumeUsage:
    return csi_pb2.VolumeUsage(
        available=figures.available, total=figures.total, used=figures.used, unit=unit
    )


def controller_capabilities(
    types: Iterable[csi_pb2.ControllerServiceCapability.RPC.Type.ValueType],
) -> csi_pb2.ControllerGetCapabilitiesResponse:
    """Returns the answer of ControllerGetCapabilities."""
    rpc = csi_pb2.ControllerServiceCapability.RPC
    return csi_pb2.ControllerGetCapabilitiesResponse(
        capabilities=[csi_pb2.ControllerServiceCapability(rpc=rpc(type=type_)) for type_ in types]
    )


def node_capabilities(
    types: Iterable[csi_pb2.NodeServiceCapability.RPC.Type.ValueType],
) -> csi_pb2.NodeGetCapabilitiesResponse:
    """Returns the answer of NodeGetCapabilities."""
    rpc = csi_pb2.NodeServiceCapability.RPC
    return csi_pb2.NodeGetCapabilitiesResponse(
        capabilities=[csi_pb2.NodeServiceCapability(rpc=rpc(type=type_)) for type_ in types]
    )


def shortened(text: str) -> str:
    """Cuts a text to what a string field may hold."""
    encoded = text.encode("utf-8", "backslashreplace")
    if len(encoded) <= STRING_BYTES:
        return encoded.decode()
    return encoded[: STRING_BYTES - 3].decode("utf-8", "ignore") + "..."


def _timestamp(ns: int) -> Timestamp:
    return Timestamp(seconds=ns // _NS, nanos=ns % _NS)
