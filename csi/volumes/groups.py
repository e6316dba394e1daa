"""Group snapshots: several volumes at one moment, or none of them.

The members are built first; the group's own record is the commit. A start that finds members
without their group takes them away.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from csi.errors import AlreadyExists, InvalidRequest, NotFound, NotNow, UnsupportedRequest
from csi.model import Access, Group, Kind, Snapshot, SnapshotParameters, Volume
from csi.pool import ids, image
from csi.pool.building import Site
from csi.volumes import moments, presence
from csi.volumes.moments import Origin, Taken
from csi.volumes.pools import Depot, Found, enter_snapshot
from csi.volumes.snapshots import plan, settle, snapshot_source
from csi.volumes.tools import Tools


class GroupSnapshot(NamedTuple):
    """A group and its members."""

    group: Group
    snapshots: tuple[Snapshot, ...]


class _Member(NamedTuple):
    origin: Origin
    snapshot: Snapshot
    site: Site
    later: bool
    """Whether it is copied in the background; its volume is not in use, so any time will do."""


class Groups:
    """The verbs of the GroupController service."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    def create(
        self, name: str, source_volume_ids: Sequence[str], parameters: SnapshotParameters
    ) -> GroupSnapshot:
        """Takes a snapshot of each volume, all of one moment, or finds those of an earlier try.

        Raises:
            NotFound: One of the volumes does not exist.
            InvalidRequest: A volume is named twice, or they lie in several pools.
            AlreadyExists: The name belongs to a group of other volumes.
            NotNow: No common moment can be had.
            NoRoom: The pool cannot promise the room that the members may come to need.
            OperationPending: One of them is being worked on.
        """
        with self._tools.locks.exclusive(f"group-name:{name}", f"group snapshot {name!r}"):
            existing = self._tools.pools.find_group_name(name)
            if existing is not None:
                return self._found(existing, source_volume_ids)
            if parameters.frozen_copy_s:
                raise UnsupportedRequest(
                    "frozenCopySeconds is for snapshots of one volume; a group cannot be held "
                    "still for as long as copies take"
                )
            if len(set(source_volume_ids)) != len(source_volume_ids):
                raise InvalidRequest("source_volume_ids names a volume twice")
            sources = [
                snapshot_source(self._tools.pools, volume_id) for volume_id in source_volume_ids
            ]
            depot = _common_depot(sources)
            group_key = ids.key_for(depot.pool.uuid, name)
            what = f"group snapshot {name!r} or one of its volumes"
            volume_locks = [f"volume:{source.key}" for source in sources]
            with self._tools.locks.many([f"group:{group_key}"], volume_locks, what):
                origins = [
                    Origin.of_volume(snapshot_source(self._tools.pools, volume_id))
                    for volume_id in source_volume_ids
                ]
                later = [_has_to_wait(origin) for origin in origins]
                group = self._take(depot, name, list(zip(origins, later, strict=True)))
                return self._with_members(self._get(group.id))

    def get(self, group_id: str, snapshot_ids: Sequence[str]) -> GroupSnapshot:
        """Returns a group and its members.

        Raises:
            NotFound: There is no such group.
            InvalidRequest: The ids are not those of its members.
        """
        found = self._get(group_id)
        _check_members(found.record, snapshot_ids)
        return self._with_members(found)

    def delete(self, group_id: str, snapshot_ids: Sequence[str]) -> None:
        """Deletes a group and its members; an unknown one is no error.

        Raises:
            InvalidRequest: The ids are not those of its members.
            OperationPending: A volume is being made from a member.
        """
        found = self._tools.pools.find_group(group_id)
        if found is not None:
            _check_members(found.record, snapshot_ids)
        # Where it is gone, an earlier try may have ended between it and its members, or be there
        # just now.
        keys = [member.key for member in self._members_of(group_id, snapshot_ids)]
        for key in keys:
            self._tools.copies.cancel(key)
        locked = [f"group:{found.key}"] if found is not None else []
        locked += [f"snapshot:{key}" for key in keys]
        with self._tools.locks.many(locked, [], f"group {group_id}"):
            found = self._tools.pools.find_group(group_id)
            if found is not None:
                found.depot.pool.groups.discard(found.record)
            for member in self._members_of(group_id, snapshot_ids):
                discard_member(member.depot, member.record)
                self._tools.allowances.later(member.record.source_volume_id)
        self._tools.reaper.wake()

    def _members_of(self, group_id: str, snapshot_ids: Sequence[str]) -> list[Found[Snapshot]]:
        """Those of the snapshots that are there and belong to that group."""
        each_once = dict.fromkeys(snapshot_ids)
        found = (self._tools.pools.find_snapshot(snapshot_id) for snapshot_id in each_once)
        return [each for each in found if each is not None and each.record.group_id == group_id]

    def _found(self, found: Found[Group], source_volume_ids: Sequence[str]) -> GroupSnapshot:
        if sorted(found.record.source_volume_ids) != sorted(source_volume_ids):
            raise AlreadyExists(
                f"group snapshot {found.record.name!r} exists and was taken of other volumes"
            )
        return self._with_members(found)

    def _with_members(self, found: Found[Group]) -> GroupSnapshot:
        members = (self._tools.pools.find_snapshot(member) for member in found.record.snapshot_ids)
        return GroupSnapshot(
            found.record, tuple(member.record for member in members if member is not None)
        )

    def _get(self, group_id: str) -> Found[Group]:
        found = self._tools.pools.find_group(group_id)
        if found is None:
            raise NotFound(f"there is no group snapshot {group_id!r} on this node")
        return found

    def _take(self, depot: Depot, name: str, origins: Sequence[tuple[Origin, bool]]) -> Group:
        group_id = ids.new_id(ids.Sort.GROUP, depot.pool.uuid, name)
        with contextlib.ExitStack() as stack:
            plans = [
                plan(depot, f"{group_id}/{origin.record.id}", origin, group_id)
                for origin, _ in origins
            ]
            stack.enter_context(depot.ledger.reserve(sum(p.held_bytes for p in plans)))
            members = [
                _Member(
                    origin,
                    snapshot,
                    stack.enter_context(depot.pool.snapshots.site(ids.key_of(snapshot.id))),
                    later,
                )
                for (origin, later), snapshot in zip(origins, plans, strict=True)
            ]
            group_site = stack.enter_context(depot.pool.groups.site(ids.key_of(group_id)))
            snapshots = _take_moments(members, group_site)
            group = Group(
                id=group_id,
                name=name,
                created_ns=snapshots[0].created_ns,
                snapshot_ids=tuple(snapshot.id for snapshot in snapshots),
                source_volume_ids=tuple(snapshot.source_volume_id for snapshot in snapshots),
            )
            self._commit(depot, members, snapshots, group, group_site)
        for snapshot in snapshots:
            self._tools.allowances.ensure_lender(snapshot.source_volume_id)
        self._start_copies(depot, members, snapshots)
        return group

    def _commit(
        self,
        depot: Depot,
        members: Sequence[_Member],
        snapshots: Sequence[Snapshot],
        group: Group,
        group_site: Site,
    ) -> None:
        with contextlib.ExitStack() as undo:
            for member, snapshot in zip(members, snapshots, strict=True):
                depot.pool.snapshots.commit(member.site, snapshot)
                undo.callback(_revoke_member, depot, snapshot)
                enter_snapshot(depot, snapshot)
            depot.pool.groups.commit(group_site, group)
            undo.pop_all()

    def _start_copies(
        self, depot: Depot, members: Sequence[_Member], snapshots: Sequence[Snapshot]
    ) -> None:
        waiting = [(m, s) for m, s in zip(members, snapshots, strict=True) if m.later]
        for member, snapshot in waiting:
            hold = self._tools.locks.many(
                [f"snapshot:{member.site.key}"], [f"volume:{member.origin.key}"], snapshot.id
            )
            self._tools.copies.start_snapshot(depot, snapshot, member.origin, hold)
        if waiting:
            self._tools.copies.wait(waiting[-1][0].site.key)


