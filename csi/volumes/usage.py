"""NodeGetVolumeStats and NodeExpandVolume: how full a volume is, and making it larger in place."""

from __future__ import annotations

import errno
import os

from csi.answers import Stats, UsageFigures
from csi.errors import NotFound, NotNow
from csi.linux import loop
from csi.linux.copying import allocated_bytes
from csi.linux.faults import BROKEN
from csi.linux.mounts import Mount
from csi.linux.usage import filesystem_usage
from csi.model import Access, Kind, SizeRange, Volume
from csi.pool.image import IMAGE_NAME
from csi.pool.pool import Pool
from csi.volumes import devices, presence
from csi.volumes.allowances import allowance
from csi.volumes.conditions import Conditions
from csi.volumes.lifecycle import Lifecycle
from csi.volumes.pools import Found, measure_volume
from csi.volumes.presence import has_lost_file, loop_of
from csi.volumes.staging import DEVICE_NAME
from csi.volumes.tools import Tools


class Usage:
    """The two verbs."""

    def __init__(self, tools: Tools, lifecycle: Lifecycle, conditions: Conditions) -> None:
        self._tools = tools
        self._lifecycle = lifecycle
        self._conditions = conditions

    def stats(self, volume_id: str, path: str) -> Stats:
        """Returns how full a volume is, by the kernel's figures, and what is wrong with it.

        Raises:
            NotFound: There is no such volume, or it is not at that path.
        """
        try:
            found = self._tools.pools.get_volume(volume_id)
        except NotNow as damage:
            return self._stats_without_record(volume_id, path, damage)
        mount = _find_at(found, path)
        if found.record.access is Access.BLOCK:
            stats = _block_stats(found.depot.pool, found.key, found.record.size_bytes)
        else:
            stats = _filesystem_stats(path)
            if found.record.quota_number and found.depot.pool.limits:
                figures = _quota_figures(found, stats.size.available)
                stats = stats.replace(size=figures)
        return stats.replace(problem=self._conditions.at(found, mount))

    def _stats_without_record(self, volume_id: str, path: str, damage: NotNow) -> Stats:
        """Returns what can be told of a volume that is in use and whose record is damaged."""
        located = self._tools.pools.locate_volume(volume_id)
        if located is None:
            raise damage
        depot, key = located
        mount = presence.look(depot.pool, key).at(path)
        if mount is None:
            raise damage
        stats = _block_stats(depot.pool, key, 0) if loop_of(mount) else _filesystem_stats(path)
        return stats.replace(
            problem=f"the record of volumes/{key} is damaged; repair it or move it away"
        )

    def expand(self, volume_id: str, path: str, size: SizeRange) -> int:
        """Grows a volume that is in use, its filesystem included; returns its size in bytes.

        What the controller has not grown before is grown here, so that a resizer that leaves
        growth to the nodes works as well.

        Raises:
            NotFound: There is no such volume, or it is not at that path.
            OutOfRange, NoRoom: The size does not fit, ever or now.
            NotNow: The kernel does not grow this filesystem while it is mounted.
            OperationPending: It is being worked on.
        """
        found = self._tools.pools.get_volume(volume_id)
        with self._tools.locks.exclusive(f"volume:{found.key}", f"volume {volume_id}"):
            found = self._tools.pools.get_volume(volume_id)
            _find_at(found, path)
            volume = self._lifecycle.expand_locked(found, size)
            if volume.kind is Kind.IMAGE:
                devices.grow_in_use(found.depot.pool, volume, found.key)
            return volume.size_bytes


def _find_at(found: Found[Volume], path: str) -> Mount:
    """Returns the volume's mount at a path.

    Raises:
        NotFound: It is not there.
    """
    present = presence.look(found.depot.pool, found.key)
    places = (path, f"{path}/{DEVICE_NAME}")
    for place in places:
        mount = present.at(place)
        if mount is not None:
            return mount
    for place in places if found.record.access is Access.BLOCK else ():
        mount = present.top(place)
        if mount is not None and has_lost_file(mount):
            return mount
    raise NotFound(f"volume {found.record.id} is not at {path!r}")


def _filesystem_stats(path: str) -> Stats:
    # By path alone: the root of a filesystem that has shut down cannot be opened for reading.
    mount = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        usage = filesystem_usage(mount)
    finally:
        os.close(mount)
    inodes = UsageFigures(
        total=usage.total_inodes, used=usage.used_inodes, available=usage.free_inodes
    )
    return Stats(
        size=UsageFigures(
            total=usage.total_bytes, used=usage.used_bytes, available=usage.available_bytes
        ),
        inodes=inodes,
    )


def _block_stats(pool: Pool, key: str, size_bytes: int) -> Stats:
    try:
        with pool.volumes.opened(key, IMAGE_NAME, os.O_RDONLY) as image:
            allocated = allocated_bytes(image)
    except OSError as error:
        if error.errno not in (errno.ENOENT, *BROKEN):
            raise
        allocated = 0  # it is gone, or its disk; the volume's condition says so
    present = presence.loops_of(pool, key)
    total = loop.device_size(present[0].path) if present else size_bytes
    used = min(allocated, total)
    return Stats(size=UsageFigures(total=total, used=used, available=total - used))


def _quota_figures(found: Found[Volume], pool_available: int) -> UsageFigures:
    """What the volume's own limit leaves, and what the pool still has, whichever is less."""
    depot, volume = found
    total = volume.size_bytes + volume.borrowed_bytes
    charged = measure_volume(depot.pool, volume)
    left = volume.size_bytes + allowance(depot, volume) - charged
    return UsageFigures(
        total=total,
        used=max(0, total - max(0, left)),
        available=min(max(0, left), total, pool_available),
    )
