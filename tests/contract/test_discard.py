"""What pods delete goes back to the pool: blocks of images shrink away, and there is room again."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract import requests
from tests.contract.bench import Bench, wait_until
from tests.contract.node_fixtures import image_of, run
from tests.contract.requests import GIB, MIB, filesystem, raw_block
from tests.disks import mounted_filesystem
from tests.driver import create_pool, running_driver
from tests.kubelet import Kubelet

pytestmark = pytest.mark.kernel

WRITTEN = 64 * MIB
SIZE = 400 * MIB
SPARE = 12 * MIB
"""What a filesystem may keep for itself of what it held once."""
RATIO = 2
on_each_pool = pytest.mark.parametrize(
    "thin", ["xfs", "ext4", "btrfs"], indirect=True, scope="module"
)
on_xfs = pytest.mark.parametrize("thin", ["xfs"], indirect=True, scope="module")


@pytest.fixture(scope="module")
def thin(request: pytest.FixtureRequest, folder: Path) -> Iterator[Bench]:
    """A bench on a pool that promises twice what it has; there, blocks given back are room."""
    place = folder / f"thin-{request.param}"
    place.mkdir()
    with mounted_filesystem(request.param, place, 2 * GIB) as pool:
        create_pool(pool)
        config = (
            "apiVersion: local-path.csi.dev/v1\nkind: DriverConfiguration\n"
            f"pools: [{{path: {pool}, overProvisioningRatio: {RATIO}}}]\n"
        )
        with running_driver(pool, place, config=config, arguments=["--pool", ""]) as driver:
            yield Bench(driver, Kubelet(place / "kubelet"), pool)


@pytest.fixture
def bench(thin: Bench) -> Iterator[Bench]:
    yield thin
    thin.clean_up()


def allocated(bench: Bench, volume_id: str) -> int:
    return image_of(bench.pool, volume_id).stat().st_blocks * 512


def free(bench: Bench) -> int:
    """What the pool's filesystem has free; btrfs and xfs tell it a moment later."""
    run("sync", "--file-system", str(bench.pool))
    status = os.statvfs(bench.pool)
    return status.f_bavail * status.f_frsize


def promisable(bench: Bench) -> int:
    return bench.driver.controller.GetCapacity(requests.get_capacity()).available_capacity


def write(path: Path, size: int) -> None:
    """Writes what no filesystem makes small, and syncs it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        for _ in range(size // MIB):
            os.write(descriptor, os.urandom(MIB))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@on_each_pool
@pytest.mark.parametrize("fs_type", ["ext4", "xfs", "btrfs"])
def test_deleted_files_go_back_by_fstrim(bench: Bench, fs_type: str) -> None:
    capability = filesystem(fs_type)
    volume_id = bench.create(size=SIZE, capability=capability).volume_id
    with bench.used(volume_id, capability) as target:
        write(target / "file", WRITTEN)
        full, free_before = allocated(bench, volume_id), free(bench)
        room_before = promisable(bench)
        assert full >= WRITTEN

        (target / "file").unlink()

        # Filesystems delete in the background, so what is free now may not be all.
        def trimmed() -> bool:
            run("sync", "--file-system", str(target))
            run("fstrim", str(target))
            return allocated(bench, volume_id) <= full - WRITTEN + SPARE

        wait_until(trimmed, "that blocks are freed")
        wait_until(lambda: free(bench) >= free_before + WRITTEN - SPARE, "that the pool has them")
        # More is free, and more is owed to the volume, which may fill up again: at a ratio of two
        # for each two blocks that it gives back, one can be promised to others.
        assert promisable(bench) - room_before >= WRITTEN - WRITTEN // RATIO - SPARE


@on_xfs
@pytest.mark.parametrize(
    ("fs_type", "flags"), [("ext4", ["discard"]), ("xfs", ["discard"]), ("btrfs", ["discard=sync"])]
)
def test_deleted_files_go_back_at_once_where_the_class_says_so(
    bench: Bench, fs_type: str, flags: list[str]
) -> None:
    capability = filesystem(fs_type, flags=flags)
    volume_id = bench.create(size=SIZE, capability=capability).volume_id
    with bench.used(volume_id, capability) as target:
        write(target / "file", WRITTEN)
        full = allocated(bench, volume_id)

        (target / "file").unlink()

        def freed() -> bool:
            run("sync", "--file-system", str(target))
            return allocated(bench, volume_id) <= full - WRITTEN + SPARE

        wait_until(freed, "that blocks are freed")


@on_each_pool
def test_blocks_of_a_device_go_back(bench: Bench) -> None:
    volume_id = bench.create(size=SIZE, capability=raw_block()).volume_id
    with bench.used(volume_id, raw_block()) as device:
        write(device, WRITTEN)
        full, free_before = allocated(bench, volume_id), free(bench)
        assert full >= WRITTEN

        run("blkdiscard", "--offset", str(MIB), "--length", str(WRITTEN - MIB), str(device))

        assert allocated(bench, volume_id) <= full - WRITTEN + SPARE
        wait_until(lambda: free(bench) >= free_before + WRITTEN - SPARE, "that the pool has them")
        with device.open("rb") as file:
            assert any(file.read(MIB))
            assert not any(file.read(MIB))  # what was discarded reads as zeros


@on_xfs
def test_a_thick_image_that_is_trimmed_becomes_thin(bench: Bench) -> None:
    """docs/limitations.md says so; who wants to keep blocks mounts without discard."""
    volume_id = bench.create(size=64 * MIB, parameters={"allocation": "thick"}).volume_id
    assert allocated(bench, volume_id) >= 64 * MIB
    with bench.used(volume_id) as target:
        run("fstrim", str(target))

        assert allocated(bench, volume_id) < 32 * MIB
    # Room is still kept for it: what it was promised does not depend on its blocks.
    before = promisable(bench)
    bench.delete(volume_id)
    wait_until(lambda: promisable(bench) >= before + 32 * MIB, "that its room is free")
