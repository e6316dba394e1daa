"""An open pool: its lock, its folders, its index, and what its filesystem can do."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

from csi.errors import PoolUnavailable
from csi.linux.copying import can_clone
from csi.linux.mounts import mount_containing
from csi.linux.paths import open_beneath
from csi.linux.project_quota import is_enforced
from csi.linux.quota import simple_quotas_enabled
from csi.linux.subvolume import is_btrfs, pending_bytes, start_commit, sysfs_folder
from csi.linux.usage import FilesystemUsage, filesystem_usage
from csi.model import Group, Record, Snapshot, Volume
from csi.pool import ids
from csi.pool.building import BUILDING, TRASH, Building, Site
from csi.pool.durability import Durability
from csi.pool.group_limits import GroupLimits
from csi.pool.limits import Limits
from csi.pool.mark import FOLDERS, MARK_NAME, read_mark
from csi.pool.project_limits import ProjectLimits
from csi.pool.shelf import Shelf

R = TypeVar("R", bound=Record)

SILENT_S = 5.0
"""After how long without an answer to a write nobody else is let write to a pool."""


@dataclass(frozen=True, slots=True)
class Features:
    """What the filesystem under a pool can do, tried when the pool is opened."""

    reflink: bool
    subvolumes: bool
    directory_quota: bool


class Pool:
    """A marked directory that this process alone works on.

    Attributes:
        name: What the configuration calls it.
        path: Where it lies; for messages only, every access goes through `fd`.
        fd: The open directory.
        uuid: The identity that its ids carry.
        features: What its filesystem can do.
        limits: What holds directories to their size; None where nothing does.
        durability: How what is done in it is made to last.
        building: What is under construction, and what was thrown away.
        volumes: The volumes; likewise `snapshots` and `groups`.
    """

    def __init__(self, name: str, path: str, fd: int, lock: int, uuid: str) -> None:
        self.name = name
        self.path = path
        self.fd = fd
        self.uuid = uuid
        self.id_part = ids.pool_part(uuid)
        self.limits = _find_limits(fd, uuid)
        self.features = Features(
            reflink=can_clone(fd),
            subvolumes=is_btrfs(fd),
            directory_quota=self.limits is not None,
        )
        self.durability = Durability(fd)
        self.building = Building(fd, self.durability)
        self.volumes = self._shelf("volumes", Volume)
        self.snapshots = self._shelf("snapshots", Snapshot)
        self.groups = self._shelf("groups", Group)
        self._lock = lock
        self._writing_since: float | None = None

    @classmethod
    def open(cls, name: str, path: str) -> Pool:
        """Opens and locks the pool at `path`; `load` then reads what is in it.

        Raises:
            PoolUnavailable: There is no directory, no mark, or another process has it open.
        """
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise PoolUnavailable(
                f"the pool {path} cannot be opened: {error.strerror}; "
                f"'csi-local-path pool create {path}' makes one"
            ) from error
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, fd)
            lock = _open_mark(fd, path)
            undo.callback(os.close, lock)
            mark = read_mark(lock, path)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise PoolUnavailable(
                    f"the pool {path} is in use by another driver process; stop that one first"
                ) from error
            for folder in FOLDERS:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(folder, 0o700, dir_fd=fd)
            pool = cls(name, os.path.realpath(path), fd, lock, mark.uuid)
            undo.pop_all()
        return pool

    def close(self) -> None:
        """Gives the pool free for another process."""
        os.close(self._lock)
        os.close(self.fd)

    def load(self) -> None:
        """Reads every record into the index."""
        self.volumes.load()
        if self.limits is not None:
            self.limits.know(volume.quota_number for volume in self.volumes.values())
        self.snapshots.load()
        self.groups.load()

    @functools.cached_property
    def place(self) -> tuple[str, str]:
        """The pool as the mount table names it: device, and path within its filesystem."""
        base = mount_containing(self.fd)
        inside = os.path.relpath(self.path, base.target)
        return base.device, os.path.normpath(os.path.join(base.root, inside)).rstrip("/")

    @functools.cached_property
    def _sysfs_folder(self) -> str:
        return sysfs_folder(self.fd)

    def usage(self) -> FilesystemUsage:
        """Returns the figures of the filesystem that the pool lies on, as of now."""
        usage = filesystem_usage(self.fd)
        if not self.features.subvolumes:
            return usage
        taken = min(pending_bytes(self._sysfs_folder), usage.available_bytes)
        return replace(
            usage,
            available_bytes=usage.available_bytes - taken,
            used_bytes=usage.used_bytes + taken,
        )

    def settle(self) -> None:
        """Has btrfs free what was deleted now and not up to 30 s later; waits for nothing.

        Its cleaner begins then, and what it lets go of is there after one more commit: this is to
        be repeated after a while.
        """
        if self.features.subvolumes:
            start_commit(self.fd)

    def try_writing(self) -> None:
        """Writes something small, to learn whether the disk takes writes.

        The figures and flags of a filesystem do not tell of one that has shut itself down.

        Raises:
            OSError: It does not: EIO, EROFS and so on.
        """
        self._writing_since = time.monotonic()
        try:
            os.utime(self._lock)
            os.fsync(self._lock)
        finally:
            self._writing_since = None

    def check_answers(self) -> None:
        """Tells of a pool that holds whoever writes to it; it touches no disk itself.

        Raises:
            PoolUnavailable: `try_writing` has been under way for too long, in another thread.
        """
        since = self._writing_since
        waiting_s = 0.0 if since is None else time.monotonic() - since
        if waiting_s > SILENT_S:
            raise PoolUnavailable(
                f"pool {self.name!r} at {self.path} has not answered a write for {waiting_s:.0f} "
                "s: its filesystem is frozen, or its disk hangs; thaw it (fsfreeze --unfreeze) or "
                "look at the disk"
            )

    @contextlib.contextmanager
    def volume_site(self, key: str) -> Iterator[Site]:
        """Opens a temporary folder to build a volume in; what is not committed leaves nothing."""
        with self.volumes.site(key) as site:
            try:
                yield site
            except BaseException:
                self._release_unfinished(site.fd)
                raise

    def unfinished(self) -> list[str]:
        """Returns the names of what a crash left in `building/`."""
        return self.building.names(BUILDING)

    def abandon(self, name: str) -> None:
        """Moves an unfinished entry to the trash."""
        with contextlib.suppress(OSError), self._opened(f"{BUILDING}/{name}") as folder:
            self._release_unfinished(folder)
        self.building.move_to_trash(BUILDING, name, name)

    def trash(self) -> list[str]:
        """Returns the names of what waits in the trash."""
        return self.building.names(TRASH)

    @contextlib.contextmanager
    def trash_folder(self) -> Iterator[int]:
        """Opens the trash."""
        with self._opened(TRASH) as descriptor:
            yield descriptor

    def _shelf(self, folder: str, record_type: type[R]) -> Shelf[R]:
        return Shelf(
            self.fd, self.building, folder, record_type, self.durability, self.check_answers
        )

    def _release_unfinished(self, folder: int) -> None:
        """Takes away what limits the directory of an open entry, if it has one."""
        if self.limits is not None:
            with contextlib.suppress(OSError):
                self.limits.abandon(folder)

    @contextlib.contextmanager
    def _opened(self, folder: str) -> Iterator[int]:
        descriptor = open_beneath(self.fd, folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _open_mark(fd: int, path: str) -> int:
    try:
        return open_beneath(fd, MARK_NAME, os.O_RDWR)
    except FileNotFoundError as error:
        raise PoolUnavailable(
            f"{path} carries no pool mark ({MARK_NAME}): if its disk is not mounted, mount it; "
            f"if it is to become a pool, run 'csi-local-path pool create {path}'"
        ) from error
    except OSError as error:
        raise PoolUnavailable(
            f"the mark {path}/{MARK_NAME} cannot be opened: {error.strerror}"
        ) from error


def _find_limits(fd: int, uuid: str) -> Limits | None:
    if is_btrfs(fd):
        return GroupLimits(fd) if simple_quotas_enabled(fd) else None
    return ProjectLimits(fd, uuid) if is_enforced(fd) else None
