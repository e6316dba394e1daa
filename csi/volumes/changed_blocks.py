"""Which blocks of a snapshot hold data, and which differ between two: for incremental backups.

Nothing is read to find that out. On a pool that reflinks, a block that neither side has written
since is the same block on the disk, and the filesystem says where each one lies. Snapshots are
never written to, so what shares a place is the same; what does not may still be equal, and is then
reported once too often, never once too seldom.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from csi.answers import Blocks, ByteRange
from csi.errors import NotNow, OutOfRange
from csi.linux.extents import Extent, read_extents
from csi.model import BLOCK_BYTES, Kind, Snapshot
from csi.pool.image import IMAGE_NAME
from csi.volumes.pools import Found
from csi.volumes.tools import Tools

_NOTHING = -(1 << 63)
"""The place of what reads as zeros."""
_INEXACT = _NOTHING + 1
"""The place of data of which it is not known exactly where it lies."""


class ChangedBlocks:
    """The verbs of the SnapshotMetadata service."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    @contextlib.contextmanager
    def allocated(self, snapshot_id: str, start: int) -> Iterator[Blocks]:
        """Gives the ranges of a snapshot that hold data, from an offset on.

        The snapshot stays locked, shared, for the body of the `with`.

        Raises:
            NotFound: There is no such snapshot.
            OutOfRange: It ends before the offset.
            NotNow: It has no blocks, or they are still being copied.
            OperationPending: It is being worked on.
        """
        _check_readable(self._tools.pools.get_snapshot(snapshot_id).record)
        with self._locked(snapshot_id) as (found,), _opened(found) as image:
            end = found.record.size_bytes
            begin = _begin(start, end)
            ranges = differences((), _readable(image, found, begin, end), begin, end)
            yield Blocks(end, joined(ranges))

    @contextlib.contextmanager
    def delta(self, base_id: str, target_id: str, start: int) -> Iterator[Blocks]:
        """Gives the ranges of the target that may differ from the base, from an offset on.

        What reads as zeros in the target and held data in the base is among them. Where the base
        is the smaller one, it counts as zeros beyond its end.

        Raises:
            NotFound: There is no such snapshot.
            OutOfRange: The target ends before the offset.
            NotNow: Nothing can be told of these two; the message says why.
            OperationPending: One of them is being worked on.
        """
        pools = self._tools.pools
        check_comparable(pools.get_snapshot(base_id), pools.get_snapshot(target_id))
        with (
            self._locked(base_id, target_id) as (base, target),
            _opened(base) as base_image,
            _opened(target) as target_image,
        ):
            end = target.record.size_bytes
            begin = _begin(start, end)
            base_end = min(end, base.record.size_bytes)
            ranges = differences(
                _readable(base_image, base, begin, base_end),
                _readable(target_image, target, begin, end),
                begin,
                end,
            )
            yield Blocks(end, joined(ranges))

    @contextlib.contextmanager
    def _locked(self, *snapshot_ids: str) -> Iterator[tuple[Found[Snapshot], ...]]:
        pools = self._tools.pools
        keys = [f"snapshot:{pools.get_snapshot(one).key}" for one in snapshot_ids]
        with self._tools.locks.many((), keys, f"snapshot {' or '.join(snapshot_ids)}"):
            yield tuple(pools.get_snapshot(one) for one in snapshot_ids)


def check_comparable(base: Found[Snapshot], target: Found[Snapshot]) -> None:
    """Checks that the difference of two snapshots can be told.

    Raises:
        NotNow: It cannot; the message says why and what to do.
    """
    for found in (base, target):
        _check_readable(found.record)
    if base.record.source_volume_id != target.record.source_volume_id:
        raise NotNow(
            f"snapshot {base.record.id} was taken of {base.record.source_volume_id} and "
            f"{target.record.id} of {target.record.source_volume_id}; name two of one volume, or "
            "back the newer one up whole"
        )
    if not target.depot.pool.features.reflink:
        raise NotNow(
            f"pool {target.depot.pool.name!r} cannot share blocks (that takes xfs or btrfs), so "
            "its snapshots are copies and nothing tells what has changed between them; back up "
            f"{target.record.id} whole, by its allocated blocks"
        )


def differences(
    base: Iterable[Extent], target: Iterable[Extent], start: int, end: int
) -> Iterator[ByteRange]:
    """Yields the ranges between `start` and `end` in which two files may differ.

    Both are given by their extents in ascending order. What neither has data in is equal.
    """
    pieces = _pieces(base, start, end)
    old = _Piece(start, start, _NOTHING)
    for new in _pieces(target, start, end):
        position = new.start
        while position < new.end:
            while old.end <= position:
                old = next(pieces)
            stop = min(old.end, new.end)
            if old.place != new.place or new.place == _INEXACT:
                yield ByteRange(position, stop - position)
            position = stop


def joined(ranges: Iterable[ByteRange], block_bytes: int = BLOCK_BYTES) -> Iterator[ByteRange]:
    """Yields ascending ranges widened to whole blocks, neighbours made one."""
    first = last = -1
    for offset, length in ranges:
        begin = offset // block_bytes * block_bytes
        end = -(-(offset + length) // block_bytes) * block_bytes
        if begin <= last:
            last = max(last, end)
            continue
        if last > first:
            yield ByteRange(first, last - first)
        first, last = begin, end
    if last > first:
        yield ByteRange(first, last - first)


class _Piece(NamedTuple):
    """A range of a file and where it lies: as far from its offset as `place` says."""

    start: int
    end: int
    place: int


def _pieces(extents: Iterable[Extent], start: int, end: int) -> Iterator[_Piece]:
    """Yields pieces that cover the whole range without a gap."""
    position = start
    for extent in extents:
        first, last = max(extent.offset, position), min(extent.end, end)
        if first >= last or not extent.written:
            continue
        if first > position:
            yield _Piece(position, first, _NOTHING)
        yield _Piece(first, last, extent.physical - extent.offset if extent.exact else _INEXACT)
        position = last
    if position < end:
        yield _Piece(position, end, _NOTHING)


def _check_readable(snapshot: Snapshot) -> None:
    if snapshot.kind is not Kind.IMAGE:
        raise NotNow(
            f"snapshot {snapshot.id} is one of a directory, which has no blocks; back up its "
            "files, or use kind: image for volumes whose changed blocks are wanted"
        )
    if not snapshot.ready:
        raise NotNow(
            f"snapshot {snapshot.id} is still being copied; ask again when it is ready to use"
        )


def _begin(start: int, end: int) -> int:
    if not 0 <= start <= end:
        raise OutOfRange(f"starting_offset is {start}, and the snapshot has {end} bytes")
    return start // BLOCK_BYTES * BLOCK_BYTES


@contextlib.contextmanager
def _opened(found: Found[Snapshot]) -> Iterator[int]:
    with found.depot.pool.snapshots.opened(found.key, IMAGE_NAME, os.O_RDONLY) as image:
        yield image


def _readable(image: int, found: Found[Snapshot], start: int, end: int) -> Iterator[Extent]:
    try:
        yield from read_extents(image, start, end)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        raise NotNow(
            f"the filesystem of pool {found.depot.pool.name!r} does not tell where data lies; "
            "back up the whole volume"
        ) from error
