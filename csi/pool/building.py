"""Entries under construction, and what was thrown away: the two folders through which all goes.

An entry is built below a temporary name and renamed into place. What does not come that far is
thrown away, and so is what was deleted; its bytes are freed later. Where even that cannot be done,
because the disk takes no writes, it is tried again later, and the caller hears that not all was
undone.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from csi.errors import Unavailable
from csi.linux.paths import open_beneath, rename_noreplace
from csi.pool.durability import Durability

BUILDING = "building"
TRASH = "trash"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY


@dataclass(frozen=True, slots=True)
class Site:
    """An entry under construction: an open folder under a temporary name."""

    key: str
    name: str
    fd: int


class Building:
    """The two folders of a pool; safe from any thread.

    Attributes:
        when_thrown_away: Called when there is something new in the trash, or left for later.
    """

    def __init__(self, pool_fd: int, durability: Durability) -> None:
        """Takes the two folders of a pool."""
        self.when_thrown_away: Callable[[], None] = lambda: None
        self._pool_fd = pool_fd
        self._durability = durability
        self._left: set[tuple[str, str]] = set()
        self._guard = threading.Lock()

    @contextlib.contextmanager
    def site(self, key: str) -> Iterator[Site]:
        """Opens a temporary folder to build an entry in; one that fails is thrown away.

        Raises:
            Unavailable: It failed, and cannot be thrown away now.
        """
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
            except BaseException as error:
                self._give_up(name, error)
                raise
        finally:
            os.close(building)

    def names(self, folder: str) -> list[str]:
        """Returns what lies in one of the two folders."""
        descriptor = open_beneath(self._pool_fd, folder, _DIRECTORY)
        try:
            return os.listdir(descriptor)
        finally:
            os.close(descriptor)

    def move_to_trash(self, folder: str, name: str, trash_name: str) -> None:
        """Renames an entry into the trash, durably."""
        with opened_folders(self._pool_fd, folder, TRASH) as (source, trash):
            rename_noreplace(source, name, trash, trash_name)
            try:
                self._durability.names(source, trash)
            finally:
                self.when_thrown_away()

    def leave(self, folder: str, name: str) -> None:
        """Notes what must not count and could not be thrown away."""
        with self._guard:
            self._left.add((folder, name))
        self.when_thrown_away()

    def throw_away_left(self) -> None:
        """Throws away what could not be before.

        Raises:
            OSError: It still cannot.
        """
        with self._guard:
            left = list(self._left)
        for folder, name in left:
            self.make_way(folder, name)

    def make_way(self, folder: str, name: str) -> bool:
        """Throws away one that was left, so that its name is free; returns whether it was one."""
        with self._guard:
            if (folder, name) not in self._left:
                return False
            with contextlib.suppress(FileNotFoundError):
                self._throw_away(folder, name)
            self._left.discard((folder, name))
        return True

    def _give_up(self, name: str, error: BaseException) -> None:
        try:
            self._throw_away(BUILDING, name)
        except FileNotFoundError:
            return  # it was committed, and something after that failed
        except OSError as failure:
            self.leave(BUILDING, name)
            raise Unavailable(
                f"what was begun could not be taken back yet ({failure.strerror}), which the "
                f"driver tries again by itself; it was given up because: {error}"
            ) from error
        finally:
            self.when_thrown_away()

    def _throw_away(self, folder: str, name: str) -> None:
        """Moves what never counted. It is not synced: who cut that off was told so."""
        trash_name = f"{name.partition('.')[0]}.{secrets.token_hex(6)}"
        with opened_folders(self._pool_fd, folder, TRASH) as (source, trash):
            rename_noreplace(source, name, trash, trash_name)


@contextlib.contextmanager
def opened_folders(pool_fd: int, first: str, second: str) -> Iterator[tuple[int, int]]:
    """Opens two folders of a pool."""
    one = open_beneath(pool_fd, first, _DIRECTORY)
    try:
        two = open_beneath(pool_fd, second, _DIRECTORY)
        try:
            yield one, two
        finally:
            os.close(two)
    finally:
        os.close(one)
