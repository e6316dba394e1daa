"""How many calls are worked on at once.

gRPC hands each call to a thread of a pool and lets calls wait where none is free. Then Probe waits
behind whatever blocks the others, and the liveness probe restarts a driver that is only busy. So
calls are counted, and some threads are kept for those that must always be answered.
"""

from __future__ import annotations

import threading
from types import TracebackType

from csi.errors import OperationPending


class Admission:
    """Counts calls; a call is worked on inside a `with` block of this object."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._active = 0
        self._changed = threading.Condition()

    def wait_idle(self, timeout_s: float) -> bool:
        """Waits until no call is being worked on; returns whether that came true in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._active == 0, timeout_s)

    def __enter__(self) -> None:
        with self._changed:
            if self._active >= self._limit:
                raise OperationPending(
                    f"the driver is working on {self._active} calls, as many as it takes at once; "
                    "try again"
                )
            self._active += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._changed:
            self._active -= 1
            if self._active == 0:
                self._changed.notify_all()
