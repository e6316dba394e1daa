"""The limits of directories: their sizes, and on btrfs what is allowed besides.

Simple quotas charge a block to whoever wrote it for as long as anybody holds it. What a snapshot
or a clone keeps of a volume after the volume has overwritten it would so eat into the volume's
own size. Its limit is therefore its size and what others keep of it; the ledger counts that part
as theirs. Once they are deleted and their blocks are free, the limit comes down again. Project
quotas charge each block to the volume that has it, and nothing is allowed besides.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator

from csi.errors import NotNow
from csi.model import Volume
from csi.pool import ids
from csi.pool.pool import Pool
from csi.volumes.pools import Depot, Found, Pools

_log = logging.getLogger(__name__)


class Allowances:
    """Sets the limits of directories; safe from any thread."""

    def __init__(self, pools: Pools) -> None:
        self._pools = pools
        self._waiting: set[str] = set()
        self._guard = threading.Lock()

    def ensure(self, depot: Depot, volume: Volume, size_bytes: int = 0) -> None:
        """Sets the limit of a volume to what it has to be, for a new size if one is given.

        Raises:
            NotNow: The pool has lost its quotas.
            OSError: The kernel did not take it.
        """
        if not volume.quota_number:
            return
        if depot.pool.limits is None:
            raise NotNow(
                f"pool {depot.pool.name!r} no longer holds directories to their size: turn its "
                "quotas on again (xfs and ext4: mount option prjquota) and restart the driver"
            )
        with self._guard, depot.pool.volumes.opened(ids.key_of(volume.id)) as folder:
            limit = (size_bytes or volume.size_bytes) + allowance(depot, volume)
            depot.pool.limits.change(folder, volume.quota_number, limit)

    def ensure_lender(self, lender_id: str) -> None:
        """Is `ensure` for the volume that something was taken of, if it is still there.

        It never fails, since what was taken is there already: what the kernel does not take now
        is tried again within a minute.
        """
        try:
            found = self._find(lender_id)
            if found is not None:
                self.ensure(found.depot, found.record)
        except (OSError, NotNow) as error:
            self.later(lender_id)
            _log.warning(
                "a limit cannot be set yet",
                extra={"volume_id": lender_id, "reason": str(error)},
            )

    @contextlib.contextmanager
    def released(self, pool: Pool, volume: Volume) -> Iterator[None]:
        """Takes the limit of a volume away that is deleted in the block."""
        if pool.limits is None or not volume.quota_number:
            yield
            return
        pool.limits.release(volume.quota_number)
        try:
            yield
        except BaseException:
            pool.limits.know([volume.quota_number])
            raise

    def later(self, lender_id: str) -> None:
        """Notes a volume whose limit may come down once what was deleted is free."""
        with self._guard:
            self._waiting.add(lender_id)

    def settle(self) -> None:
        """Brings down the limits that were noted."""
        with self._guard:
            waiting, self._waiting = self._waiting, set()
        for depot in self._pools.depots:
            if depot.pool.limits is not None:
                depot.pool.limits.settle()
        for lender_id in waiting:
            self.ensure_lender(lender_id)

    def ensure_all(self) -> None:
        """Sets the limits of all volumes of which something is kept, after a restart."""
        with self._guard:
            for depot in self._pools.depots:
                for shelf in (depot.pool.volumes, depot.pool.snapshots):
                    self._waiting.update(shelf.index.lenders())
        self.settle()

    def hold_tenants(self) -> None:
        """Brings back under their limits what tenants have moved out of them, or into others'.

        On btrfs, who may write to a directory may also make a subvolume in it that belongs to no
        group, or to a stranger's. What it holds is charged from now on. Elsewhere its owner may
        change its project.
        """
        for depot, volume in self._pools.volumes():
            limits = depot.pool.limits
            if limits is None or not volume.quota_number:
                continue
            try:
                with depot.pool.volumes.opened(ids.key_of(volume.id)) as folder:
                    moved = limits.set_right(folder, volume.quota_number, volume.size_bytes)
            except FileNotFoundError:
                continue  # it is being deleted
            except OSError as error:
                _log.warning(
                    "a directory cannot be held to its size",
                    extra={"volume_id": volume.id, "reason": str(error)},
                )
            else:
                if moved:
                    _log.warning(
                        "a directory had left its limit",
                        extra={"volume_id": volume.id, "set_right": moved},
                    )

    def _find(self, lender_id: str) -> Found[Volume] | None:
        try:
            return self._pools.find_volume(lender_id)
        except NotNow:
            return None  # its record is damaged, and its limit stays as it is


def allowance(depot: Depot, volume: Volume) -> int:
    """Returns the bytes of a volume that snapshots and clones keep, and that it is charged for."""
    if not depot.pool.features.subvolumes:
        return 0
    return depot.pool.snapshots.index.lent_by(volume.id) + depot.pool.volumes.index.lent_by(
        volume.id
    )
