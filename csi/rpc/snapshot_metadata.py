"""The SnapshotMetadata service: streams of the ranges that hold data, or have changed.

Each message says the volume's size and the kind of ranges again. One is sent also where there are
no ranges, so that a caller learns the size.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from csi.answers import Blocks, ByteRange
from csi.rpc import metadata_requests
from csi.rpc.verbs import Driver
from csi.v1 import csi_pb2

RANGES_A_MESSAGE = 8192
"""At most, asked for or not: about 150 KiB of the 4 MiB that callers take."""

_TYPE = csi_pb2.BlockMetadataType.VARIABLE_LENGTH


class SnapshotMetadata:
    """The methods of the SnapshotMetadata service; each is a generator of its messages."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def get_metadata_allocated(
        self, request: csi_pb2.GetMetadataAllocatedRequest
    ) -> Iterator[csi_pb2.GetMetadataAllocatedResponse]:
        """Answers GetMetadataAllocated."""
        wanted = metadata_requests.allocated(request)
        with self._driver.changed_blocks.allocated(wanted.snapshot_id, wanted.start) as blocks:
            for part in _parts(blocks, wanted.limit):
                yield csi_pb2.GetMetadataAllocatedResponse(
                    block_metadata_type=_TYPE,
                    volume_capacity_bytes=blocks.volume_bytes,
                    block_metadata=_on_the_wire(part),
                )

    def get_metadata_delta(
        self, request: csi_pb2.GetMetadataDeltaRequest
    ) -> Iterator[csi_pb2.GetMetadataDeltaResponse]:
        """Answers GetMetadataDelta."""
        wanted = metadata_requests.delta(request)
        found = self._driver.changed_blocks.delta(wanted.base_id, wanted.target_id, wanted.start)
        with found as blocks:
            for part in _parts(blocks, wanted.limit):
                yield csi_pb2.GetMetadataDeltaResponse(
                    block_metadata_type=_TYPE,
                    volume_capacity_bytes=blocks.volume_bytes,
                    block_metadata=_on_the_wire(part),
                )


def _parts(blocks: Blocks, limit: int) -> Iterator[list[ByteRange]]:
    """Yields what goes into one message each, at least once."""
    size = min(limit or RANGES_A_MESSAGE, RANGES_A_MESSAGE)
    part = list(itertools.islice(blocks.ranges, size))
    yield part
    while len(part) == size and (part := list(itertools.islice(blocks.ranges, size))):
        yield part


def _on_the_wire(part: list[ByteRange]) -> Iterator[csi_pb2.BlockMetadata]:
    return (csi_pb2.BlockMetadata(byte_offset=at, size_bytes=length) for at, length in part)
