"""The pools of this node with their ledgers: where an id, a name or a class leads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

from csi.errors import NoRoom, NotFound, NotNow
from csi.linux.copying import bytes_of_blocks
from csi.model import Group, Kind, Record, Snapshot, Volume
from csi.pool import ids
from csi.pool.image import IMAGE_NAME, PARTIAL_NAME
from csi.pool.pool import Pool
from csi.pool.shelf import Shelf
from csi.volumes.capacity import Entry, Ledger

R = TypeVar("R", bound=Record)


class Depot(NamedTuple):
    """A pool and what it has promised."""

    pool: Pool
    ledger: Ledger


class Found(NamedTuple, Generic[R]):
    """A record and the depot that holds it."""

    depot: Depot
    record: R

    @property
    def key(self) -> str:
        """The record's folder, which is also its key in locks and ledger."""
        return ids.key_of(self.record.id)


class Pools:
    """All depots; the first is the default."""

    def __init__(self, depots: Sequence[Depot]) -> None:
        self.depots = tuple(depots)

    def find_named(self, name: str) -> Depot | None:
        """Returns the depot that a StorageClass names; no name means the first."""
        if not name:
            return self.depots[0]
        return next((depot for depot in self.depots if depot.pool.name == name), None)

    def get_named(self, name: str) -> Depot:
        """Is `find_named`, but what is not there is an error.

        Raises:
            NoRoom: No pool of this node has that name. Other nodes may have one, and of all codes
                that of this error alone makes the scheduler try them.
        """
        found = self.find_named(name)
        if found is None:
            known = ", ".join(depot.pool.name for depot in self.depots)
            raise NoRoom(
                f"parameter pool: this node has no pool {name!r}, only {known}; the volume can be "
                "made on a node that has it"
            )
        return found

    def find_volume(self, volume_id: str) -> Found[Volume] | None:
        """Returns the volume with that id, the kubelet's ids of inline volumes included."""
        if ids.is_ephemeral(volume_id):
            found = self.find_volume_name(volume_id)
            return found if found is not None and found.record.ephemeral else None
        return self._find(volume_id, ids.Sort.VOLUME, lambda pool: pool.volumes)

    def find_record(self, volume: Volume) -> tuple[Depot, str] | None:
        """Returns depot and key of a volume whose record was found just now, if it is there."""
        key = ids.key_of(volume.id)
        for depot in self.depots:
            if depot.pool.volumes.peek(key) is volume:
                return depot, key
        return self.locate_volume(volume.id)  # the record was written anew

    def get_volume(self, volume_id: str) -> Found[Volume]:
        """Is `find_volume`, but what is not there is an error.

        Raises:
            NotFound: There is no such volume.
        """
        found = self.find_volume(volume_id)
        if found is None:
            raise NotFound(f"there is no volume {volume_id!r} on this node")
        return found

    def find_volume_name(self, name: str) -> Found[Volume] | None:
        """Returns the volume with that name, in whichever pool."""
        return self._find_name(name, lambda pool: pool.volumes)

    def locate_volume(self, volume_id: str) -> tuple[Depot, str] | None:
        """Returns depot and key of a volume, also of one whose record is damaged."""
        try:
            found = self.find_volume(volume_id)
            return None if found is None else (found.depot, found.key)
        except NotNow:
            object_id = ids.parse(volume_id, ids.Sort.VOLUME)
            for depot in self.depots:
                key = ids.key_for(depot.pool.uuid, volume_id)
                if object_id is not None and object_id.pool == depot.pool.id_part:
                    return depot, object_id.key
                if key in depot.pool.volumes.damaged:
                    return depot, key
            return None

    def find_snapshot(self, snapshot_id: str) -> Found[Snapshot] | None:
        """Returns the snapshot with that id."""
        return self._find(snapshot_id, ids.Sort.SNAPSHOT, lambda pool: pool.snapshots)

    def get_snapshot(self, snapshot_id: str) -> Found[Snapshot]:
        """Is `find_snapshot`, but what is not there is an error.

        Raises:
            NotFound: There is no such snapshot.
        """
        found = self.find_snapshot(snapshot_id)
        if found is None:
            raise NotFound(f"there is no snapshot {snapshot_id!r} on this node")
        return found

    def find_snapshot_name(self, name: str) -> Found[Snapshot] | None:
        """Returns the snapshot with that name, in whichever pool."""
        return self._find_name(name, lambda pool: pool.snapshots)

    def find_group(self, group_id: str) -> Found[Group] | None:
        """Returns the group snapshot with that id."""
        return self._find(group_id, ids.Sort.GROUP, lambda pool: pool.groups)

    def find_group_name(self, name: str) -> Found[Group] | None:
        """Returns the group snapshot with that name, in whichever pool."""
        return self._find_name(name, lambda pool: pool.groups)

    def is_elsewhere(self, text: str, sort: ids.Sort) -> bool:
        """Whether an id is one of this driver's that names a pool which this node does not have."""
        object_id = ids.parse(text, sort)
        return object_id is not None and all(
            depot.pool.id_part != object_id.pool for depot in self.depots
        )

    def volumes(self) -> Iterator[Found[Volume]]:
        """Yields every volume of every pool."""
        for depot in self.depots:
            for record in depot.pool.volumes.values():
                yield Found(depot, record)

    def _find_name(self, name: str, shelf: Callable[[Pool], Shelf[R]]) -> Found[R] | None:
        for depot in self.depots:
            record = shelf(depot.pool).find(ids.key_for(depot.pool.uuid, name))
            if record is not None:
                return Found(depot, record)
        return None

    def _find(
        self, text: str, sort: ids.Sort, shelf: Callable[[Pool], Shelf[R]]
    ) -> Found[R] | None:
        object_id = ids.parse(text, sort)
        if object_id is None:
            return None
        for depot in self.depots:
            if depot.pool.id_part == object_id.pool:
                record = shelf(depot.pool).find_id(object_id)
                return None if record is None else Found(depot, record)
        return None


