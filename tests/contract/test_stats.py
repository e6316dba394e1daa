"""NodeGetVolumeStats: the kernel's own figures, for every sort of volume."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from csi.v1 import csi_pb2 as pb
from tests.contract import requests
from tests.contract.bench import Bench, write_synced
from tests.contract.node_fixtures import UNKNOWN_VOLUME, image_of, run
from tests.contract.pods import Pods, pods_of
from tests.contract.refusals import Code, refused
from tests.contract.requests import LEAST_BYTES, MIB, filesystem, raw_block

pytestmark = pytest.mark.kernel

BYTES, INODES = pb.VolumeUsage.BYTES, pb.VolumeUsage.INODES


@pytest.fixture
def pods(bench: Bench) -> Iterator[Pods]:
    yield from pods_of(bench)


def _stats(bench: Bench, volume_id: str, path: Path | str) -> dict[int, pb.VolumeUsage]:
    answer = bench.driver.node.NodeGetVolumeStats(requests.stats(volume_id, path))
    usage: dict[int, pb.VolumeUsage] = {entry.unit: entry for entry in answer.usage}
    assert len(usage) == len(answer.usage)
    return usage


@pytest.mark.parametrize("fs_type", ["ext4", "xfs", "btrfs"])
def test_the_figures_of_a_filesystem_are_those_of_the_kernel(bench: Bench, fs_type: str) -> None:
    capability = filesystem(fs_type)
    size = LEAST_BYTES[fs_type]
    volume_id = bench.create(size=size, capability=capability).volume_id
    with bench.used(volume_id, capability) as target:
        before = _stats(bench, volume_id, target)
        write_synced(target / "file", os.urandom(8 * MIB))
        run("sync", "--file-system", str(target))

        usage = _stats(bench, volume_id, target)

        status = os.statvfs(target)
        assert usage[BYTES].total == status.f_blocks * status.f_frsize
        assert usage[BYTES].available == status.f_bavail * status.f_frsize
        assert usage[BYTES].used == (status.f_blocks - status.f_bfree) * status.f_frsize
        assert usage[INODES].total == status.f_files
        assert usage[INODES].available == status.f_favail
        assert usage[INODES].used == status.f_files - status.f_ffree
        # The kernel's figures mean something: what was written is in them.
        assert usage[BYTES].used - before[BYTES].used >= 8 * MIB
        assert usage[BYTES].total <= size
        assert usage[BYTES].total >= size * 0.7


def test_used_inodes_count_files(bench: Bench) -> None:
    volume_id = bench.create().volume_id
    with bench.used(volume_id) as target:
        before = _stats(bench, volume_id, target)[INODES].used
        for number in range(10):
            (target / f"file-{number}").touch()

        assert _stats(bench, volume_id, target)[INODES].used == before + 10


def test_the_staging_path_answers_too(pods: Pods, bench: Bench) -> None:
    volume_id = bench.create().volume_id
    staging = pods.stage(volume_id)

    status = os.statvfs(staging)
    assert _stats(bench, volume_id, staging)[BYTES].total == status.f_blocks * status.f_frsize


def test_a_block_device_has_its_size_and_no_inodes(pods: Pods, bench: Bench) -> None:
    volume_id = bench.create(size=16 * MIB, capability=raw_block()).volume_id
    staging = pods.stage(volume_id, raw_block())
    target = pods.publish(volume_id, staging, raw_block())
    write_synced(target, os.urandom(4 * MIB))

    for path in (target, staging):
        usage = _stats(bench, volume_id, path)

        assert set(usage) == {BYTES}
        assert usage[BYTES].total == 16 * MIB
        allocated = image_of(bench.pool, volume_id).stat().st_blocks * 512
        assert 4 * MIB <= allocated < 16 * MIB
        assert usage[BYTES].used == allocated
        assert usage[BYTES].available == 16 * MIB - allocated


def test_a_grown_volume_shows_its_new_size(bench: Bench) -> None:
    volume_id = bench.create(size=8 * MIB, capability=raw_block()).volume_id
    with bench.used(volume_id, raw_block()) as target:
        bench.driver.node.NodeExpandVolume(requests.node_expand(volume_id, target, 12 * MIB))

        assert _stats(bench, volume_id, target)[BYTES].total == 12 * MIB


@pytest.mark.parametrize("path", ["/nowhere/at/all", "some/path", "."])
def test_a_path_where_the_volume_is_not_is_not_found(bench: Bench, path: str) -> None:
    volume_id = bench.create().volume_id
    with bench.used(volume_id), refused(Code.NOT_FOUND, volume_id, path):
        _stats(bench, volume_id, path)


def test_a_folder_inside_a_volume_is_not_the_volume(bench: Bench) -> None:
    volume_id = bench.create().volume_id
    with bench.used(volume_id) as target:
        (target / "folder").mkdir()
        with refused(Code.NOT_FOUND, volume_id, "folder"):
            _stats(bench, volume_id, target / "folder")


def test_the_path_of_another_volume_is_not_found(bench: Bench) -> None:
    volume_id, other = bench.create().volume_id, bench.create().volume_id
    with bench.used(volume_id) as target, refused(Code.NOT_FOUND, other, str(target)):
        _stats(bench, other, target)


def test_an_unknown_volume_is_not_found(bench: Bench) -> None:
    volume_id = bench.create().volume_id
    with bench.used(volume_id) as target, refused(Code.NOT_FOUND, UNKNOWN_VOLUME):
        _stats(bench, UNKNOWN_VOLUME, target)


def test_what_is_no_longer_mounted_is_not_found(bench: Bench) -> None:
    volume_id = bench.create().volume_id
    with bench.used(volume_id) as target:
        assert _stats(bench, volume_id, target)

    with refused(Code.NOT_FOUND, volume_id, str(target)):
        _stats(bench, volume_id, target)
