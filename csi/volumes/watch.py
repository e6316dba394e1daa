"""What is wrong with the pools, as it was found last: asked for often, and so never found then."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from csi.errors import PoolUnavailable
from csi.volumes.pools import Depot

_log = logging.getLogger(__name__)


class Watch:
    """The state of each pool; one thread looks, any may ask."""

    def __init__(self, depots: Sequence[Depot]) -> None:
        self._depots = depots
        self._unwritable: dict[str, str] = {}
        self._short: dict[str, str] = {}

    def look(self, *, counted: bool) -> None:
        """Looks at each pool: whether it takes writes, and whether it runs out of room.

        Args:
            counted: Whether the ledgers know yet what was promised.
        """
        for depot in self._depots:
            self._note(depot, self._unwritable, _write_problem(depot), "a pool takes no writes")
            if counted:
                self._note(depot, self._short, _room_problem(depot), "a pool runs out of room")

    def check(self) -> None:
        """Tells whether all pools can be worked with.

        Raises:
            PoolUnavailable: One takes no writes.
        """
        problem = next(iter(self._unwritable.values()), "")
        if problem:
            raise PoolUnavailable(problem)

    def problem_of(self, depot: Depot) -> str:
        """Returns what is wrong with a pool, or nothing."""
        try:
            depot.pool.check_answers()
        except PoolUnavailable as error:
            return str(error)
        name = depot.pool.name
        return self._unwritable.get(name) or self._short.get(name, "")

    def _note(self, depot: Depot, known: dict[str, str], problem: str, what: str) -> None:
        name = depot.pool.name
        if not problem:
            if known.pop(name, ""):
                _log.info("a pool is in order again", extra={"pool": name, "was": what})
            return
        if name not in known:
            _log.error(what, extra={"pool": name, "reason": problem})
        known[name] = problem


def _write_problem(depot: Depot) -> str:
    pool = depot.pool
    try:
        pool.try_writing()
    except OSError as error:
        return f"pool {pool.name!r} at {pool.path} takes no writes: {error.strerror}"
    return ""


def _room_problem(depot: Depot) -> str:
    try:
        problem = depot.ledger.shortage()
    except OSError:
        return ""  # a pool that cannot be asked takes no writes either
    return problem and f"pool {depot.pool.name!r} {problem}"
