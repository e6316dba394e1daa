"""Taking the contents of a volume or snapshot as one moment, or refusing to.

An image that nobody uses is a moment by itself. A mounted one is flushed and frozen for as long
as the clone takes, a raw block device in use is flushed. A directory is a btrfs subvolume, whose
snapshot is a moment. What cannot be had as a moment is refused, with what to do about it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from csi.errors import NotNow, UnsupportedRequest
from csi.linux import loop, subvolume
from csi.linux.copying import allocated_bytes
from csi.linux.freeze import Freeze, FreezeExpired, frozen
from csi.model import Access, Kind, Snapshot, Volume
from csi.pool import directory, image
from csi.pool.frozen_note import frozen_note
from csi.pool.pool import Pool
from csi.pool.shelf import Shelf
from csi.volumes import presence
from csi.volumes.devices import opened_mount
from csi.volumes.pools import Found, measure_volume

CLONE_BOUND_S = 5.0


@dataclass(frozen=True, slots=True)
class Origin:
    """A volume or snapshot whose contents are wanted."""

    pool: Pool
    shelf: Shelf[Volume] | Shelf[Snapshot]
    key: str
    record: Volume | Snapshot

    @classmethod
    def of_volume(cls, found: Found[Volume]) -> Origin:
        """Returns the origin for a volume."""
        return cls(found.depot.pool, found.depot.pool.volumes, found.key, found.record)

    @classmethod
    def of_snapshot(cls, found: Found[Snapshot]) -> Origin:
        """Returns the origin for a snapshot."""
        return cls(found.depot.pool, found.depot.pool.snapshots, found.key, found.record)

    @contextlib.contextmanager
    def folder(self) -> Iterator[int]:
        """Opens the entry."""
        with self.shelf.opened(self.key) as folder:
            yield folder

    @contextlib.contextmanager
    def image(self) -> Iterator[int]:
        """Opens the image, for reading."""
        with self.shelf.opened(self.key, image.IMAGE_NAME, os.O_RDONLY) as descriptor:
            yield descriptor

    def held_bytes(self) -> int:
        """Returns the bytes of data there are now, shared or not."""
        record = self.record
        if record.kind is Kind.IMAGE:
            with self.image() as descriptor:
                return allocated_bytes(descriptor)
        if isinstance(record, Snapshot):
            return record.held_bytes
        if record.quota_number:
            return measure_volume(self.pool, record) + record.borrowed_bytes
        return 0

    def needs_background_copy(self, frozen_copy_s: float) -> bool:
        """Whether only a copy of an unused image will do.

        Raises:
            NotNow: A copy would do, but the volume is in use.
            UnsupportedRequest: The pool cannot copy it as one moment at all.
        """
        record = self.record
        if record.kind is Kind.DIRECTORY:
            with self.folder() as folder:
                if not directory.is_subvolume(folder):
                    raise UnsupportedRequest(
                        "directories can be snapshotted and cloned on a btrfs pool only, and this "
                        "pool is none; use kind: image for volumes that need it"
                    )
            return False
        if self.pool.features.reflink:
            return False
        if not self._in_use():
            return True
        if frozen_copy_s > 0 and record.access is Access.FILESYSTEM:
            return False
        raise NotNow(
            f"volume {record.id} is in use and its pool has no reflink, so a moment of it cannot "
            "be had: stop its pods and try again, or put the pool on xfs or btrfs, or let the "
            "snapshot class hold the volume still for the copy (frozenCopySeconds; filesystem "
            "volumes only)"
        )

    def _in_use(self) -> bool:
        return isinstance(self.record, Volume) and presence.look(self.pool, self.key).anywhere


@contextlib.contextmanager
def held_still(origins: Sequence[Origin], note: int, bound_s: float) -> Iterator[Freeze | None]:
    """Holds mounted images still, all from one moment on; `note` is the folder built in.

    Yields what tells whether the bound has run out, or None where nothing had to be frozen.

    Raises:
        FreezeExpired: At the end: it took longer than the bound and may not be one moment.
    """
    volumes = [
        (origin, origin.record)
        for origin in origins
        if isinstance(origin.record, Volume) and origin.record.kind is Kind.IMAGE
    ]
    with contextlib.ExitStack() as stack:
        keys, descriptors = [], []
        for origin, volume in volumes:
            present = presence.look(origin.pool, origin.key)
            if volume.access is Access.FILESYSTEM and present.mounts:
                descriptors.append(stack.enter_context(opened_mount(present.mounts[0].target)))
                keys.append(origin.key)
            else:
                for device in present.devices:
                    loop.flush(device.path)
        if not descriptors:
            yield None
            return
        stack.enter_context(frozen_note(note, keys))
        with frozen(descriptors, bound_s=bound_s) as freeze:
            yield freeze


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of taking a moment.

    Attributes:
        moment_ns: When it was, in nanoseconds since the epoch.
        shared_bytes: Data shared with the origin; 0 for a copy.
        quota_number: What a directory is limited under, or 0.
    """

    moment_ns: int
    shared_bytes: int = 0
    quota_number: int = 0


def take_image(origin: Origin, folder: int, size_bytes: int, frozen_copy_s: float) -> Taken:
    """Takes the image of an origin into the open entry, whole and synced."""
    take = _clone if origin.pool.features.reflink else _copy
    taken = take(origin, folder, size_bytes, frozen_copy_s)
    image.give_own_identity(folder, origin.record.fs_type)
    return taken


def _clone(origin: Origin, folder: int, size_bytes: int, _frozen_copy_s: float) -> Taken:
    with origin.image() as source, held_still([origin], folder, CLONE_BOUND_S):
        moment_ns = time.time_ns()
        shared = image.clone_image(source, folder, size_bytes)
    image.sync_image(folder)
    return Taken(moment_ns, shared_bytes=shared)


def _copy(origin: Origin, folder: int, size_bytes: int, frozen_copy_s: float) -> Taken:
    try:
        with origin.image() as source, held_still([origin], folder, frozen_copy_s) as freeze:
            moment_ns = time.time_ns()
            image.fill_copy(
                source, folder, size_bytes, lambda: freeze is None or not freeze.expired
            )
    except (InterruptedError, FreezeExpired) as error:
        raise NotNow(
            f"the copy was not done within the {frozen_copy_s:g} s for which the volume may be "
            "held still: stop its pods and try again, or raise frozenCopySeconds"
        ) from error
    image.finish_copy(folder)
    return Taken(moment_ns)


def take_directory(
    origin: Origin, folder: int, size_bytes: int, *, read_only: bool, limited: bool
) -> Taken:
    """Takes the subvolume of an origin into the open entry, synced."""
    moment_ns = time.time_ns()
    limits = origin.pool.limits
    with origin.folder() as source:
        directory.snapshot(source, folder, read_only=read_only)
    number = limits.hold_new(folder, size_bytes) if limited and limits is not None else 0
    # Only then: btrfs charges what was written when it commits.
    subvolume.commit(folder)
    return Taken(moment_ns, origin.held_bytes(), number)


def copy_image(
    origin: Origin,
    shelf: Shelf[Volume] | Shelf[Snapshot],
    key: str,
    size_bytes: int,
    thick: bool,
    keep_going: image.KeepGoing,
) -> int:
    """Copies an unused image into an entry that waits for it; returns the bytes it took."""
    with origin.image() as source, shelf.opened(key) as folder:
        image.fill_copy(source, folder, size_bytes, keep_going)
        own = image.finish_copy(folder)
        image.give_own_identity(folder, origin.record.fs_type)
        if thick:
            image.preallocate_image(folder, size_bytes)
    return own
