"""Capacity as a promise: what each pool has given out, and what it can still promise.

A sparse image whose pool runs full breaks the filesystem inside it, so the ledger counts what was
promised and not only what is used. For each volume that is its whole size, for each snapshot the
bytes that it may come to hold alone. With ratio r, and `allocated` the blocks that an object has
already taken for itself,

    available = min(pool size * r - sum(promised),
                    filesystem free - sum(promised - allocated) / r - margin)

Others may use the same filesystem, and what is promised but not yet written is not free: that is
the second term. A volume whose size is not enforced promises nothing there.

A volume in use has to be measured to be known. A create that would fit even if all of them had
written nothing yet, though what they have written is gone from the free space, needs no such look:
so it costs the same beside ten volumes in use and beside a thousand.

Blocks that a copy shares with its source count as allocated by the source alone. When the two
drift apart the free space shrinks and the copy's own share is not credited for it: the figure
errs towards promising less.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator

from csi.errors import NoRoom, OutOfRange
from csi.linux.usage import FilesystemUsage
from csi.model import Value


class Entry(Value, frozen=True):
    """What one object was promised and has taken, in bytes.

    Attributes:
        promised: What it may grow to.
        allocated: What it has taken for itself alone; at most `promised` counts.
        backed: Whether the room it has not yet taken is kept free for it.
    """

    promised: int
    allocated: int = 0
    backed: bool = True

    @property
    def outstanding(self) -> int:
        """Bytes that must stay free for this object."""
        return max(0, self.promised - self.allocated) if self.backed else 0


class Ledger:
    """The promises of one pool.

    Entries that change by themselves, because a workload writes to them, are *live*: they are
    measured again at each question. All others are as they were when last set.
    """

    def __init__(
        self,
        usage: Callable[[], FilesystemUsage],
        *,
        ratio: float = 1.0,
        margin_bytes: int | None = None,
    ) -> None:
        self._usage = usage
        self._ratio = ratio
        self._margin_bytes = margin_bytes
        self._entries: dict[str, Entry] = {}
        self._live: dict[str, Callable[[], int]] = {}
        self._promised = 0
        self._outstanding = 0
        self._credited = 0
        """What live entries have allocated of what they were promised, as measured last."""
        self._guard = threading.RLock()
        self._reservations = itertools.count(1)

    def put(self, key: str, entry: Entry) -> None:
        """Enters an object, or replaces what was known of it."""
        with self._guard:
            self._forget(key)
            self._entries[key] = entry
            self._promised += entry.promised
            self._outstanding += entry.outstanding
            self._credited += self._credit(key)

    def remove(self, key: str) -> None:
        """Strikes an object out; one that is not there is no error."""
        with self._guard:
            self._forget(key)
            self._live.pop(key, None)

    def watch(self, key: str, measure: Callable[[], int]) -> None:
        """Marks an object as live; `measure` returns the bytes it has allocated for itself."""
        with self._guard:
            self._credited -= self._credit(key)
            self._live[key] = measure
            self._credited += self._credit(key)

    def is_live(self, key: str) -> bool:
        """Whether an object is live."""
        return key in self._live

    def settle(self, key: str) -> None:
        """Measures a live object for the last time; it is not live any more."""
        with self._guard:
            measure = self._live.get(key)
            if measure is not None:
                self._measure(key, measure)
                self._credited -= self._credit(key)
                del self._live[key]

    @contextlib.contextmanager
    def reserve(
        self, size_bytes: int, *, backed: bool = True, present_bytes: int = 0
    ) -> Iterator[None]:
        """Keeps room while an object is made; inside, the caller `put`s what came of it.

        Args:
            size_bytes: What the object may take when it is made.
            backed: Whether that room is kept free for it.
            present_bytes: What it was promised before, where it grows.

        Raises:
            OutOfRange: The pool could never hold that much.
            NoRoom: It cannot now.
        """
        key = f"reservation:{next(self._reservations)}"
        with self._guard:
            self._check(size_bytes, present_bytes, backed=backed)
            self.put(key, Entry(size_bytes - present_bytes, backed=backed))
        try:
            yield
        finally:
            self.remove(key)

    def available(self) -> int:
        """Returns the bytes that one more volume could be promised."""
        with self._guard:
            return self._available(self._usage())

    def shortage(self) -> str:
        """Returns how the pool is running out of the room that it has promised, or nothing.

        Where more was promised than there is, that alone is no shortage.
        """
        with self._guard:
            usage = self._usage()
            self._measure_all()
            free, owed = usage.available_bytes, self._outstanding
            if free < self._margin(usage):
                return f"is nearly full: {free} bytes are free"
            if self._ratio <= 1 and free < owed:
                return f"has lost promised room to others: {free} bytes are free, {owed} owed"
        return ""

    def _check(self, size_bytes: int, present_bytes: int, *, backed: bool) -> None:
        usage = self._usage()
        # However freely promised, one volume cannot be larger than what could be free.
        largest = int(usage.total_bytes * min(1.0, self._ratio))
        if size_bytes > largest:
            raise OutOfRange(
                f"{size_bytes} bytes can never fit: the pool holds {largest} bytes in all"
            )
        if not backed:
            available = self._unpromised(usage)
        else:
            available = self._room(usage, self._outstanding + self._credited)
            if size_bytes > available + present_bytes:
                available = self._available(usage)
        if size_bytes > available + present_bytes:
            raise NoRoom(
                f"{size_bytes} bytes were asked for and the pool can promise "
                f"{available + present_bytes} now; delete volumes or snapshots, or enlarge the pool"
            )

    def _available(self, usage: FilesystemUsage) -> int:
        self._measure_all()
        return self._room(usage, self._outstanding)

    def _room(self, usage: FilesystemUsage, outstanding: int) -> int:
        owed = int(outstanding / self._ratio)
        free = usage.available_bytes - owed - self._margin(usage)
        return max(0, min(self._unpromised(usage), free))

    def _margin(self, usage: FilesystemUsage) -> int:
        margin = self._margin_bytes
        return default_margin(usage.total_bytes) if margin is None else margin

    def _unpromised(self, usage: FilesystemUsage) -> int:
        return max(0, int(usage.total_bytes * self._ratio) - self._promised)

    def _measure_all(self) -> None:
        for key, measure in list(self._live.items()):
            self._measure(key, measure)

    def _measure(self, key: str, measure: Callable[[], int]) -> None:
        entry = self._entries.get(key)
        if entry is None:
            return
        try:
            allocated = measure()
        except OSError:
            return  # unmeasured, it stays as it was; its own calls will tell what is wrong
        self.put(key, Entry(entry.promised, allocated, entry.backed))

    def _forget(self, key: str) -> None:
        self._credited -= self._credit(key)
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._promised -= entry.promised
            self._outstanding -= entry.outstanding

    def _credit(self, key: str) -> int:
        entry = self._entries.get(key) if key in self._live else None
        return entry.promised - entry.outstanding if entry is not None and entry.backed else 0


def default_margin(total_bytes: int) -> int:
    """Returns what is kept for the pool's own metadata: 1 %, at least 16 MiB, at most 1 GiB."""
    return max(16 << 20, min(1 << 30, total_bytes // 100))
