"""Freeing what was deleted, in the background and in bounded steps.

Deleting is a rename into the trash; the bytes go here, one entry at a time, with a breath between
steps so that workloads keep the disk. What a restart interrupts is found in the trash again.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Sequence

from csi.linux.removal import remove_tree
from csi.pool.group_limits import forget_group_of
from csi.pool.pool import Pool

_log = logging.getLogger(__name__)

_BREATH_S = 0.002
_RETRY_S = 30.0
_GATHER_S = 0.05
"""How long what else is deleted is waited for: each round ends with a commit of btrfs, for which
every call would wait that makes something durable meanwhile."""
_SETTLE_AFTER_S = (0.0, 0.1, 0.5, 2.0)
"""When btrfs is asked again to free what its cleaner has let go of meanwhile."""


class Reaper:
    """One thread that empties the trash of every pool."""

    def __init__(self, pools: Sequence[Pool], when_empty: Callable[[], None]) -> None:
        """Prepares to empty the trash of some pools; `when_empty` is called each time it is.

        From now on it is woken when something is thrown away.
        """
        self._pools = tuple(pools)
        for pool in self._pools:
            pool.building.when_thrown_away = self.wake
        self._when_empty = when_empty
        self._work = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reaper", daemon=True)

    def start(self) -> None:
        """Begins with what is in the trash now."""
        self._work.set()
        self._thread.start()

    def wake(self) -> None:
        """Says that there is something new in the trash."""
        self._work.set()

    def close(self) -> None:
        """Stops after the present step."""
        self._stop.set()
        self._work.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._work.wait(None if self._emptied() else _RETRY_S)
            self._stop.wait(_GATHER_S)
            self._work.clear()

    def _emptied(self) -> bool:
        """Empties every trash; returns whether all of it is gone."""
        left = [pool for pool in self._pools if not self._empty(pool)]
        if not left:
            self._when_empty()
        return not left

    def _empty(self, pool: Pool) -> bool:
        try:
            pool.building.throw_away_left()
            names = pool.trash()
        except OSError as error:
            _log.error("the trash cannot be read", extra={"pool": pool.name, "reason": str(error)})
            return False
        done = True
        for name in names:
            if self._stop.is_set():
                return False
            try:
                done &= self._remove(pool, name)
            except OSError as error:
                _log.error(
                    "deleted data cannot be freed",
                    extra={"pool": pool.name, "entry": name, "reason": str(error)},
                )
                done = False
        if names:
            self._settle(pool)
        return done

    def _remove(self, pool: Pool, name: str) -> bool:
        with pool.trash_folder() as trash:
            if pool.features.subvolumes:
                forget_group_of(trash, name)
            return remove_tree(
                trash,
                name,
                keep_going=lambda: not self._stop.is_set(),
                pause=self._breathe,
            )

    def _settle(self, pool: Pool) -> None:
        for pause_s in _SETTLE_AFTER_S:
            self._stop.wait(pause_s)
            with contextlib.suppress(OSError):
                pool.settle()
            if not pool.features.subvolumes or self._work.is_set():
                return

    def _breathe(self) -> None:
        self._stop.wait(_BREATH_S)
