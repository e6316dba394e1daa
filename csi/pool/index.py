"""The records of a shelf in memory: by key, in the order of their creation, and by lender."""

from __future__ import annotations

import bisect
import threading
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from csi.model import Record

R = TypeVar("R", bound=Record)
Position = tuple[int, str]
"""Where an entry stands in a listing: by creation, then by key, so that new ones come last."""


class Index(Generic[R]):
    """Safe from any thread; no method costs more where there are more records, but two.

    Those are `values` and `after`, which return that many.
    """

    def __init__(self) -> None:
        self._records: dict[str, R] = {}
        self._order: list[Position] = []
        self._lent: dict[str, int] = {}
        self._guard = threading.Lock()

    def __len__(self) -> int:
        return len(self._records)

    def fill(self, records: Mapping[str, R]) -> None:
        """Takes many records at once, in place of what is there."""
        with self._guard:
            self._records = dict(records)
            self._order = sorted((record.created_ns, key) for key, record in records.items())
            self._lent = {}
            for record in records.values():
                self._count_loan(record, 1)

    def get(self, key: str) -> R | None:
        """Returns the record under a key, or None."""
        return self._records.get(key)

    def put(self, key: str, record: R) -> None:
        """Takes a record, in place of the one under that key."""
        with self._guard:
            before = self._records.get(key)
            if before is None:
                bisect.insort(self._order, (record.created_ns, key))
            else:
                self._count_loan(before, -1)
            self._records[key] = record
            self._count_loan(record, 1)

    def remove(self, key: str) -> None:
        """Strikes a record out.

        Raises:
            KeyError: There is none.
        """
        with self._guard:
            record = self._records.pop(key)
            self._count_loan(record, -1)
            place = (record.created_ns, key)
            index = bisect.bisect_left(self._order, place)
            if index < len(self._order) and self._order[index] == place:
                del self._order[index]

    def values(self) -> list[R]:
        """Returns all records, in no particular order."""
        with self._guard:
            return list(self._records.values())

    def after(self, position: Position | None) -> Iterator[tuple[Position, R]]:
        """Yields the records that stand behind a position, oldest first.

        What is made or deleted meanwhile may or may not be among them.
        """
        with self._guard:
            start = 0 if position is None else bisect.bisect_right(self._order, position)
            rest = self._order[start:]
        for place in rest:
            record = self._records.get(place[1])
            if record is not None:
                yield place, record

    def lent_by(self, volume_id: str) -> int:
        """Returns how many bytes of a volume the records hold that it is charged for."""
        return self._lent.get(volume_id, 0)

    def lenders(self) -> list[str]:
        """Returns the ids of the volumes that are charged for what records hold."""
        with self._guard:
            return list(self._lent)

    def _count_loan(self, record: R, times: int) -> None:
        lender_id, loan_bytes = record.loan
        if lender_id and loan_bytes:
            total = self._lent.get(lender_id, 0) + times * loan_bytes
            if total:
                self._lent[lender_id] = total
            else:
                self._lent.pop(lender_id, None)
