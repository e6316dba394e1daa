"""ControllerExpandVolume: sizes, and filesystems that fill them the next time they are staged."""

import os
from pathlib import Path

import pytest

from csi.v1 import csi_pb2 as pb
from tests.contract import requests
from tests.contract.bench import Bench, write_synced
from tests.contract.refusals import Code, refused
from tests.contract.requests import (
    GIB,
    LEAST_BYTES,
    MIB,
    UNKNOWN_VOLUME,
    filesystem,
    from_snapshot,
    raw_block,
    size_range,
)

pytestmark = pytest.mark.kernel

DIRECTORY = {"kind": "directory"}


def expand(
    bench: Bench,
    volume_id: str,
    size: int,
    limit: int = 0,
    capability: pb.VolumeCapability | None = None,
) -> pb.ControllerExpandVolumeResponse:
    return bench.driver.controller.ControllerExpandVolume(
        requests.controller_expand(volume_id, size, limit, capability)
    )


def size_of(bench: Bench, volume_id: str) -> int:
    """The size as the driver tells it."""
    answer = bench.driver.controller.ControllerGetVolume(requests.get_volume(volume_id))
    return answer.volume.capacity_bytes


def filesystem_bytes(path: Path) -> int:
    status = os.statvfs(path)
    return status.f_blocks * status.f_frsize


def test_a_volume_gets_exactly_the_size_asked_for(bench: Bench) -> None:
    volume_id = bench.create().volume_id

    answer = expand(bench, volume_id, 96 * MIB, capability=filesystem())

    assert answer.capacity_bytes == 96 * MIB
    assert answer.node_expansion_required is True
    assert size_of(bench, volume_id) == 96 * MIB


def test_a_repeat_changes_nothing(bench: Bench) -> None:
    volume_id = bench.create().volume_id

    assert expand(bench, volume_id, 96 * MIB) == expand(bench, volume_id, 96 * MIB)


@pytest.mark.parametrize("size", [1, 32 * MIB, 64 * MIB])
def test_one_that_is_large_enough_keeps_its_size(bench: Bench, size: int) -> None:
    volume_id = bench.create().volume_id

    answer = expand(bench, volume_id, size)

    assert answer.capacity_bytes == 64 * MIB
    assert size_of(bench, volume_id) == 64 * MIB


def test_an_odd_size_is_rounded_up_to_a_sector(bench: Bench) -> None:
    volume_id = bench.create().volume_id

    assert expand(bench, volume_id, 64 * MIB + 1).capacity_bytes == 64 * MIB + 4096


def test_create_with_its_first_size_still_finds_a_grown_volume(bench: Bench) -> None:
    name = bench.name()
    volume_id = bench.create(name, size=64 * MIB).volume_id
    expand(bench, volume_id, 96 * MIB)

    found = bench.create(name, size=64 * MIB)

    assert (found.volume_id, found.capacity_bytes) == (volume_id, 96 * MIB)


@pytest.mark.parametrize("fs_type", ["ext4", "xfs", "btrfs"])
def test_an_unused_filesystem_has_grown_when_it_is_staged(bench: Bench, fs_type: str) -> None:
    capability = filesystem(fs_type)
    small, large = LEAST_BYTES[fs_type], LEAST_BYTES[fs_type] + 256 * MIB
    volume_id = bench.create(size=small, capability=capability).volume_id
    with bench.used(volume_id, capability) as target:
        write_synced(target / "file", b"kept")
        before = filesystem_bytes(target)

    expand(bench, volume_id, large, capability=capability)

    with bench.used(volume_id, capability) as target:
        assert before + 200 * MIB < filesystem_bytes(target) <= large
        assert (target / "file").read_bytes() == b"kept"


def test_an_unused_device_has_grown_when_it_is_staged(bench: Bench) -> None:
    volume_id = bench.create(capability=raw_block()).volume_id
    assert expand(bench, volume_id, 96 * MIB).node_expansion_required is True

    with bench.used(volume_id, raw_block()) as target:
        device = os.open(target, os.O_RDONLY)
        try:
            assert os.lseek(device, 0, os.SEEK_END) == 96 * MIB
        finally:
            os.close(device)


def test_a_directory_in_use_may_hold_more_at_once(btrfs_bench: Bench) -> None:
    volume_id = btrfs_bench.create(
        size=16 * MIB, capability=filesystem(""), parameters=DIRECTORY
    ).volume_id
    with btrfs_bench.used(volume_id, filesystem("")) as target:
        with pytest.raises(OSError, match="quota"):
            write_synced(target / "file", bytes(32 * MIB))

        answer = expand(btrfs_bench, volume_id, 64 * MIB)

        assert answer.capacity_bytes == 64 * MIB
        assert answer.node_expansion_required is False
        write_synced(target / "file", bytes(32 * MIB))


