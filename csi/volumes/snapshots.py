"""Snapshots: a moment of a volume that stands alone, or a refusal."""

from __future__ import annotations

import time

from csi.answers import Page
from csi.errors import AlreadyExists, InvalidRequest, NotFound, OperationPending, UnsupportedRequest
from csi.model import Kind, Snapshot, SnapshotParameters, Volume
from csi.pool import ids, image
from csi.pool.building import Site
from csi.volumes import moments, paging
from csi.volumes.capacity import Entry
from csi.volumes.moments import Origin, Taken
from csi.volumes.pools import Depot, Found, Pools, enter_snapshot
from csi.volumes.tools import Tools


class Snapshots:
    """The verbs of the Controller service on one snapshot."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    def create(self, name: str, source_volume_id: str, parameters: SnapshotParameters) -> Snapshot:
        """Takes a snapshot, or finds the one that an earlier try took.

        One that has to be copied is answered while the copy still runs, `copying` set; the
        repeated call finds it.

        Raises:
            NotFound: There is no such volume.
            AlreadyExists: The name belongs to a snapshot of another volume.
            NoRoom: The pool cannot promise the room that it may come to need.
            NotNow: The volume is in use in a way that lets no moment be had.
            OperationPending: The volume or the snapshot is being worked on.
        """
        with self._tools.locks.exclusive(f"snapshot-name:{name}", f"snapshot {name!r}"):
            existing = self._tools.pools.find_snapshot_name(name)
            if existing is not None:
                return self._found(existing, source_volume_id)
            source = self._source(source_volume_id)
            key = ids.key_for(source.depot.pool.uuid, name)
            what = f"snapshot {name!r} or volume {source_volume_id}"
            with self._tools.locks.many(
                [f"snapshot:{key}"], [f"volume:{source.key}"], what
            ) as hold:
                origin = Origin.of_volume(self._source(source_volume_id))
                snapshot = plan(source.depot, name, origin)
                if origin.needs_background_copy(parameters.frozen_copy_s):
                    snapshot = self._begin_copy(source.depot, key, snapshot)
                    self._tools.copies.start_snapshot(
                        source.depot, snapshot, origin, hold.hand_over()
                    )
                    self._tools.copies.wait(key)
                    return self.get(snapshot.id)
                return self._take(source.depot, key, snapshot, origin, parameters)

    def get(self, snapshot_id: str) -> Snapshot:
        """Returns the record of a snapshot.

        Raises:
            NotFound: There is none with that id.
        """
        return self._tools.pools.get_snapshot(snapshot_id).record

    def page(
        self, token: str, limit: int, *, snapshot_id: str = "", source_volume_id: str = ""
    ) -> Page[Snapshot]:
        """Returns snapshots in the order of their creation; filters that match nothing are fine.

        Raises:
            BadToken: The token is none of ours.
        """
        paging.position_of(token)
        if snapshot_id:
            found = self._tools.pools.find_snapshot(snapshot_id)
            if found is None or source_volume_id not in ("", found.record.source_volume_id):
                return Page(items=())
            return Page(items=(found.record,))
        return paging.page(
            [depot.pool.snapshots for depot in self._tools.pools.depots],
            token,
            limit,
            lambda snapshot: source_volume_id in ("", snapshot.source_volume_id),
        )

    def delete(self, snapshot_id: str) -> None:
        """Deletes a snapshot; unknown ones are no error.

        Raises:
            InvalidRequest: It belongs to a group, and goes with that.
            OperationPending: A volume is being made from it.
        """
        found = self._tools.pools.find_snapshot(snapshot_id)
        if found is None:
            return
        if found.record.group_id:
            raise InvalidRequest(
                f"snapshot {snapshot_id} is a member of {found.record.group_id}; delete the group"
            )
        self._tools.copies.cancel(found.key)
        with self._tools.locks.exclusive(f"snapshot:{found.key}", f"snapshot {snapshot_id}"):
            found = self._tools.pools.find_snapshot(snapshot_id)
            if found is not None:
                found.depot.pool.snapshots.discard(found.record)
                found.depot.ledger.remove(found.key)
                self._tools.allowances.later(found.record.source_volume_id)
                self._tools.reaper.wake()

    def _found(self, found: Found[Snapshot], source_volume_id: str) -> Snapshot:
        snapshot = found.record
        if snapshot.source_volume_id != source_volume_id or snapshot.group_id:
            raise AlreadyExists(
                f"snapshot {snapshot.name!r} exists and was taken of {snapshot.source_volume_id}"
            )
        if not snapshot.copying:
            return snapshot
        self._tools.copies.ensure_snapshot(found.depot, snapshot)
        self._tools.copies.wait(found.key)
        return self.get(snapshot.id)

    def _source(self, volume_id: str) -> Found[Volume]:
        return snapshot_source(self._tools.pools, volume_id)

    def _begin_copy(self, depot: Depot, key: str, snapshot: Snapshot) -> Snapshot:
        snapshot = snapshot.replace(copying=True, shared=False, created_ns=time.time_ns())
        with depot.ledger.reserve(snapshot.held_bytes), depot.pool.snapshots.site(key) as site:
            image.start_copy(site.fd)
            depot.pool.snapshots.commit(site, snapshot)
            depot.ledger.put(key, Entry(snapshot.held_bytes))
        return snapshot

    def _take(
        self,
        depot: Depot,
        key: str,
        snapshot: Snapshot,
        origin: Origin,
        parameters: SnapshotParameters,
    ) -> Snapshot:
        with depot.ledger.reserve(snapshot.held_bytes), depot.pool.snapshots.site(key) as site:
            snapshot = settle(snapshot, self._moment(origin, site, parameters))
            depot.pool.snapshots.commit(site, snapshot)
            enter_snapshot(depot, snapshot)
        self._tools.allowances.ensure_lender(snapshot.source_volume_id)
        return snapshot

    def _moment(self, origin: Origin, site: Site, parameters: SnapshotParameters) -> Taken:
        if origin.record.kind is Kind.DIRECTORY:
            return moments.take_directory(origin, site.fd, 0, read_only=True, limited=False)
        return moments.take_image(origin, site.fd, 0, parameters.frozen_copy_s)


def snapshot_source(pools: Pools, volume_id: str) -> Found[Volume]:
    """Returns the volume that a snapshot is to be taken of.

    Raises:
        NotFound: There is none.
        UnsupportedRequest: It belongs to a pod.
        OperationPending: Its own contents are still being copied.
    """
    found = pools.find_volume(volume_id)
    if found is None:
        raise NotFound(f"there is no volume {volume_id!r} on this node to take a snapshot of")
    if found.record.ephemeral is not None:
        raise UnsupportedRequest("an inline volume of a pod cannot be snapshotted")
    if found.record.copying:
        raise OperationPending(f"volume {volume_id} is still being copied itself; try again later")
    return found


def plan(depot: Depot, name: str, origin: Origin, group_id: str = "") -> Snapshot:
    """Returns the record that a snapshot will have, the room it may need counted."""
    volume = origin.record
    return Snapshot(
        id=ids.new_id(ids.Sort.SNAPSHOT, depot.pool.uuid, name),
        name=name,
        created_ns=0,
        source_volume_id=volume.id,
        kind=volume.kind,
        access=volume.access,
        size_bytes=volume.size_bytes,
        fs_type=volume.fs_type,
        held_bytes=origin.held_bytes(),
        group_id=group_id,
    )


def settle(snapshot: Snapshot, taken: Taken) -> Snapshot:
    """Returns the record with what came of taking the moment."""
    return snapshot.replace(
        created_ns=taken.moment_ns,
        shared=taken.shared_bytes > 0,
        held_bytes=max(snapshot.held_bytes, taken.shared_bytes),
    )