def _revoke_member(depot: Depot, snapshot: Snapshot) -> None:
    depot.ledger.remove(ids.key_of(snapshot.id))
    depot.pool.snapshots.revoke(snapshot)


def discard_member(depot: Depot, snapshot: Snapshot) -> None:
    """Moves a member whose group is gone, or never came to be, to the trash."""
    depot.pool.snapshots.discard(snapshot)
    depot.ledger.remove(ids.key_of(snapshot.id))


def _take_moments(members: Sequence[_Member], group_site: Site) -> tuple[Snapshot, ...]:
    """Takes all members while all their filesystems are held still together."""
    origins = [member.origin for member in members if not member.later]
    with contextlib.ExitStack() as stack:
        images = {
            origin.key: stack.enter_context(origin.image())
            for origin in origins
            if origin.record.kind is Kind.IMAGE
        }
        with moments.held_still(origins, group_site.fd, moments.CLONE_BOUND_S):
            moment_ns = time.time_ns()
            snapshots = [_take_member(member, images, moment_ns) for member in members]
    for member in members:
        if member.origin.key in images:
            image.sync_image(member.site.fd)
            image.give_own_identity(member.site.fd, member.origin.record.fs_type)
    return tuple(snapshots)


def _take_member(member: _Member, images: Mapping[str, int], moment_ns: int) -> Snapshot:
    origin, snapshot, site, later = member
    if later:
        image.start_copy(site.fd)
        return snapshot.replace(copying=True, shared=False, created_ns=moment_ns)
    if origin.record.kind is Kind.DIRECTORY:
        taken = moments.take_directory(origin, site.fd, 0, read_only=True, limited=False)
        return settle(snapshot, taken).replace(created_ns=moment_ns)
    return settle(snapshot, Taken(moment_ns, image.clone_image(images[origin.key], site.fd, 0)))


def _common_depot(sources: Sequence[Found[Volume]]) -> Depot:
    depots = {source.depot.pool.uuid: source.depot for source in sources}
    if len(depots) != 1:
        raise InvalidRequest("the volumes of a group snapshot have to lie in one pool")
    return next(iter(depots.values()))


def _has_to_wait(origin: Origin) -> bool:
    """Whether a member has to be copied in the background.

    Raises:
        NotNow: It is in use in a way that cannot be held still together with others.
    """
    volume = origin.record
    stays_still = volume.kind is Kind.IMAGE and volume.access is Access.FILESYSTEM
    if (
        not stays_still
        and isinstance(volume, Volume)
        and presence.look(origin.pool, origin.key).anywhere
    ):
        what = "a raw block device" if volume.kind is Kind.IMAGE else "a directory"
        raise NotNow(
            f"volume {volume.id} is {what} in use, which cannot be held still together with "
            "others; stop its pods first"
        )
    return origin.needs_background_copy(0)


def _check_members(group: Group, snapshot_ids: Sequence[str]) -> None:
    if sorted(group.snapshot_ids) != sorted(snapshot_ids):
        raise InvalidRequest(
            f"snapshot_ids does not match the members of {group.id}, which are "
            f"{', '.join(group.snapshot_ids)}"
        )
