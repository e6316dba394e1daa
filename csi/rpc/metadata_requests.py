"""Requests of SnapshotMetadata, from the wire to the model; the counterpart of `requests`."""

from __future__ import annotations

from typing import NamedTuple

from csi.rpc.fields import page_limit, required
from csi.v1 import csi_pb2


class Allocation(NamedTuple):
    """What GetMetadataAllocated asks for; no limit is 0."""

    snapshot_id: str
    start: int
    limit: int


class Delta(NamedTuple):
    """What GetMetadataDelta asks for; no limit is 0."""

    base_id: str
    target_id: str
    start: int
    limit: int


def allocated(message: csi_pb2.GetMetadataAllocatedRequest) -> Allocation:
    """Reads GetMetadataAllocatedRequest; whether the offset is in the volume is judged there."""
    return Allocation(
        snapshot_id=required(message, "snapshot_id"),
        start=message.starting_offset,
        limit=page_limit(message.max_results, "max_results"),
    )


def delta(message: csi_pb2.GetMetadataDeltaRequest) -> Delta:
    """Reads GetMetadataDeltaRequest; whether the offset is in the volume is judged there."""
    return Delta(
        base_id=required(message, "base_snapshot_id"),
        target_id=required(message, "target_snapshot_id"),
        start=message.starting_offset,
        limit=page_limit(message.max_results, "max_results"),
    )
