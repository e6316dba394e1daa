"""Lets a delete wait a moment for the unstage that is on its way.

Kubernetes deletes a claim as soon as its pod has unmounted the volume, and unstages the volume at
the same time. A delete that comes first would be refused, and the provisioner come back only after
its next pause: of twenty volumes deleted at once the last one would be gone seconds later.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

LONGEST_S = 1.0
MOST_WAITING = 32
"""Of the threads for calls; the unstages that are waited for need some, too."""


class Releases:
    """Who is letting go of which volume, and who waits for that. Nobody holds a lock meanwhile."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._under_way: dict[str, int] = {}
        self._news: dict[str, threading.Event] = {}

    @contextlib.contextmanager
    def letting_go(self, key: str) -> Iterator[None]:
        """Is held around a volume's release, its lock included; the end wakes who waits for it."""
        with self._guard:
            self._under_way[key] = self._under_way.get(key, 0) + 1
        try:
            yield
        finally:
            with self._guard:
                self._under_way[key] -= 1
                if not self._under_way[key]:
                    del self._under_way[key]
                if news := self._news.get(key):
                    news.set()

    def wait(self, key: str, in_use: Callable[[], bool]) -> None:
        """Waits until a volume is not in use, a second at most. What holds then, look again.

        It returns at once where somebody waits for the volume already, or too many wait for others.
        """
        news = threading.Event()
        with self._guard:
            if key in self._news or len(self._news) >= MOST_WAITING:
                return
            self._news[key] = news
        deadline = time.monotonic() + LONGEST_S
        try:
            while self._is_under_way(key) or in_use():
                left_s = deadline - time.monotonic()
                if left_s <= 0 or not news.wait(left_s):
                    return
                news.clear()
        finally:
            with self._guard:
                del self._news[key]

    def _is_under_way(self, key: str) -> bool:
        with self._guard:
            return key in self._under_way
