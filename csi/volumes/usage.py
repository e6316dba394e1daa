"""NodeGetVolumeStats and NodeExpandVolume: how full a volume is, and making it larger in place."""

from __future__ import annotations

import os

from csi.errors import NotFound
from csi.linux import loop
from csi.linux.copying import allocated_bytes
from csi.linux.usage import filesystem_usage
from csi.model import Access, Kind, SizeRange, Stats, UsageFigures, Volume
from csi.pool.image import IMAGE_NAME
from csi.volumes import devices, presence
from csi.volumes.allowances import allowance
from csi.volumes.devices import opened_mount
from csi.volumes.lifecycle import Lifecycle
from csi.volumes.pools import Found, measure_volume
from csi.volumes.staging import DEVICE_NAME
from csi.volumes.tools import Tools


class Usage:
    """The two verbs."""

    def __init__(self, tools: Tools, lifecycle: Lifecycle) -> None:
        self._tools = tools
        self._lifecycle = lifecycle

    def stats(self, volume_id: str, path: str) -> Stats:
        """Returns how full a volume is, by the kernel's figures.

        Raises:
            NotFound: There is no such volume, or it is not at that path.
        """
        found = self._tools.pools.get_volume(volume_id)
        _check_at(found, path)
        volume = found.record
        if volume.access is Access.BLOCK:
            return _block_stats(found)
        with opened_mount(path) as mount:
            usage = filesystem_usage(mount)
        inodes = UsageFigures(
            total=usage.total_inodes, used=usage.used_inodes, available=usage.free_inodes
        )
        if volume.kind is Kind.DIRECTORY and volume.quota_number and found.depot.pool.limits:
            return Stats(size=_quota_figures(found, usage.available_bytes), inodes=inodes)
        return Stats(
            size=UsageFigures(
                total=usage.total_bytes, used=usage.used_bytes, available=usage.available_bytes
            ),
            inodes=inodes,
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
            _check_at(found, path)
            volume = self._lifecycle.expand_locked(found, size)
            if volume.kind is Kind.IMAGE:
                devices.grow_in_use(found.depot.pool, volume, found.key)
            return volume.size_bytes


def _check_at(found: Found[Volume], path: str) -> None:
    present = presence.look(found.depot.pool, found.key)
    if not any(present.at(place) for place in (path, f"{path}/{DEVICE_NAME}")):
        raise NotFound(f"volume {found.record.id} is not at {path!r}")


def _block_stats(found: Found[Volume]) -> Stats:
    pool = found.depot.pool
    with pool.volumes.opened(found.key, IMAGE_NAME, os.O_RDONLY) as image:
        allocated = allocated_bytes(image)
    present = presence.loops_of(pool, found.key)
    total = loop.device_size(present[0].path) if present else found.record.size_bytes
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
