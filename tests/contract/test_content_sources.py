"""What restores and clones hold: the data of their source, and from then on their own."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from csi.v1 import csi_pb2 as pb
from tests.contract import requests
from tests.contract.bench import Bench, read_bytes, write_synced
from tests.contract.requests import (
    LEAST_BYTES,
    MIB,
    filesystem,
    from_snapshot,
    from_volume,
    raw_block,
)

pytestmark = pytest.mark.kernel

FILESYSTEMS = ["ext4", "xfs", "btrfs"]
DIRECTORY = {"kind": "directory"}
OLD, NEW = b"written before" * 5000, b"written after" * 5000
TWENTY = 20


def make_source(
    bench: Bench,
    capability: pb.VolumeCapability,
    size: int = 64 * MIB,
    parameters: dict[str, str] | None = None,
) -> str:
    """A volume with OLD in it, at rest."""
    volume_id = bench.create(size=size, capability=capability, parameters=parameters).volume_id
    with bench.used(volume_id, capability) as target:
        write_synced(_data_in(target, capability), OLD)
    return volume_id


def copy_of(bench: Bench, volume_id: str, how: str) -> pb.VolumeContentSource:
    """The source of a clone, or of a restore from a snapshot taken now."""
    if how == "clone":
        return from_volume(volume_id)
    return from_snapshot(bench.snapshot(volume_id).snapshot_id)


def contents(bench: Bench, volume_id: str, capability: pb.VolumeCapability) -> bytes:
    with bench.used(volume_id, capability) as target:
        return read_bytes(_data_in(target, capability), len(OLD))


def _data_in(target: Path, capability: pb.VolumeCapability) -> Path:
    return target if capability.HasField("block") else target / "file"


@pytest.mark.parametrize("how", ["clone", "restore"])
@pytest.mark.parametrize("fs_type", FILESYSTEMS)
class TestImages:
    """Filesystems in images, on a pool that shares blocks."""

    def test_a_copy_beside_its_source_is_equal_and_then_independent(
        self, bench: Bench, fs_type: str, how: str
    ) -> None:
        capability = filesystem(fs_type)
        source_id = make_source(bench, capability, LEAST_BYTES[fs_type])
        source = bench.use(source_id, capability)
        content = copy_of(bench, source_id, how)

        volume = bench.create(size=LEAST_BYTES[fs_type], capability=capability, source=content)
        copy = bench.use(volume.volume_id, capability)

        assert volume.content_source == content
        assert (copy / "file").read_bytes() == OLD
        write_synced(source / "file", NEW)
        assert (copy / "file").read_bytes() == OLD
        write_synced(copy / "other", NEW)
        assert not (source / "other").exists()

    def test_a_larger_copy_has_a_larger_filesystem(
        self, bench: Bench, fs_type: str, how: str
    ) -> None:
        capability = filesystem(fs_type)
        small, large = LEAST_BYTES[fs_type], LEAST_BYTES[fs_type] + 256 * MIB
        source_id = make_source(bench, capability, small)

        volume = bench.create(
            size=large, capability=capability, source=copy_of(bench, source_id, how)
        )

        assert volume.capacity_bytes == large
        with bench.used(volume.volume_id, capability) as target:
            status = os.statvfs(target)
            assert large - small // 2 < status.f_blocks * status.f_frsize <= large
            assert (target / "file").read_bytes() == OLD

    def test_a_copy_of_a_copy_outlives_both(self, bench: Bench, fs_type: str, how: str) -> None:
        capability, size = filesystem(fs_type), LEAST_BYTES[fs_type]
        first = make_source(bench, capability, size)
        second = bench.create(
            size=size, capability=capability, source=copy_of(bench, first, how)
        ).volume_id
        third = bench.create(
            size=size, capability=capability, source=copy_of(bench, second, how)
        ).volume_id
        bench.delete(first)
        bench.delete(second)

        assert contents(bench, third, capability) == OLD


@pytest.mark.parametrize("how", ["clone", "restore"])
class TestSources:
    """The rules that hold for every copy."""

    def test_the_source_is_told_by_every_call(self, bench: Bench, how: str) -> None:
        content = copy_of(bench, bench.create().volume_id, how)
        request = requests.create_volume(bench.name(), source=content)

        volume = bench.send_create(request)

        assert volume.content_source == content
        assert bench.send_create(request) == volume
        found = bench.driver.controller.ControllerGetVolume(requests.get_volume(volume.volume_id))
        assert found.volume.content_source == content

    def test_without_a_size_it_is_as_large_as_its_source(self, bench: Bench, how: str) -> None:
        source_id = bench.create(size=1100 * MIB).volume_id

        volume = bench.create(size=0, source=copy_of(bench, source_id, how))

        assert volume.capacity_bytes == 1100 * MIB

    def test_a_smaller_request_gets_the_size_of_the_source(self, bench: Bench, how: str) -> None:
        source_id = bench.create(size=96 * MIB).volume_id

        volume = bench.create(size=64 * MIB, source=copy_of(bench, source_id, how))

        assert volume.capacity_bytes == 96 * MIB

    def test_without_a_filesystem_it_has_that_of_its_source(self, bench: Bench, how: str) -> None:
        source_id = make_source(bench, filesystem("xfs"), 300 * MIB)

        volume = bench.create(
            size=300 * MIB, capability=filesystem(""), source=copy_of(bench, source_id, how)
        )

        assert contents(bench, volume.volume_id, filesystem("xfs")) == OLD

    def test_a_block_device_is_copied_byte_by_byte(self, bench: Bench, how: str) -> None:
        source_id = make_source(bench, raw_block())

        volume = bench.create(capability=raw_block(), source=copy_of(bench, source_id, how))

        assert contents(bench, volume.volume_id, raw_block()) == OLD

    def test_a_block_device_in_use_is_copied_as_it_was_synced(self, bench: Bench, how: str) -> None:
        source_id = bench.create(capability=raw_block()).volume_id
        source = bench.use(source_id, raw_block())
        write_synced(source, OLD)

        volume = bench.create(capability=raw_block(), source=copy_of(bench, source_id, how))
        write_synced(source, NEW)

        assert contents(bench, volume.volume_id, raw_block()) == OLD

    def test_a_filesystem_becomes_a_block_device_and_one_again(
        self, bench: Bench, how: str
    ) -> None:
        source_id = make_source(bench, filesystem())

        block = bench.create(capability=raw_block(), source=copy_of(bench, source_id, how))
        again = bench.create(capability=filesystem(), source=copy_of(bench, block.volume_id, how))

        assert _superblock_magic(bench, block.volume_id) == b"\x53\xef"
        assert contents(bench, again.volume_id, filesystem()) == OLD

    def test_a_directory_is_copied_and_held_to_its_own_size(
        self, btrfs_bench: Bench, how: str
    ) -> None:
        capability = filesystem("")
        source_id = make_source(btrfs_bench, capability, 16 * MIB, DIRECTORY)
        source = btrfs_bench.use(source_id, capability)
        content = copy_of(btrfs_bench, source_id, how)
        volume = btrfs_bench.create(
            size=32 * MIB, capability=capability, parameters=DIRECTORY, source=content
        )
        copy = btrfs_bench.use(volume.volume_id, capability)

        assert volume.content_source == content
        assert (copy / "file").read_bytes() == OLD
        write_synced(source / "file", NEW)
        assert (copy / "file").read_bytes() == OLD
        write_synced(copy / "fits", os.urandom(24 * MIB))
        with pytest.raises(OSError, match="quota"):
            write_synced(copy / "too-much", os.urandom(16 * MIB))

    def test_an_image_on_btrfs_is_copied_too(self, btrfs_bench: Bench, how: str) -> None:
        source_id = make_source(btrfs_bench, filesystem())

        volume = btrfs_bench.create(source=copy_of(btrfs_bench, source_id, how))

        assert contents(btrfs_bench, volume.volume_id, filesystem()) == OLD

    def test_a_thick_copy_has_all_its_blocks(self, bench: Bench, how: str) -> None:
        source_id = make_source(bench, filesystem())

        volume = bench.create(
            parameters={"allocation": "thick"}, source=copy_of(bench, source_id, how)
        )

        image = bench.entry(volume.volume_id) / "disk.img"
        assert image.stat().st_blocks * 512 >= 64 * MIB
        assert contents(bench, volume.volume_id, filesystem()) == OLD


def test_twenty_clones_of_one_source_at_once(bench: Bench) -> None:
    source_id = make_source(bench, filesystem())
    source = bench.use(source_id)

    def clone(_: int) -> str:
        return bench.create(source=from_volume(source_id)).volume_id

    with ThreadPoolExecutor(TWENTY) as threads:
        clones = list(threads.map(clone, range(TWENTY)))

    assert len(set(clones)) == TWENTY
    write_synced(source / "file", NEW)  # it is not frozen
    for volume_id in clones:
        assert contents(bench, volume_id, filesystem()) == OLD


def test_twenty_restores_of_one_snapshot_at_once(bench: Bench) -> None:
    snapshot_id = bench.snapshot(make_source(bench, filesystem())).snapshot_id

    def restore(_: int) -> str:
        return bench.create(source=from_snapshot(snapshot_id)).volume_id

    with ThreadPoolExecutor(TWENTY) as threads:
        restored = list(threads.map(restore, range(TWENTY)))

    assert len(set(restored)) == TWENTY
    assert contents(bench, restored[-1], filesystem()) == OLD


def _superblock_magic(bench: Bench, volume_id: str) -> bytes:
    with bench.used(volume_id, raw_block()) as target:
        return read_bytes(target, 1082)[1080:]
