"""The driver over each sort of pool, shared by the tests of a module, and a bench for each test."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.bench import Bench
from tests.contract.requests import GIB
from tests.disks import mounted_filesystem
from tests.driver import Driver, create_pool, running_driver
from tests.kubelet import Kubelet

POOL_BYTES = 20 * GIB
"""Sparse, and large enough that no test is refused for want of room by accident."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The module's own folder: logs, the kubelet's paths, and the images of pools."""
    if os.geteuid() != 0:
        pytest.fail("needs root, for mounts and loop devices; -m 'not kernel' leaves it out")
    return tmp_path_factory.mktemp("contract")


@pytest.fixture(scope="module")
def xfs_pool(folder: Path) -> Iterator[Path]:
    """A pool that can share blocks between files."""
    with mounted_filesystem("xfs", folder, POOL_BYTES) as path:
        create_pool(path)
        yield path


@pytest.fixture(scope="module")
def ext4_pool(folder: Path) -> Iterator[Path]:
    """A pool that cannot: copies take their time there."""
    with mounted_filesystem("ext4", folder, POOL_BYTES) as path:
        create_pool(path)
        yield path


@pytest.fixture(scope="module")
def btrfs_pool(folder: Path) -> Iterator[Path]:
    """A pool that holds directories to their size."""
    with mounted_filesystem("btrfs", folder, POOL_BYTES) as path:
        create_pool(path)
        yield path


@pytest.fixture(scope="module")
def xfs_driver(xfs_pool: Path, folder: Path) -> Iterator[Driver]:
    """The driver over an xfs pool."""
    yield from _driver(xfs_pool, folder / "xfs")


@pytest.fixture(scope="module")
def ext4_driver(ext4_pool: Path, folder: Path) -> Iterator[Driver]:
    """The driver over an ext4 pool."""
    yield from _driver(ext4_pool, folder / "ext4")


@pytest.fixture(scope="module")
def btrfs_driver(btrfs_pool: Path, folder: Path) -> Iterator[Driver]:
    """The driver over a btrfs pool."""
    yield from _driver(btrfs_pool, folder / "btrfs")


@pytest.fixture
def bench(xfs_driver: Driver, xfs_pool: Path, folder: Path) -> Iterator[Bench]:
    """A bench on the xfs pool: what most tests want."""
    yield from _bench(xfs_driver, xfs_pool, folder / "xfs")


@pytest.fixture
def ext4_bench(ext4_driver: Driver, ext4_pool: Path, folder: Path) -> Iterator[Bench]:
    """A bench on the ext4 pool."""
    yield from _bench(ext4_driver, ext4_pool, folder / "ext4")


@pytest.fixture
def btrfs_bench(btrfs_driver: Driver, btrfs_pool: Path, folder: Path) -> Iterator[Bench]:
    """A bench on the btrfs pool."""
    yield from _bench(btrfs_driver, btrfs_pool, folder / "btrfs")


def _driver(pool: Path, folder: Path) -> Iterator[Driver]:
    folder.mkdir()
    with running_driver(pool, folder) as driver:
        yield driver


def _bench(driver: Driver, pool: Path, folder: Path) -> Iterator[Bench]:
    bench = Bench(driver, Kubelet(folder / "kubelet"), pool)
    yield bench
    bench.clean_up()
