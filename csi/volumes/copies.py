"""Copies that take their time: made in the background where a pool cannot reflink.

The entry is there from the start, marked as being copied, and its image appears only when it is
whole. The source stays locked meanwhile, so that nobody mounts or deletes it. After a restart the
copy begins again, before anything else is served.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from csi.errors import DriverError, OperationPending
from csi.model import Snapshot, Source, SourceType, Volume
from csi.pool import ids, image
from csi.pool.shelf import Shelf
from csi.volumes import moments
from csi.volumes.jobs import Jobs
from csi.volumes.locks import Hold, Locks
from csi.volumes.moments import Origin
from csi.volumes.pools import (
    Depot,
    Pools,
    enter_snapshot,
    enter_volume,
    measure_snapshot,
    measure_volume,
)

_log = logging.getLogger(__name__)

_Record = TypeVar("_Record", Volume, Snapshot)

SHORT_COPY_S = 1.0
"""How long a call waits for its copy, since most are short."""
CANCEL_S = 5.0


class Copies:
    """Starts, resumes and cancels background copies."""

    def __init__(self, pools: Pools, locks: Locks, jobs: Jobs) -> None:
        self._pools = pools
        self._locks = locks
        self._jobs = jobs

    def start_volume(self, depot: Depot, volume: Volume, origin: Origin, hold: Hold) -> None:
        """Copies into a new volume; `hold` keeps both ends and is released at the end."""
        key = ids.key_of(volume.id)

        def copy(keep_going: image.KeepGoing) -> None:
            moments.copy_image(
                origin,
                depot.pool.volumes,
                key,
                volume.size_bytes,
                volume.parameters.thick,
                keep_going,
            )
            whole = depot.pool.volumes.change(volume, copying=False)
            depot.ledger.settle(key)
            enter_volume(depot, whole)

        depot.ledger.watch(key, lambda: measure_volume(depot.pool, volume))
        self._start(key, volume.id, copy, hold)

    def start_snapshot(self, depot: Depot, snapshot: Snapshot, origin: Origin, hold: Hold) -> None:
        """Copies into a new snapshot; `hold` keeps both ends and is released at the end."""
        key = ids.key_of(snapshot.id)

        def copy(keep_going: image.KeepGoing) -> None:
            own = moments.copy_image(
                origin, depot.pool.snapshots, key, snapshot.size_bytes, False, keep_going
            )
            whole = depot.pool.snapshots.change(snapshot, copying=False, held_bytes=own)
            depot.ledger.settle(key)
            enter_snapshot(depot, whole)

        depot.ledger.watch(key, lambda: measure_snapshot(depot.pool, snapshot))
        self._start(key, snapshot.id, copy, hold)

    def wait(self, key: str) -> None:
        """Waits a short while for the copy into an entry."""
        self._jobs.wait(key, SHORT_COPY_S)

    def cancel(self, key: str) -> None:
        """Stops the copy into an entry that is to be deleted."""
        self._jobs.cancel(key, CANCEL_S)

    def resume(self) -> None:
        """Begins again every copy that was cut off by a restart, or has failed."""
        for depot in self._pools.depots:
            for volume in depot.pool.volumes.values():
                if volume.copying:
                    self.ensure_volume(depot, volume)
            for snapshot in depot.pool.snapshots.values():
                if snapshot.copying:
                    self.ensure_snapshot(depot, snapshot)

    def ensure_volume(self, depot: Depot, volume: Volume) -> None:
        """Begins the copy into a volume again if it has failed, for want of room perhaps.

        Not where somebody else works on the volume or its source: he begins it just now, takes it
        away, or makes way for a later try.
        """
        if volume.source is None:
            return
        self._ensure(
            f"volume:{ids.key_of(volume.id)}",
            volume,
            volume.source,
            depot.pool.volumes,
            lambda present, origin, hold: self.start_volume(depot, present, origin, hold),
        )

    def ensure_snapshot(self, depot: Depot, snapshot: Snapshot) -> None:
        """Begins the copy into a snapshot again if it has failed; see `ensure_volume`."""
        self._ensure(
            f"snapshot:{ids.key_of(snapshot.id)}",
            snapshot,
            Source(type=SourceType.VOLUME, id=snapshot.source_volume_id),
            depot.pool.snapshots,
            lambda present, origin, hold: self.start_snapshot(depot, present, origin, hold),
        )

    def _ensure(
        self,
        lock: str,
        record: _Record,
        source: Source,
        shelf: Shelf[_Record],
        start: Callable[[_Record, Origin, Hold], None],
    ) -> None:
        key = ids.key_of(record.id)
        if self._jobs.is_running(key):
            return
        try:
            origin = self._origin(source)
        except DriverError as error:
            _log.error("a copy cannot go on", extra={"object_id": record.id, "reason": str(error)})
            return
        try:
            hold = self._locks.many([lock], [f"{source.type}:{origin.key}"], record.id)
        except OperationPending:
            return
        present = shelf.peek(key)
        if present is None or not present.copying:
            hold.release()  # it became whole, or was deleted, before it was locked
            return
        start(present, origin, hold)

    def _origin(self, source: Source) -> Origin:
        if source.type is SourceType.VOLUME:
            return Origin.of_volume(self._pools.get_volume(source.id))
        return Origin.of_snapshot(self._pools.get_snapshot(source.id))

    def _start(
        self, key: str, object_id: str, copy: Callable[[image.KeepGoing], None], hold: Hold
    ) -> None:
        def work(keep_going: image.KeepGoing) -> None:
            try:
                copy(keep_going)
                _log.info("copied", extra={"object_id": object_id})
            finally:
                hold.release()

        self._jobs.submit(key, work)
