"""Pools on xfs and ext4 with project quotas, and a bench for each test."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import tests.driver
from csi.linux import mounts
from tests.contract.bench import Bench
from tests.disks import opened, release
from tests.driver import Driver, create_pool, running_driver
from tests.kubelet import Kubelet

# The guest has one processor, and shares it with whatever else the machine does.
tests.driver.START_TIMEOUT_S = 120.0
FILESYSTEMS = ("xfs", "ext4")
DISKS_OF = {"xfs": "/dev/ubda", "ext4": "/dev/ubdb"}


@pytest.fixture(scope="session", params=FILESYSTEMS)
def fs_type(request: pytest.FixtureRequest) -> str:
    """The filesystem that the pool is on."""
    return str(request.param)


@pytest.fixture(scope="session")
def pool(fs_type: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A pool, made as an administrator is told to make it."""
    path = tmp_path_factory.mktemp(f"pool-{fs_type}")
    disk = DISKS_OF[fs_type]
    try:
        if fs_type == "xfs":
            create_pool(path, "--device", disk)
        else:
            make("ext4", disk, projects=True)
            mount(disk, path, "ext4", "prjquota")
            create_pool(path)
        yield path
    finally:
        release(path)


def make(fs_type: str, disk: str, *, projects: bool = False) -> None:
    """Makes a filesystem, an ext4 with projects by the command that `pool create` names.

    Not with the driver's own options: they are for new files, and a disk is used several times.
    """
    force = {"xfs": "-f", "ext4": "-F"}[fs_type]
    subprocess.run([f"mkfs.{fs_type}", "-q", force, disk], check=True)
    if projects and fs_type == "ext4":
        subprocess.run(["tune2fs", "-O", "project", "-Q", "prjquota", disk], check=True)


def mount(disk: str, path: Path, fs_type: str, *options: str) -> None:
    """Mounts a disk at a directory."""
    with opened(path, os.O_PATH) as target:
        mounts.mount_filesystem(disk, target, fs_type, options=options)


@pytest.fixture(scope="session")
def driver(fs_type: str, pool: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """The driver over that pool."""
    with running_driver(pool, tmp_path_factory.mktemp(f"driver-{fs_type}")) as running:
        yield running


@pytest.fixture
def bench(driver: Driver, pool: Path, tmp_path: Path) -> Iterator[Bench]:
    """A bench on it."""
    bench = Bench(driver, Kubelet(tmp_path / "kubelet"), pool)
    yield bench
    bench.clean_up()
