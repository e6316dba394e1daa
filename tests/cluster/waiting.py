"""Waiting for what takes a moment."""

import time
from collections.abc import Callable

from tests.cluster.errors import ClusterError

PAUSE_S = 0.2


class WaitedInVain(ClusterError):
    """What was waited for did not happen in time."""


def wait_until(
    condition: Callable[[], bool], timeout_s: float, awaited: str, *, pause_s: float = PAUSE_S
) -> None:
    """Waits until a condition holds.

    Args:
        condition: Asked again and again; may raise `ClusterError` where waiting makes no sense.
        timeout_s: For how long.
        awaited: What is waited for, for the message.
        pause_s: How long between two looks.

    Raises:
        WaitedInVain: It did not come to hold.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise WaitedInVain(f"waited {timeout_s:.0f} s in vain for {awaited}")
        time.sleep(pause_s)
