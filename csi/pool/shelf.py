"""A folder of the pool with one entry an object, and the index of it in memory.

An entry is a directory named by the object's key that holds `record.json` and the data. It is
built under a temporary name in `building/`, synced, and renamed into place: the rename is the
commit. Taking it away is a rename into `trash/`, whose bytes go later. So after a crash an entry
is whole or it is rubbish, and a look at two folders tells which.
"""

from __future__ import annotations

import bisect
import contextlib
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from csi.errors import AlreadyExists, NotNow
from csi.linux.paths import open_beneath, rename_noreplace
from csi.model import Record
from csi.pool import ids, records
from csi.pool.durability import Durability

BUILDING = "building"
TRASH = "trash"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY

R = TypeVar("R", bound=Record)
Position = tuple[int, str]
"""Where an entry stands in a listing: by creation, then by key, so that new ones come last."""


@dataclass(frozen=True, slots=True)
class Site:
    """An entry under construction: an open folder under a temporary name."""

    key: str
    name: str
    fd: int


class Shelf(Generic[R]):
    """The entries of one sort.

    Methods that read the index are safe from any thread. Callers keep two operations on one key
    apart with `csi.volumes.locks`.
    """

    def __init__(
        self,
        pool_fd: int,
        folder: str,
        record_type: type[R],
        durability: Durability,
        before_writing: Callable[[], None] = lambda: None,
    ) -> None:
        """Takes a folder of a pool; `before_writing` may raise to keep it as it is."""
        self.folder = folder
        self._pool_fd = pool_fd
        self._durability = durability
        self._record_type = record_type
        self._before_writing = before_writing
        self._entries: dict[str, R] = {}
        self._order: list[Position] = []
        self._guard = threading.Lock()
        self.damaged: dict[str, str] = {}
        """Keys of entries whose record cannot be used, and why. They are left as they are."""

    # --- reading ---------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._entries)

    def load(self) -> None:
        """Reads every record of the folder into the index."""
        folder = open_beneath(self._pool_fd, self.folder, _DIRECTORY)
        try:
            keys = os.listdir(folder)
            for key in keys:
                try:
                    self._entries[key] = self._read(folder, key)
                except records.DamagedRecordError as error:
                    self.damaged[key] = str(error)
            self._order = sorted((r.created_ns, key) for key, r in self._entries.items())
        finally:
            os.close(folder)

    def find(self, key: str) -> R | None:
        """Returns the record under a key, or None.

        Raises:
            NotNow: There is an entry, but its record is damaged.
        """
        record = self._entries.get(key)
        if record is None and key in self.damaged:
            raise NotNow(
                f"the entry {self.folder}/{key} of the pool cannot be used: {self.damaged[key]}; "
                "repair or move away the entry and start the driver again"
            )
        return record

    def peek(self, key: str) -> R | None:
        """Is `find`, but a damaged record counts as none."""
        return self._entries.get(key)

    def find_id(self, object_id: ids.ObjectId) -> R | None:
        """Returns the record that carries this very id, or None; see `find`."""
        record = self.find(object_id.key)
        return record if record is not None and record.id == str(object_id) else None

    def values(self) -> list[R]:
        """Returns all records, in no particular order."""
        with self._guard:
            return list(self._entries.values())

    def after(self, position: Position | None) -> Iterator[tuple[Position, R]]:
        """Yields the records that stand behind a position, oldest first.

        What is made or deleted meanwhile may or may not be among them.
        """
        with self._guard:
            start = 0 if position is None else bisect.bisect_right(self._order, position)
            rest = self._order[start:]
        for place in rest:
            record = self._entries.get(place[1])
            if record is not None:
                yield place, record

    def open(self, key: str, path: str = "", flags: int = _DIRECTORY) -> int:
        """Opens an entry's folder, or what lies at `path` in it, without following a link."""
        return open_beneath(self._pool_fd, "/".join(filter(None, (self.folder, key, path))), flags)

    @contextlib.contextmanager
    def opened(self, key: str, path: str = "", flags: int = _DIRECTORY) -> Iterator[int]:
        """Is `open` for a `with` block."""
        descriptor = self.open(key, path, flags)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    # --- changing --------------------------------------------------------------------------

    @contextlib.contextmanager
    def site(self, key: str) -> Iterator[Site]:
        """Opens a temporary folder to build an entry in; what is not committed goes to trash."""
        self._before_writing()
        name = f"{key}.{secrets.token_hex(6)}"
        building = open_beneath(self._pool_fd, BUILDING, _DIRECTORY)
        try:
            os.mkdir(name, 0o700, dir_fd=building)
            try:
                fd = open_beneath(building, name, _DIRECTORY)
                try:
                    yield Site(key, name, fd)
                finally:
                    os.close(fd)
            except BaseException:
                # What cannot be moved now is swept at the next start; a committed entry is gone.
                with contextlib.suppress(OSError):
                    move_to_trash(self._pool_fd, BUILDING, name, name, self._durability)
                raise
        finally:
            os.close(building)

    def commit(self, site: Site, record: R) -> None:
        """Writes the record and renames the entry into place, durably.

        The contents of its files must be synced already, its names need not.

        Raises:
            AlreadyExists: Something else lies at that place of the pool.
        """
        records.write_record(site.fd, record, self._durability)
        self._durability.inside(site.fd)
        with _folders(self._pool_fd, BUILDING, self.folder) as (building, target):
            try:
                rename_noreplace(building, site.name, target, site.key)
            except FileExistsError as error:
                raise AlreadyExists(
                    f"the pool already has something at {self.folder}/{site.key} that this driver "
                    "did not make"
                ) from error
            self._index(site.key, record)
            self._durability.names(target)

    def replace(self, record: R) -> R:
        """Writes a changed record over the old one and returns it."""
        self._before_writing()
        key = ids.key_of(record.id)
        with self.opened(key) as folder:
            records.write_record(folder, record, self._durability)
            self._durability.names(folder)
        with self._guard:
            self._entries[key] = record
        return record

    def change(self, record: R, **fields: object) -> R:
        """Writes a copy of the record in which the given fields differ, and returns it."""
        return self.replace(record.replace(**fields))

    def discard(self, record: R) -> None:
        """Takes an entry away at once; its bytes are freed later, from the trash."""
        self._before_writing()
        key = ids.key_of(record.id)
        trash_name = f"{key}.{secrets.token_hex(6)}"
        move_to_trash(self._pool_fd, self.folder, key, trash_name, self._durability)
        with self._guard:
            del self._entries[key]
            place = (record.created_ns, key)
            index = bisect.bisect_left(self._order, place)
            if index < len(self._order) and self._order[index] == place:
                del self._order[index]

    def _read(self, folder: int, key: str) -> R:
        record = records.read_record(folder, f"{key}/{records.RECORD_NAME}", self._record_type)
        if ids.key_of(record.id) != key:
            raise records.DamagedRecordError("its record belongs to another entry")
        return record

    def _index(self, key: str, record: R) -> None:
        with self._guard:
            self._entries[key] = record
            bisect.insort(self._order, (record.created_ns, key))


def move_to_trash(
    pool_fd: int, folder: str, name: str, trash_name: str, durability: Durability
) -> None:
    """Renames an entry into the trash, durably."""
    with _folders(pool_fd, folder, TRASH) as (source, trash):
        rename_noreplace(source, name, trash, trash_name)
        durability.names(source, trash)


@contextlib.contextmanager
def _folders(pool_fd: int, first: str, second: str) -> Iterator[tuple[int, int]]:
    one = open_beneath(pool_fd, first, _DIRECTORY)
    try:
        two = open_beneath(pool_fd, second, _DIRECTORY)
        try:
            yield one, two
        finally:
            os.close(two)
    finally:
        os.close(one)
