"""What `pool create` says of a filesystem, and pools whose quotas are off."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from csi.linux.project_quota import is_enforced
from tests.contract import requests
from tests.contract.bench import Bench
from tests.contract.command import succeeds
from tests.contract.refusals import Code, refused
from tests.contract.requests import MIB, filesystem
from tests.disks import opened, release
from tests.driver import running_driver
from tests.kubelet import Kubelet
from tests.quota.cases import tenant
from tests.quota.cases.conftest import make, mount
from tests.quota.cases.tenant import REFUSALS, number_of, open_to_all, size_shown

SPARE_DISK = "/dev/ubdc"
ANY = filesystem("")
DIRECTORY = {"kind": "directory"}
SIZE = 16 * MIB


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Where the spare disk is mounted; it is empty before and after."""
    path = tmp_path / "pool"
    path.mkdir()
    yield path
    release(path)
    subprocess.run(["wipefs", "--all", "--quiet", SPARE_DISK], check=True)


def test_a_new_xfs_holds_directories(place: Path) -> None:
    said = succeeds("pool", "create", place, "--device", SPARE_DISK)

    assert "directory volumes are held to their size here" in said
    line = next(line for line in said.splitlines() if line.startswith(SPARE_DISK))
    source, target, fs_type, options = line.split()[:4]
    assert "prjquota" in options.split(",")
    # The line mounts it so again.
    release(place)
    subprocess.run(["mount", "-t", fs_type, "-o", options, source, target], check=True)
    with opened(place, os.O_RDONLY) as descriptor:
        assert is_enforced(descriptor)


@pytest.mark.parametrize(
    ("fs_type", "options", "advice"),
    [
        ("xfs", ["noquota"], ["mount option prjquota", "not by a remount"]),
        ("ext4", [], ["mount option prjquota", f"tune2fs -O project -Q prjquota {SPARE_DISK}"]),
    ],
)
def test_a_pool_without_quotas_says_so_and_refuses(
    place: Path, tmp_path: Path, fs_type: str, options: list[str], advice: list[str]
) -> None:
    make(fs_type, SPARE_DISK)
    mount(SPARE_DISK, place, fs_type, *options)

    said = succeeds("pool", "create", place)

    assert "cannot be held to their size" in said
    for words in advice:
        assert words in said
    with running_driver(place, tmp_path) as driver:
        bench = Bench(driver, Kubelet(tmp_path / "kubelet"), place)
        with refused(Code.INVALID_ARGUMENT, "prjquota", "enforceSize"):
            bench.create(capability=ANY, parameters=DIRECTORY)
        bench.clean_up()


def test_an_ext4_that_only_counts_is_no_pool_that_holds(place: Path) -> None:
    """Its feature is on, and the mount option is missing: nothing is refused to anybody."""
    make("ext4", SPARE_DISK, projects=True)
    mount(SPARE_DISK, place, "ext4")

    assert "cannot be held to their size" in succeeds("pool", "create", place)


@pytest.mark.parametrize("fs_type", ["xfs", "ext4"])
def test_quotas_that_were_off_for_a_while(place: Path, tmp_path: Path, fs_type: str) -> None:
    """Volumes stay usable and are told of; with the option back they are held as before."""
    make(fs_type, SPARE_DISK, projects=True)
    mount(SPARE_DISK, place, fs_type, "prjquota")
    succeeds("pool", "create", place)
    with running_driver(place, tmp_path) as driver:
        bench = Bench(driver, Kubelet(tmp_path / "kubelet"), place)
        volume_id = bench.create(size=SIZE, capability=ANY, parameters=DIRECTORY).volume_id
        with bench.used(volume_id, ANY) as target:
            number = number_of(target)
            assert tenant.write(open_to_all(target), "before", MIB) == (MIB, "")

        driver.stop_cleanly()
        release(place)
        mount(SPARE_DISK, place, fs_type)
        driver.start()

        assert "quotas are off" in driver.log_text()
        with bench.used(volume_id, ANY) as target:
            assert tenant.write(target, "meanwhile", 4 * MIB) == (4 * MIB, "")
            answer = driver.node.NodeGetVolumeStats(requests.stats(volume_id, target))
            assert answer.usage[0].total > 2 * SIZE
        with refused(Code.FAILED_PRECONDITION, "prjquota"):
            driver.controller.ControllerExpandVolume(
                requests.controller_expand(volume_id, 2 * SIZE)
            )

        driver.stop_cleanly()
        release(place)
        mount(SPARE_DISK, place, fs_type, "prjquota")
        driver.start()

        with bench.used(volume_id, ANY) as target:
            assert number_of(target) == number
            assert size_shown(target) == SIZE
            # What was written meanwhile is counted.
            written = tenant.write(target, "after", SIZE)
            assert REFUSALS[fs_type] in written.complaint
            assert written.size_bytes <= SIZE - 5 * MIB
        bench.clean_up()
