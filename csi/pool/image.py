"""Image volumes: a sparse file in the entry, formatted when it is made and never again.

A filesystem is made while the image still lies under its temporary name. Staging mounts what it
finds and formats nothing, so that no mistake there can cost data.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence

from csi.errors import Unavailable
from csi.linux import copying, filesystems
from csi.linux.paths import open_beneath

IMAGE_NAME = "disk.img"
PARTIAL_NAME = "disk.img.partial"
"""A copy under way; it becomes the image by a rename once it is whole."""

KeepGoing = Callable[[], bool]
"""Asked between the steps of long work; False puts it down."""

_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL
PATH_ONLY = os.O_PATH
"""To look whether something is there, without opening it for reading."""
_BTRFS_TELLS_COPIES_APART = (6, 7)


def create_image(
    folder: int, size_bytes: int, fs_type: str, *, thick: bool, options: Sequence[str] = ()
) -> None:
    """Makes an empty image in the open entry, formatted unless `fs_type` is empty, and syncs it.

    `options` are more words for mkfs.

    Raises:
        ProgramFailed: mkfs failed.
        OSError: The pool did not take it.
    """
    image = open_beneath(folder, IMAGE_NAME, _CREATE, 0o600)
    try:
        os.ftruncate(image, size_bytes)
        if fs_type:
            path = f"/proc/self/fd/{image}"
            filesystems.make_filesystem(fs_type, path, options=options, pass_fds=(image,))
        if thick:
            copying.preallocate(image, size_bytes)
        os.fsync(image)
    finally:
        os.close(image)


def clone_image(source: int, folder: int, size_bytes: int) -> int:
    """Reflinks the open image `source` into the open entry; returns the bytes now shared.

    The clone is at least `size_bytes` long. `sync_image` makes it durable: that may take long,
    and a frozen source must not wait for it.
    """
    image = open_beneath(folder, IMAGE_NAME, _CREATE, 0o600)
    try:
        copying.clone_file(source, image)
        if size_bytes > os.fstat(image).st_size:
            os.ftruncate(image, size_bytes)
        return copying.allocated_bytes(image)
    finally:
        os.close(image)


def start_copy(folder: int) -> None:
    """Makes the empty file that a background copy will fill."""
    os.close(open_beneath(folder, PARTIAL_NAME, _CREATE, 0o600))


def probe_image(descriptor: int) -> str:
    """Returns the filesystem that an open image holds, or nothing if it is none of ours."""
    present = filesystems.probe(f"/proc/self/fd/{descriptor}", pass_fds=(descriptor,))
    return present if present is not None and present in filesystems.FILESYSTEMS else ""


def sync_image(folder: int) -> None:
    """Makes the image of an open entry durable."""
    image = open_beneath(folder, IMAGE_NAME, os.O_RDONLY)
    try:
        os.fsync(image)
    finally:
        os.close(image)


def fill_copy(source: int, folder: int, size_bytes: int, keep_going: KeepGoing) -> None:
    """Copies the open image `source` into the open entry, holes as holes; `finish_copy` follows.

    What an earlier try left is replaced.

    Raises:
        InterruptedError: `keep_going` said no.
    """
    partial = open_beneath(folder, PARTIAL_NAME, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        copying.copy_sparse(source, partial, keep_going=keep_going)
        if size_bytes > os.fstat(partial).st_size:
            os.ftruncate(partial, size_bytes)
    finally:
        os.close(partial)


def finish_copy(folder: int) -> int:
    """Makes a filled copy the image of its entry, whole and synced; returns its own bytes."""
    partial = open_beneath(folder, PARTIAL_NAME, os.O_RDWR)
    try:
        os.fsync(partial)
        own = copying.allocated_bytes(partial)
    finally:
        os.close(partial)
    os.rename(PARTIAL_NAME, IMAGE_NAME, src_dir_fd=folder, dst_dir_fd=folder)
    os.fsync(folder)
    return own


def give_own_identity(folder: int, fs_type: str) -> None:
    """Lets a copied filesystem be mounted beside its source.

    ext4 does not mind, XFS is mounted with `nouuid`, and btrfs needs a new id where the kernel
    does not tell two filesystems of one id apart (before 6.7).
    """
    if fs_type != "btrfs" or filesystems.kernel_version() >= _BTRFS_TELLS_COPIES_APART:
        return
    image = open_beneath(folder, IMAGE_NAME, os.O_RDWR)
    try:
        filesystems.new_btrfs_identity(f"/proc/self/fd/{image}", pass_fds=(image,))
    finally:
        os.close(image)


def preallocate_image(folder: int, size_bytes: int) -> None:
    """Gives every hole of the image real blocks, durably."""
    image = open_beneath(folder, IMAGE_NAME, os.O_RDWR)
    try:
        copying.preallocate(image, size_bytes)
        os.fsync(image)
    finally:
        os.close(image)


@contextlib.contextmanager
def grown(folder: int, present_bytes: int, size_bytes: int, *, thick: bool) -> Iterator[None]:
    """Makes the image longer, durably, for a block that records it.

    Where that or the block fails the image gets its present length back, unless the block ended
    without knowing what it recorded.

    Raises:
        Unavailable: It failed, and the image is longer now than its record says.
    """
    image = open_beneath(folder, IMAGE_NAME, os.O_RDWR)
    try:
        try:
            if os.fstat(image).st_size < size_bytes:
                os.ftruncate(image, size_bytes)
            if thick:
                copying.preallocate(image, size_bytes)
            os.fsync(image)
            yield
        except Unavailable:
            raise
        except BaseException as error:
            _shorten(image, present_bytes, error)
            raise
    finally:
        os.close(image)


def image_status(folder: int) -> os.stat_result:
    """Returns the state of the image of an open entry; a link in its place is not followed."""
    return os.stat(IMAGE_NAME, dir_fd=folder, follow_symlinks=False)


def mend_length(folder: int, size_bytes: int) -> int:
    """Cuts an image that is longer than its record says, as growth leaves it that was cut off.

    Only holes go: an image that has data there is as the record should have been, and stays.
    Returns the bytes that it is too long or, less than nothing, too short by now.
    """
    image = open_beneath(folder, IMAGE_NAME, os.O_RDWR)
    try:
        excess = os.fstat(image).st_size - size_bytes
        if excess <= 0 or not copying.is_hole(image, size_bytes):
            return excess
        os.ftruncate(image, size_bytes)
        os.fsync(image)
        return 0
    finally:
        os.close(image)


def _shorten(image: int, size_bytes: int, error: BaseException) -> None:
    try:
        os.ftruncate(image, size_bytes)
    except OSError as failure:
        raise Unavailable(
            f"the image could not be made longer ({error}), and not be cut back yet: "
            f"{failure.strerror}"
        ) from error
