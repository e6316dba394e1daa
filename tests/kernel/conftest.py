"""Pools for the tests against the kernel, and a check that a test has left nothing behind."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.disks import mounted_filesystem
from tests.leftovers import Before, release_leftovers

MIB = 1 << 20


@pytest.fixture(autouse=True)
def nothing_left(tmp_path: Path) -> Iterator[None]:
    """Fails a test that leaves a mount or a loop device behind, and takes that away."""
    if os.geteuid() != 0:
        pytest.fail("needs root, for mounts and loop devices; -m 'not kernel' leaves it out")
    before = Before.now()
    yield
    left = release_leftovers(before, tmp_path, tmp_path)
    if left:
        pytest.fail(f"the test has left behind: {', '.join(left)}", pytrace=False)


@pytest.fixture
def xfs_pool(tmp_path: Path) -> Iterator[Path]:
    """An XFS with reflinks of 300 MiB, the smallest there is."""
    with mounted_filesystem("xfs", tmp_path, 300 * MIB) as path:
        yield path


@pytest.fixture
def ext4_pool(tmp_path: Path) -> Iterator[Path]:
    """An ext4 of 256 MiB."""
    with mounted_filesystem("ext4", tmp_path, 256 * MIB) as path:
        yield path


@pytest.fixture
def btrfs_pool(tmp_path: Path) -> Iterator[Path]:
    """A btrfs of 512 MiB, without quotas."""
    with mounted_filesystem("btrfs", tmp_path, 512 * MIB) as path:
        yield path
