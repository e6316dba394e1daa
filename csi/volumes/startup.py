"""What a start does before the driver serves: read the pools, and mend what a crash left.

Whatever ends the process before, this brings a pool back to what its records say: filesystems that
were left frozen are thawed, unfinished entries and members of groups that never came to be go to
the trash, copies begin again, and the ledger is counted up from records and allocated blocks.
"""

from __future__ import annotations

import logging
import os

from csi.errors import NotNow
from csi.linux import loop, mounts
from csi.linux.freeze import thaw
from csi.model import Kind, Volume
from csi.pool import directory, ids
from csi.pool.frozen_note import read_frozen_note
from csi.pool.image import IMAGE_NAME, image_status, mend_length
from csi.pool.image_growth import drop_copy
from csi.pool.pool import Pool
from csi.volumes import presence
from csi.volumes.capacity import Entry
from csi.volumes.devices import opened_mount
from csi.volumes.groups import discard_member
from csi.volumes.pools import (
    Depot,
    Found,
    measure_volume,
    own_image_bytes,
    snapshot_entry,
    volume_entry,
)
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


def _count(depot: Depot) -> None:
    """Looks at the data of each entry once: mends it, counts it, and sees whether it is in use."""
    pool, ledger = depot.pool, depot.ledger
    in_use = _InUse(pool)
    for volume in pool.volumes.values():
        key = ids.key_of(volume.id)
        try:
            if volume.kind is Kind.IMAGE and not volume.copying:
                image = _look_at_image(depot, volume, key)
                ledger.put(key, volume_entry(volume, own_image_bytes(volume, image)))
                used = in_use.by_loop(image)
            else:
                ledger.put(key, volume_entry(volume, measure_volume(pool, volume)))
                used = in_use.by_mount(key)
        except OSError as error:
            ledger.put(key, Entry(volume.size_bytes))
            used = in_use.by_mount(key)
            _log.error(
                "the data of a volume cannot be read",
                extra={"volume_id": volume.id, "reason": str(error)},
            )
        if used:
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


class _InUse:
    """What is attached and mounted as the driver starts."""

    def __init__(self, pool: Pool) -> None:
        self._files = {(device.backing_device, device.backing_inode) for device in loop.bound()}
        device, root = pool.place
        self._roots = {mount.root for mount in mounts.read_mounts() if mount.device == device}
        self._entries = f"{root}/{pool.volumes.folder}"

    def by_loop(self, image: os.stat_result) -> bool:
        """Whether a loop device lies on an image."""
        return (image.st_dev, image.st_ino) in self._files

    def by_mount(self, key: str) -> bool:
        """Whether the directory of a volume is mounted somewhere."""
        return f"{self._entries}/{key}/{directory.DATA_NAME}" in self._roots


def _look_at_image(depot: Depot, volume: Volume, key: str) -> os.stat_result:
    """Puts right what growth leaves that was cut off: a clone, a length that no record knows."""
    with depot.pool.volumes.opened(key) as folder:
        if volume.fs_type == "ext4":
            drop_copy(folder)
        image = image_status(folder)
        if image.st_size == volume.size_bytes:
            return image
        if excess := mend_length(folder, volume.size_bytes):
            _log.error(
                "the image of a volume has another length than its record says",
                extra={"volume_id": volume.id, "excess_bytes": excess},
            )
        return image_status(folder)


def _size_of_damaged(depot: Depot, key: str) -> int:
    """What a volume was promised whose record cannot tell: the length of its image."""
    try:
        return depot.pool.volumes.status(key, IMAGE_NAME).st_size
    except OSError:
        return 0
