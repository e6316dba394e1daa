"""What a start does before the driver serves: read the pools, and mend what a crash left.

Whatever ends the process before, this brings a pool back to what its records say: filesystems that
were left frozen are thawed, unfinished entries and members of groups that never came to be go to
the trash, copies begin again, and the ledger is counted up from records and allocated blocks.
"""

from __future__ import annotations

import logging

from csi.errors import NotNow
from csi.linux import loop, mounts
from csi.linux.freeze import thaw
from csi.model import Kind, Volume
from csi.pool import directory, ids
from csi.pool.frozen_note import read_frozen_note
from csi.pool.image import IMAGE_NAME, mend_length
from csi.pool.image_growth import drop_copy
from csi.pool.shelf import FileId
from csi.volumes import presence
from csi.volumes.capacity import Entry
from csi.volumes.devices import opened_mount
from csi.volumes.groups import discard_member
from csi.volumes.pools import Depot, Found, snapshot_entry, volume_entry
from csi.volumes.staging import watch
from csi.volumes.stale import detach_stale

_log = logging.getLogger(__name__)


def recover(depot: Depot) -> None:
    """Reads a pool and mends it.

    Raises:
        OSError: The pool cannot be read.
    """
    depot.pool.load()
    _report_damage(depot)
    _report_unheld(depot)
    _abandon_unfinished(depot)
    _drop_memberless(depot)
    _mend_images(depot)
    detach_stale(depot.pool)
    _count(depot)


def _report_damage(depot: Depot) -> None:
    pool = depot.pool
    for shelf in (pool.volumes, pool.snapshots, pool.groups):
        for key, reason in shelf.damaged.items():
            _log.error(
                "an entry of the pool cannot be used and is left as it is",
                extra={"pool": pool.name, "entry": f"{shelf.folder}/{key}", "reason": reason},
            )


def _report_unheld(depot: Depot) -> None:
    """Tells of a pool that was mounted without its quotas."""
    pool = depot.pool
    unheld = sum(volume.quota_number != 0 for volume in pool.volumes.values())
    if pool.limits is None and unheld:
        _log.error(
            "directories are not held to their size: the pool's quotas are off; turn them on (xfs "
            "and ext4: mount option prjquota) and restart the driver",
            extra={"pool": pool.name, "volumes": unheld},
        )


def _abandon_unfinished(depot: Depot) -> None:
    pool = depot.pool
    for name in pool.unfinished():
        for key in read_frozen_note(pool.fd, name):
            _thaw(depot, key)
        pool.abandon(name)
        _log.info("unfinished work was swept", extra={"pool": pool.name, "entry": name})


def _thaw(depot: Depot, key: str) -> None:
    try:
        for mount in presence.look(depot.pool, key).mounts[:1]:
            with opened_mount(mount.target) as descriptor:
                thaw(descriptor)
    except OSError as error:
        _log.error("a volume cannot be thawed", extra={"entry": key, "reason": str(error)})


def _drop_memberless(depot: Depot) -> None:
    """Takes away snapshots whose group was not committed, or was being deleted."""
    for snapshot in depot.pool.snapshots.values():
        if not snapshot.group_id:
            continue
        group_id = ids.parse(snapshot.group_id, ids.Sort.GROUP)
        try:
            group = None if group_id is None else depot.pool.groups.find_id(group_id)
        except NotNow:
            continue  # the group's record is damaged, and nothing is deleted on a guess
        if group is None:
            discard_member(depot, snapshot)
            _log.info("a member without a group was swept", extra={"snapshot_id": snapshot.id})


def _mend_images(depot: Depot) -> None:
    """Puts right what growth leaves that was cut off: a clone, a length that no record knows."""
    pool = depot.pool
    for volume in pool.volumes.values():
        if volume.kind is not Kind.IMAGE or volume.copying:
            continue
        try:
            with pool.volumes.opened(ids.key_of(volume.id)) as folder:
                if volume.fs_type == "ext4":
                    drop_copy(folder)
                excess = mend_length(folder, volume.size_bytes)
        except OSError:
            continue  # counting it tells what is wrong
        if excess:
            _log.error(
                "the image of a volume has another length than its record says",
                extra={"volume_id": volume.id, "excess_bytes": excess},
            )


def _count(depot: Depot) -> None:
    pool, ledger = depot.pool, depot.ledger
    files = {(device.backing_device, device.backing_inode) for device in loop.bound()}
    device, root = pool.place
    shown = {mount.root for mount in mounts.read_mounts() if mount.device == device}
    for volume in pool.volumes.values():
        key = ids.key_of(volume.id)
        try:
            ledger.put(key, volume_entry(pool, volume))
            if files and _has_loop(depot, volume, files):
                watch(Found(depot, volume))
        except OSError as error:
            ledger.put(key, Entry(volume.size_bytes))
            _log.error(
                "the data of a volume cannot be read",
                extra={"volume_id": volume.id, "reason": str(error)},
            )
        if f"{root}/{pool.volumes.folder}/{key}/{directory.DATA_NAME}" in shown:
            watch(Found(depot, volume))
    for key in pool.volumes.damaged:
        ledger.put(key, Entry(_size_of_damaged(depot, key)))
    for snapshot in pool.snapshots.values():
        try:
            ledger.put(ids.key_of(snapshot.id), snapshot_entry(pool, snapshot))
        except OSError as error:
            ledger.put(ids.key_of(snapshot.id), Entry(snapshot.held_bytes))
            _log.error(
                "the data of a snapshot cannot be read",
                extra={"snapshot_id": snapshot.id, "reason": str(error)},
            )


def _has_loop(depot: Depot, volume: Volume, files: set[FileId]) -> bool:
    if volume.kind is not Kind.IMAGE or volume.copying:
        return False
    return depot.pool.volumes.file_id(ids.key_of(volume.id), IMAGE_NAME) in files


def _size_of_damaged(depot: Depot, key: str) -> int:
    """What a volume was promised whose record cannot tell: the length of its image."""
    try:
        return depot.pool.volumes.status(key, IMAGE_NAME).st_size
    except OSError:
        return 0