def test_a_snapshot_keeps_the_size_of_its_moment(bench: Bench) -> None:
    volume_id = bench.create().volume_id
    snapshot = bench.snapshot(volume_id)
    expand(bench, volume_id, 128 * MIB)

    restored = bench.create(size=0, limit=96 * MIB, source=from_snapshot(snapshot.snapshot_id))

    assert snapshot.size_bytes == 64 * MIB
    assert 64 * MIB <= restored.capacity_bytes <= 96 * MIB


def test_growth_outlives_a_kill(bench: Bench) -> None:
    volume_id = bench.create().volume_id
    expand(bench, volume_id, 96 * MIB)

    bench.driver.kill()
    bench.driver.start()

    assert size_of(bench, volume_id) == 96 * MIB


class TestRefused:
    """A size that cannot be had leaves the volume as it is."""

    def test_an_unknown_volume(self, bench: Bench) -> None:
        for volume_id in (UNKNOWN_VOLUME, "../../etc"):
            with refused(Code.NOT_FOUND, repr(volume_id)):
                expand(bench, volume_id, 96 * MIB)

    @pytest.mark.parametrize("size", [21 * GIB, 1 << 60, (1 << 63) - 1])
    def test_a_size_that_the_pool_can_never_hold(self, bench: Bench, size: int) -> None:
        volume_id = bench.create().volume_id

        with refused(Code.OUT_OF_RANGE, "bytes"):
            expand(bench, volume_id, size)
        assert size_of(bench, volume_id) == 64 * MIB

    def test_a_size_that_the_pool_can_never_hold_beside_the_volume_itself(
        self, bench: Bench
    ) -> None:
        """The present size and the growth together are what has to fit, not the growth alone."""
        volume_id = bench.create(size=GIB).volume_id

        with refused(Code.OUT_OF_RANGE, "bytes"):
            expand(bench, volume_id, 20 * GIB + 512 * MIB)
        assert size_of(bench, volume_id) == GIB

    def test_a_size_that_the_pool_cannot_hold_now(self, bench: Bench) -> None:
        bench.create(size=12 * GIB)
        volume_id = bench.create().volume_id

        with refused(Code.RESOURCE_EXHAUSTED, "bytes"):
            expand(bench, volume_id, 12 * GIB)
        assert size_of(bench, volume_id) == 64 * MIB

    def test_a_limit_below_its_size(self, bench: Bench) -> None:
        volume_id = bench.create().volume_id

        with refused(Code.OUT_OF_RANGE, str(64 * MIB), str(48 * MIB), "shrink"):
            expand(bench, volume_id, 32 * MIB, 48 * MIB)

    def test_a_range_between_two_sectors(self, bench: Bench) -> None:
        volume_id = bench.create().volume_id

        with refused(Code.OUT_OF_RANGE, str(64 * MIB + 1), "4096"):
            expand(bench, volume_id, 64 * MIB + 1, 64 * MIB + 2)
        assert size_of(bench, volume_id) == 64 * MIB

    @pytest.mark.parametrize(
        ("size", "limit", "name"),
        [(-1, 0, "required_bytes"), (0, -1, "limit_bytes"), (2, 1, "limit_bytes"), (0, 0, "needs")],
    )
    def test_no_range_at_all(self, bench: Bench, size: int, limit: int, name: str) -> None:
        volume_id = bench.create().volume_id
        request = requests.controller_expand(volume_id, 1)
        request.capacity_range.CopyFrom(size_range(size, limit))

        with refused(Code.INVALID_ARGUMENT, "capacity_range", name):
            bench.driver.controller.ControllerExpandVolume(request)

    def test_required_fields_come_before_the_look_up(self, bench: Bench) -> None:
        with refused(Code.INVALID_ARGUMENT, "volume_id"):
            expand(bench, "", 1)
        request = requests.controller_expand(UNKNOWN_VOLUME, 1)
        request.ClearField("capacity_range")
        with refused(Code.INVALID_ARGUMENT, "capacity_range"):
            bench.driver.controller.ControllerExpandVolume(request)

    def test_a_capability_that_the_volume_does_not_have(self, bench: Bench) -> None:
        volume_id = bench.create().volume_id

        with refused(Code.INVALID_ARGUMENT, "block"):
            expand(bench, volume_id, 96 * MIB, capability=raw_block())
        assert size_of(bench, volume_id) == 64 * MIB
