"""Locks by key that never wait: what is being worked on answers "ask again".

A key is taken exclusively by an operation that changes an object and shared by one that only
reads it, so that twenty clones of one volume go on at once while nobody deletes or mounts it.
Locks are values, not bound to a thread: a background copy keeps the one it was handed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from csi.errors import OperationPending

_EXCLUSIVE = -1


class Locks:
    """The keys in use now, and by how many."""

    def __init__(self) -> None:
        self._holders: dict[str, int] = {}
        self._guard = threading.Lock()

    def exclusive(self, key: str, what: str) -> Hold:
        """Takes a key alone; `what` names the object in the error.

        Raises:
            OperationPending: Somebody has it.
        """
        return self._take((key,), (), what)

    def shared(self, key: str, what: str) -> Hold:
        """Takes a key together with others who share it.

        Raises:
            OperationPending: Somebody has it alone.
        """
        return self._take((), (key,), what)

    def many(self, exclusive: Iterable[str], shared: Iterable[str], what: str) -> Hold:
        """Takes several keys, or none of them.

        Raises:
            OperationPending: Somebody has one of them.
        """
        return self._take(tuple(exclusive), tuple(shared), what)

    def _take(self, exclusive: tuple[str, ...], shared: tuple[str, ...], what: str) -> Hold:
        with self._guard:
            busy = any(self._holders.get(key) for key in exclusive)
            if busy or any(self._holders.get(key) == _EXCLUSIVE for key in shared):
                raise OperationPending(
                    f"another operation on {what} is under way; try again when it has ended"
                )
            for key in exclusive:
                self._holders[key] = _EXCLUSIVE
            for key in shared:
                self._holders[key] = self._holders.get(key, 0) + 1
        return Hold(self, (*exclusive, *shared))

    def release(self, keys: Iterable[str]) -> None:
        """Gives keys back; `Hold` does it."""
        with self._guard:
            for key in keys:
                left = self._holders[key] - 1
                if left > 0:
                    self._holders[key] = left
                else:
                    del self._holders[key]


class Hold:
    """Keys that are held until `release`, or until the end of a `with` block."""

    def __init__(self, locks: Locks, keys: tuple[str, ...]) -> None:
        self._locks = locks
        self._keys = keys

    def release(self) -> None:
        """Gives the keys back; a second time it does nothing."""
        keys, self._keys = self._keys, ()
        self._locks.release(keys)

    def hand_over(self) -> Hold:
        """Returns a hold on the same keys and lets go of them itself."""
        keys, self._keys = self._keys, ()
        return Hold(self._locks, keys)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()
