"""Where the contents of a new volume come from: the source that a request names, found here."""

from __future__ import annotations

from csi.errors import NoRoom, OperationPending, UnsupportedRequest
from csi.model import Kind, Snapshot, Source, SourceType
from csi.pool import ids
from csi.volumes.moments import Origin
from csi.volumes.pools import Pools


def get_origin(pools: Pools, source: Source) -> Origin:
    """Returns the source of a copy.

    Raises:
        NotFound: There is no such source.
        NoRoom: It is on another node.
        UnsupportedRequest: It is a pod's own volume.
        OperationPending: It is itself still being copied.
    """
    is_volume = source.type is SourceType.VOLUME
    if pools.is_elsewhere(source.id, ids.Sort.VOLUME if is_volume else ids.Sort.SNAPSHOT):
        # Of all codes this one alone makes the scheduler try another node.
        raise NoRoom(
            f"the source {source.id} lies in a pool that this node does not have; a copy of "
            "it can be made only on the node that has"
        )
    if source.type is SourceType.VOLUME:
        found = pools.get_volume(source.id)
        if found.record.ephemeral is not None:
            raise UnsupportedRequest("an inline volume of a pod cannot be cloned")
        origin = Origin.of_volume(found)
    else:
        origin = Origin.of_snapshot(pools.get_snapshot(source.id))
    if origin.record.copying:
        raise OperationPending(f"{source.id} is still being copied itself; try again later")
    return origin


def lender_of_copy(origin: Origin) -> str:
    """Returns the volume that stays charged for what a copy of a directory shares."""
    record = origin.record
    if record.kind is not Kind.DIRECTORY:
        return ""
    return record.source_volume_id if isinstance(record, Snapshot) else record.id


def lock_of(origin: Origin) -> str:
    """Returns the lock that holds a source still while it is copied."""
    sort = "snapshot" if isinstance(origin.record, Snapshot) else "volume"
    return f"{sort}:{origin.key}"