def enter_volume(depot: Depot, volume: Volume) -> None:
    """Enters a volume into the ledger as it is now; it never fails.

    One that cannot be measured now is measured at the next question.
    """
    try:
        entry = volume_entry(volume, measure_volume(depot.pool, volume))
    except OSError:
        entry = Entry(_promised(volume), backed=is_backed(volume))
        depot.ledger.watch(ids.key_of(volume.id), lambda: measure_volume(depot.pool, volume))
    depot.ledger.put(ids.key_of(volume.id), entry)


def enter_snapshot(depot: Depot, snapshot: Snapshot) -> None:
    """Enters a snapshot into the ledger as it is now; see `enter_volume`."""
    try:
        entry = snapshot_entry(depot.pool, snapshot)
    except OSError:
        entry = Entry(snapshot.held_bytes)
        depot.ledger.watch(ids.key_of(snapshot.id), lambda: measure_snapshot(depot.pool, snapshot))
    depot.ledger.put(ids.key_of(snapshot.id), entry)


def volume_entry(volume: Volume, own_bytes: int) -> Entry:
    """Returns what the ledger holds of a volume that has so much allocated for itself alone."""
    return Entry(_promised(volume), own_bytes, backed=is_backed(volume))


def _promised(volume: Volume) -> int:
    borrowed = volume.borrowed_bytes if volume.kind is Kind.DIRECTORY else 0
    return volume.size_bytes + borrowed


def is_backed(volume: Volume) -> bool:
    """Whether room is kept for a volume: a size that nothing enforces is no promise."""
    return volume.kind is Kind.IMAGE or volume.quota_number != 0


def measure_volume(pool: Pool, volume: Volume) -> int:
    """Returns the bytes that a volume has allocated for itself alone."""
    if volume.kind is Kind.DIRECTORY:
        if pool.limits is None or not volume.quota_number:
            return 0
        return pool.limits.used_bytes(volume.quota_number)
    name = PARTIAL_NAME if volume.copying else IMAGE_NAME
    return own_image_bytes(volume, pool.volumes.status(ids.key_of(volume.id), name))


def own_image_bytes(volume: Volume, image: os.stat_result) -> int:
    """Returns the bytes that an image, of which this is the state, has for its volume alone."""
    return max(0, bytes_of_blocks(image) - volume.borrowed_bytes)


def snapshot_entry(pool: Pool, snapshot: Snapshot) -> Entry:
    """Returns what the ledger holds of a snapshot, measured now."""
    return Entry(snapshot.held_bytes, measure_snapshot(pool, snapshot))


def measure_snapshot(pool: Pool, snapshot: Snapshot) -> int:
    """Returns the bytes that a snapshot has for itself alone.

    A copy has taken its blocks; one that shares them may come to hold all of them alone.
    """
    if snapshot.shared:
        return 0
    name = PARTIAL_NAME if snapshot.copying else IMAGE_NAME
    return bytes_of_blocks(pool.snapshots.status(ids.key_of(snapshot.id), name))
