"""A folder of the pool with one entry an object, and the index of it in memory.

An entry is a directory named by the object's key that holds `record.json` and the data. It is
built under a temporary name (`csi.pool.building`), synced, and renamed into place: the rename is
the commit. Taking it away is a rename into the trash, whose bytes go later. So after a crash an
entry is whole or it is rubbish, and a look at two folders tells which.

What cannot be synced is taken back before the error goes on, since the disk may have it or not.
Where that fails too the caller hears `Unavailable`, and the next try finds its way from there.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from csi.errors import AlreadyExists, NotNow, Unavailable
from csi.linux.paths import open_beneath, rename_noreplace
from csi.model import Record
from csi.pool import ids, records
from csi.pool.building import BUILDING, TRASH, Building, Site, opened_folders
from csi.pool.durability import Durability
from csi.pool.index import Index

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY

R = TypeVar("R", bound=Record)
FileId = tuple[int, int]
"""st_dev and st_ino."""


class Shelf(Generic[R]):
    """The entries of one sort; their records are in `index` as well.

    Methods that read the index are safe from any thread. Callers keep two operations on one key
    apart with `csi.volumes.locks`.
    """

    def __init__(
        self,
        pool_fd: int,
        building: Building,
        folder: str,
        record_type: type[R],
        durability: Durability,
        before_writing: Callable[[], None] = lambda: None,
    ) -> None:
        """Takes a folder of a pool; `before_writing` may raise to keep it as it is."""
        self.folder = folder
        self._pool_fd = pool_fd
        self._building = building
        self._durability = durability
        self._record_type = record_type
        self._before_writing = before_writing
        self._leaving: set[str] = set()
        self.index: Index[R] = Index()
        self.damaged: dict[str, str] = {}
        """Keys of entries whose record cannot be used, and why. They are left as they are."""

    # --- reading ---------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.index)

    def load(self) -> None:
        """Reads every record of the folder into the index."""
        folder = open_beneath(self._pool_fd, self.folder, _DIRECTORY)
        try:
            found: dict[str, R] = {}
            for key in os.listdir(folder):
                try:
                    found[key] = self._read(folder, key)
                except records.DamagedRecordError as error:
                    # Where a driver serves the pool, entries leave while they are listed.
                    if _is_there(folder, key):
                        self.damaged[key] = str(error)
            self.index.fill(found)
        finally:
            os.close(folder)

    def find(self, key: str) -> R | None:
        """Returns the record under a key, or None.

        Raises:
            NotNow: There is an entry, but its record is damaged.
        """
        record = self.index.get(key)
        if record is None and key in self.damaged:
            raise NotNow(
                f"the entry {self.folder}/{key} of the pool cannot be used: {self.damaged[key]}; "
                "repair or move away the entry and start the driver again"
            )
        return record

    def peek(self, key: str) -> R | None:
        """Is `find`, but a damaged record counts as none."""
        return self.index.get(key)

    def find_id(self, object_id: ids.ObjectId) -> R | None:
        """Returns the record that carries this very id, or None; see `find`."""
        record = self.find(object_id.key)
        return record if record is not None and record.id == str(object_id) else None

    def values(self) -> list[R]:
        """Returns all records, in no particular order."""
        return self.index.values()

    def open(self, key: str, path: str = "", flags: int = _DIRECTORY) -> int:
        """Opens an entry's folder, or what lies at `path` in it, without following a link."""
        place = f"{self.folder}/{key}/{path}" if path else f"{self.folder}/{key}"
        return open_beneath(self._pool_fd, place, flags)

    @contextlib.contextmanager
    def opened(self, key: str, path: str = "", flags: int = _DIRECTORY) -> Iterator[int]:
        """Is `open` for a `with` block."""
        descriptor = self.open(key, path, flags)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def status(self, key: str, path: str) -> os.stat_result:
        """Returns the state of what lies at `path` in an entry's folder."""
        descriptor = self.open(key, path, os.O_PATH)
        try:
            return os.fstat(descriptor)
        finally:
            os.close(descriptor)

    def file_id(self, key: str, path: str) -> FileId:
        """Returns which file lies at `path` in an entry's folder, whatever its name."""
        status = self.status(key, path)
        return status.st_dev, status.st_ino

    # --- changing --------------------------------------------------------------------------

    def site(self, key: str) -> contextlib.AbstractContextManager[Site]:
        """Opens a temporary folder to build an entry in; see `Building.site`."""
        self._before_writing()
        return self._building.site(key)

    def commit(self, site: Site, record: R) -> None:
        """Writes the record and renames the entry into place, durably.

        The contents of its files must be synced already, its names need not.

        Raises:
            AlreadyExists: Something else lies at that place of the pool.
            Unavailable: It is in place, nobody knows whether to stay, and does not count.
        """
        records.write_record(site.fd, record, self._durability)
        self._durability.inside(site.fd)
        with opened_folders(self._pool_fd, BUILDING, self.folder) as (building, target):
            self._put_in_place(building, target, site)
            try:
                self._durability.names(target)
            except OSError as error:
                self._take_back(building, target, site, error)
                raise
        self.index.put(site.key, record)

    def replace(self, record: R) -> R:
        """Writes a changed record over the old one and returns it.

        Raises:
            OSError: The old one stands.
            Unavailable: Nobody knows which of the two stands, or what was begun is still there; the
                old one counts.
        """
        self._before_writing()
        key = ids.key_of(record.id)
        with self.opened(key) as folder:
            try:
                records.drop_unfinished(folder)
                records.write_record(folder, record, self._durability)
                self._durability.names(folder)
            except OSError as error:
                self._put_back(folder, key, error)
                raise
        self.index.put(key, record)
        return record

    def change(self, record: R, **fields: object) -> R:
        """Writes a copy of the record in which the given fields differ; see `replace`."""
        return self.replace(record.replace(**fields))

    def discard(self, record: R) -> None:
        """Takes an entry away at once; its bytes are freed later, from the trash."""
        self._before_writing()
        key = ids.key_of(record.id)
        self._leaving.add(key)
        try:
            self._move_to_trash(key)
            self.index.remove(key)
        finally:
            self._leaving.discard(key)

    def is_gone(self, record: R) -> bool:
        """Whether an entry was taken away, or is just being: its data may be gone already."""
        key = ids.key_of(record.id)
        # In this order: an entry is struck out before it has left.
        if key in self._leaving:
            return True
        there = self.index.get(key)
        return there is None or there.id != record.id

    def revoke(self, record: R) -> None:
        """Takes back an entry that was committed and must not count.

        Raises:
            Unavailable: It cannot be taken away now. It does not count all the same.
        """
        key = ids.key_of(record.id)
        try:
            self.discard(record)
        except OSError as error:
            self._building.leave(self.folder, key)
            self.index.remove(key)
            raise Unavailable(
                f"{record.id} was made and could not be taken back yet: {error.strerror}"
            ) from error

    def _move_to_trash(self, key: str) -> None:
        try:
            self._building.move_to_trash(self.folder, key, f"{key}.{secrets.token_hex(6)}")
        except FileNotFoundError:
            # An earlier try has moved it, and could not make that durable.
            with opened_folders(self._pool_fd, self.folder, TRASH) as (source, trash):
                self._durability.names(source, trash)

    def _put_in_place(self, building: int, target: int, site: Site) -> None:
        try:
            rename_noreplace(building, site.name, target, site.key)
        except FileExistsError as error:
            if not self._building.make_way(self.folder, site.key):
                raise AlreadyExists(
                    f"the pool already has something at {self.folder}/{site.key} that this driver "
                    "did not make"
                ) from error
            rename_noreplace(building, site.name, target, site.key)

    def _take_back(self, building: int, target: int, site: Site, error: OSError) -> None:
        try:
            rename_noreplace(target, site.key, building, site.name)
        except OSError as failure:
            self._building.leave(self.folder, site.key)
            raise Unavailable(
                f"{self.folder}/{site.key} could not be made durable ({error.strerror}), and not "
                f"be taken back either ({failure.strerror}); the next try makes it anew"
            ) from error

    def _put_back(self, folder: int, key: str, error: OSError) -> None:
        """Makes sure that the old record stands, and alone, after a new one was not written."""
        old = self.index.get(key)
        if old is None:
            return
        try:
            records.drop_unfinished(folder)
            if records.read_record(folder, records.RECORD_NAME, self._record_type) != old:
                records.write_record(folder, old, self._durability)
                self._durability.names(folder)
        except (OSError, records.DamagedRecordError) as failure:
            raise Unavailable(
                f"the record of {old.id} could not be written ({error.strerror}), and the old one "
                f"not be put back for certain: {failure}"
            ) from error

    def _read(self, folder: int, key: str) -> R:
        record = records.read_record(folder, f"{key}/{records.RECORD_NAME}", self._record_type)
        if ids.find_key(record.id) != key:
            raise records.DamagedRecordError("its record belongs to another entry")
        return record


def _is_there(folder: int, key: str) -> bool:
    try:
        os.stat(key, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
