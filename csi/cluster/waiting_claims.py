"""Claims that wait to be looked at: each is with one worker at a time, and due at some moment."""

from __future__ import annotations

import threading
import time


class WaitingClaims:
    """Keys, each due at its time; a key that is asked for while it is worked on comes again."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        self._worked_on: set[str] = set()
        self._changed = threading.Condition()

    def add(self, key: str, delay_s: float = 0.0) -> None:
        """Makes a key due, unless it is due sooner already."""
        with self._changed:
            at = time.monotonic() + delay_s
            self._due[key] = min(at, self._due.get(key, at))
            self._changed.notify()

    def remove(self, key: str) -> None:
        """Forgets a key."""
        with self._changed:
            self._due.pop(key, None)

    def take(self, timeout_s: float) -> str | None:
        """The next key that is due, for the caller alone until `done`; None if none is in time."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                now = time.monotonic()
                free = [(at, key) for key, at in self._due.items() if key not in self._worked_on]
                at, key = min(free, default=(deadline, ""))
                if key and at <= now:
                    del self._due[key]
                    self._worked_on.add(key)
                    return key
                if now >= deadline:
                    return None
                self._changed.wait(min(at, deadline) - now)

    def done(self, key: str) -> None:
        """Lets others take the key again."""
        with self._changed:
            self._worked_on.discard(key)
            self._changed.notify()
