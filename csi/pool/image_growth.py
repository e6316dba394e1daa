"""Growing the ext4 in an unused image, so that a kill or a power cut at any moment costs nothing.

resize2fs(8) rewrites a filesystem's tables in place and keeps no journal of that. Killed amid it,
it leaves what `e2fsck -p` refuses and, of a small filesystem without backup superblocks, what no
e2fsck repairs. So it never runs on the image itself:

- Where the pool reflinks, a clone is checked and grown, and takes the image's place by a rename.
- Elsewhere a copy is, in which only the filesystem's own blocks are, the contents of files being
  holes. Once it is synced and has its name, its blocks are written over those of the image: a redo
  log, which the next try writes again where one was cut off.

Only a filesystem whose tables outgrow what was reserved for them (see `ext4_keeps_data_in_place`)
is grown in the image itself where there is no reflink, since resize2fs has to move data then.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from csi.linux import copying
from csi.linux.growth import (
    check_ext4,
    copy_ext4_metadata,
    expect_whole_ext4,
    resize_ext4,
)
from csi.linux.paths import open_beneath, sync_directory
from csi.linux.superblock import ext4_keeps_data_in_place, filesystem_bytes
from csi.pool.image import IMAGE_NAME

GROWN_NAME = "disk.img.grown"
REDO_NAME = "disk.img.redo"
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL


def ensure_ext4_fills(folder: int, *, reflink: bool, may_grow: bool) -> None:
    """Grows the filesystem of an unused image to the image's size, if it is smaller.

    Args:
        folder: The open entry.
        reflink: Whether the pool can clone files.
        may_grow: False only ends what an earlier try began.

    Raises:
        ProgramFailed: The filesystem is damaged, or could not be grown; it is as it was.
    """
    image = open_beneath(folder, IMAGE_NAME, os.O_RDWR)
    try:
        _redo(folder, image)
        size = os.fstat(image).st_size
        if not may_grow or not _is_smaller(image, size):
            return
        if reflink:
            with _copy_to_grow(folder) as clone:
                copying.clone_file(image, clone)
                _grow(clone)
                _rename(folder, IMAGE_NAME)
        elif ext4_keeps_data_in_place(image, size):
            with _copy_to_grow(folder) as tables:
                copy_ext4_metadata(_path(image), _path(tables), pass_fds=(image, tables))
                os.ftruncate(tables, size)
                _grow(tables)
                _rename(folder, REDO_NAME)
            _redo(folder, image)
        else:
            _grow(image)
    finally:
        os.close(image)


def drop_copy(folder: int) -> None:
    """Removes a copy that a kill has left before it counted."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(GROWN_NAME, dir_fd=folder)


def _is_smaller(image: int, size_bytes: int) -> bool:
    try:
        return filesystem_bytes("ext4", image) < size_bytes
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False  # it holds something else: whoever mounts it is told so


@contextlib.contextmanager
def _copy_to_grow(folder: int) -> Iterator[int]:
    drop_copy(folder)
    copy = open_beneath(folder, GROWN_NAME, _CREATE, 0o600)
    try:
        yield copy
    except BaseException:
        with contextlib.suppress(OSError):
            drop_copy(folder)
        raise
    finally:
        os.close(copy)


def _grow(image: int) -> None:
    check_ext4(_path(image), pass_fds=(image,))
    resize_ext4(_path(image), pass_fds=(image,))
    expect_whole_ext4(_path(image), pass_fds=(image,))
    os.fsync(image)


def _rename(folder: int, name: str) -> None:
    os.rename(GROWN_NAME, name, src_dir_fd=folder, dst_dir_fd=folder)
    sync_directory(folder)


def _redo(folder: int, image: int) -> None:
    """Writes the blocks of a grown copy over those of the image, if there is such a copy."""
    try:
        tables = open_beneath(folder, REDO_NAME, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        copying.copy_sparse(tables, image, keep_going=lambda: True)
        os.fsync(image)
    finally:
        os.close(tables)
    os.unlink(REDO_NAME, dir_fd=folder)
    sync_directory(folder)


def _path(descriptor: int) -> str:
    return f"/proc/self/fd/{descriptor}"
