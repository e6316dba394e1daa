"""csi.linux.writeback against the kernel: what a crash would leave of files that nobody synced."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from csi.linux import subvolume, writeback
from tests.disks import mount_image, opened, release

pytestmark = pytest.mark.kernel

SMALL, LARGE = b"s" * 700, b"l" * 3000


@contextmanager
def crashed(pool: Path, folder: Path) -> Iterator[Path]:
    """Yields the filesystem as a crash would leave it now: a copy of its disk, mounted."""
    image, target = folder / "crashed.img", folder / "crashed"
    shutil.copyfile(pool.parent / "disk.img", image)
    target.mkdir()
    try:
        mount_image(image, target, "btrfs")
        yield target
    finally:
        release(target)


def commit(pool: Path, number: int) -> None:
    """Lets somebody else commit, who cares for no file of ours: a snapshot does that."""
    with opened(pool, os.O_RDONLY) as top, opened(pool / "other", os.O_RDONLY) as other:
        subvolume.snapshot(other, top, f"snapshot-{number}", read_only=True)


@pytest.fixture
def pool(btrfs_pool: Path) -> Path:
    with opened(btrfs_pool, os.O_RDONLY) as top:
        subvolume.create(top, "other")
    commit(btrfs_pool, 0)
    return btrfs_pool


def write(path: Path, data: bytes, *, ensure: bool) -> bool:
    """Writes a new file; returns whether it is said to be in the tree."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        os.write(descriptor, data)
        return ensure and writeback.is_in_tree(descriptor)
    finally:
        os.close(descriptor)


def test_a_small_file_is_in_the_next_commit(pool: Path, tmp_path: Path) -> None:
    (pool / "folder").mkdir()
    assert write(pool / "folder" / "file", SMALL, ensure=True)
    os.rename(pool / "folder", pool / "renamed")
    with crashed(pool, tmp_path) as before:
        assert not (before / "renamed").exists()
    commit(pool, 1)
    (tmp_path / "crashed").rmdir()
    with crashed(pool, tmp_path) as after:
        assert (after / "renamed" / "file").read_bytes() == SMALL


def test_without_it_a_commit_has_the_name_alone(pool: Path, tmp_path: Path) -> None:
    assert not write(pool / "file", SMALL, ensure=False)
    commit(pool, 1)
    with crashed(pool, tmp_path) as after:
        assert (after / "file").read_bytes() == b""


def test_what_is_too_large_for_the_tree_is_said_to_be(pool: Path) -> None:
    assert not write(pool / "large", LARGE, ensure=True)


@pytest.mark.parametrize("data", [b"", SMALL])
def test_other_filesystems_have_no_such_tree(xfs_pool: Path, data: bytes) -> None:
    assert not write(xfs_pool / "file", data, ensure=True)
