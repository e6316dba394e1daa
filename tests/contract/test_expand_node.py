"""Growth at the node: while a pod uses the volume, and at the next stage when nobody does."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract import requests
from tests.contract.bench import Bench, write_synced
from tests.contract.node_fixtures import UNKNOWN_VOLUME, image_of, loops_over
from tests.contract.pods import Pods, pods_of
from tests.contract.refusals import Code, refused
from tests.contract.requests import (
    LEAST_BYTES,
    MIB,
    TIB,
    filesystem,
    from_snapshot,
    raw_block,
    size_range,
)

pytestmark = pytest.mark.kernel

DATA = b"from before the growth"


@pytest.fixture
def pods(bench: Bench) -> Iterator[Pods]:
    yield from pods_of(bench)


def _create(bench: Bench, fs_type: str) -> str:
    size = LEAST_BYTES[fs_type]
    return bench.create(size=size, capability=filesystem(fs_type)).volume_id


def _total(path: Path) -> int:
    status = os.statvfs(path)
    return status.f_blocks * status.f_frsize


@pytest.mark.parametrize("fs_type", ["xfs", "btrfs"])
@pytest.mark.parametrize("controller_first", [True, False], ids=["controller", "node-only"])
def test_a_filesystem_grows_while_it_is_used(
    bench: Bench, fs_type: str, controller_first: bool
) -> None:
    """Some resizers call the controller first, others leave all growth to the node."""
    capability = filesystem(fs_type)
    volume_id = _create(bench, fs_type)
    size = 2 * LEAST_BYTES[fs_type]
    with bench.used(volume_id, capability) as target:
        write_synced(target / "file", DATA)
        before = _total(target)
        if controller_first:
            answer = bench.driver.controller.ControllerExpandVolume(
                requests.controller_expand(volume_id, size, capability=capability)
            )
            assert (answer.capacity_bytes, answer.node_expansion_required) == (size, True)
            assert _total(target) == before

        grown = bench.driver.node.NodeExpandVolume(
            requests.node_expand(volume_id, target, size, capability)
        )

        assert grown.capacity_bytes == size
        assert _total(target) - before >= LEAST_BYTES[fs_type] * 0.95
        assert (target / "file").read_bytes() == DATA
        (loop,) = loops_over(image_of(bench.pool, volume_id))
        assert loop.size_bytes == size
        assert image_of(bench.pool, volume_id).stat().st_size == size
        known = bench.driver.controller.ControllerGetVolume(requests.get_volume(volume_id))
        assert known.volume.capacity_bytes == size


def test_a_mounted_ext4_grows_where_the_kernel_lets_it(bench: Bench) -> None:
    """Without CAP_SYS_RESOURCE it does not: then the answer says what to do, and that works."""
    volume_id = _create(bench, "ext4")
    size = 2 * LEAST_BYTES["ext4"]
    request = requests.controller_expand(volume_id, size)
    with bench.used(volume_id) as target:
        write_synced(target / "file", DATA)
        before = _total(target)
        assert bench.driver.controller.ControllerExpandVolume(request).node_expansion_required

        growth = requests.node_expand(volume_id, target, size)
        if _may_grow_ext4():
            assert bench.driver.node.NodeExpandVolume(growth).capacity_bytes == size
            assert _total(target) > before + size // 4
        else:
            with refused(Code.FAILED_PRECONDITION, "ext4", "CAP_SYS_RESOURCE", "start again"):
                bench.driver.node.NodeExpandVolume(growth)
            assert _total(target) == before
        assert (target / "file").read_bytes() == DATA
    with bench.used(volume_id) as target:
        assert _total(target) > before + size // 4
        assert (target / "file").read_bytes() == DATA
        grown = bench.driver.node.NodeExpandVolume(requests.node_expand(volume_id, target, size))
        assert grown.capacity_bytes == size


def _may_grow_ext4() -> bool:
    """Whether root has CAP_SYS_RESOURCE, bit 24, here."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) & 1 << 24)


@pytest.mark.parametrize("fs_type", ["ext4", "xfs", "btrfs"])
def test_what_grew_while_unused_is_larger_at_the_next_stage(bench: Bench, fs_type: str) -> None:
    capability = filesystem(fs_type)
    volume_id = _create(bench, fs_type)
    size = 2 * LEAST_BYTES[fs_type]
    with bench.used(volume_id, capability) as target:
        write_synced(target / "file", DATA)
        before = _total(target)

    bench.driver.controller.ControllerExpandVolume(requests.controller_expand(volume_id, size))

    with bench.used(volume_id, capability) as target:
        assert _total(target) - before >= LEAST_BYTES[fs_type] * 0.9
        assert (target / "file").read_bytes() == DATA


def test_growth_repeated_is_fine(bench: Bench) -> None:
    capability = filesystem("xfs")
    volume_id = _create(bench, "xfs")
    size = 400 * MIB
    with bench.used(volume_id, capability) as target:
        for _ in range(2):
            grown = bench.driver.node.NodeExpandVolume(
                requests.node_expand(volume_id, target, size, capability)
            )
            assert grown.capacity_bytes == size
        total = _total(target)

        # What the resizer sends when the controller has done it all, and a smaller size.
        for asked in (0, 100 * MIB):
            grown = bench.driver.node.NodeExpandVolume(
                requests.node_expand(volume_id, target, asked)
            )
            assert grown.capacity_bytes == size
        assert _total(target) == total


def test_the_staging_path_serves_as_well(pods: Pods, bench: Bench) -> None:
    capability = filesystem("btrfs")
    volume_id = _create(bench, "btrfs")
    staging = pods.stage(volume_id, capability)
    target = pods.publish(volume_id, staging, capability)
    before = _total(target)

    bench.driver.node.NodeExpandVolume(requests.node_expand(volume_id, staging, 256 * MIB))

    assert _total(target) - before >= 120 * MIB


@pytest.mark.parametrize(
    ("required", "limit"), [(64 * TIB, 0), (0, 32 * MIB), (64 * MIB + 1, 64 * MIB + 2)]
)
def test_a_size_that_can_never_be_is_out_of_range(bench: Bench, required: int, limit: int) -> None:
    volume_id = _create(bench, "ext4")
    with bench.used(volume_id) as target:
        request = requests.node_expand(volume_id, target)
        request.capacity_range.CopyFrom(size_range(required, limit))

        with refused(Code.OUT_OF_RANGE, str(required or limit)):
            bench.driver.node.NodeExpandVolume(request)

        assert image_of(bench.pool, volume_id).stat().st_size == 64 * MIB


def test_growth_beyond_the_pool_is_out_of_range(bench: Bench) -> None:
    """However little is missing: the whole volume would not fit into the empty pool."""
    volume_id = bench.create(size=12 << 30).volume_id
    with bench.used(volume_id) as target, refused(Code.OUT_OF_RANGE, str(24 << 30)):
        bench.driver.node.NodeExpandVolume(requests.node_expand(volume_id, target, 24 << 30))


def test_a_size_for_which_there_is_no_room_now_is_refused(bench: Bench) -> None:
    volume_id = _create(bench, "ext4")
    other = bench.create(size=12 << 30).volume_id
    with bench.used(volume_id) as target:
        with refused(Code.RESOURCE_EXHAUSTED, str(12 << 30)):
            bench.driver.node.NodeExpandVolume(requests.node_expand(volume_id, target, 12 << 30))

        assert image_of(bench.pool, volume_id).stat().st_size == 64 * MIB
    bench.delete(other)


def test_a_read_only_filesystem_grows_once_it_is_writable(bench: Bench) -> None:
    volume_id = _create(bench, "xfs")
    reader = filesystem("xfs", flags=["ro"])
    with bench.used(volume_id, filesystem("xfs")) as target:
        before = _total(target)
    with (
        bench.used(volume_id, reader) as target,
        refused(Code.FAILED_PRECONDITION, volume_id, "read-only"),
    ):
        bench.driver.node.NodeExpandVolume(requests.node_expand(volume_id, target, 400 * MIB))
    with bench.used(volume_id, filesystem("xfs")) as target:
        assert _total(target) - before >= 90 * MIB


def test_a_pod_that_only_reads_does_not_stand_in_the_way(pods: Pods, bench: Bench) -> None:
    """The volume is staged for writing, and one of its pods has it read-only."""
    volume_id = _create(bench, "xfs")
    staging = pods.stage(volume_id, filesystem("xfs"))
    reader = pods.publish(volume_id, staging, filesystem("xfs"), read_only=True)
    before = _total(reader)

    bench.driver.node.NodeExpandVolume(requests.node_expand(volume_id, reader, 400 * MIB))

    assert _total(reader) - before >= 90 * MIB


@pytest.mark.parametrize("path", ["/nowhere/at/all", "some/path"])
def test_a_volume_that_is_not_there_cannot_grow(bench: Bench, path: str) -> None:
    volume_id = _create(bench, "ext4")
    with bench.used(volume_id) as target:
        with refused(Code.NOT_FOUND, volume_id, path):
            bench.driver.node.NodeExpandVolume(requests.node_expand(volume_id, path, 128 * MIB))
        with refused(Code.NOT_FOUND, UNKNOWN_VOLUME):
            bench.driver.node.NodeExpandVolume(
                requests.node_expand(UNKNOWN_VOLUME, target, 128 * MIB)
            )

    assert image_of(bench.pool, volume_id).stat().st_size == 64 * MIB


def test_a_capability_that_the_volume_does_not_have_is_refused(bench: Bench) -> None:
    volume_id = _create(bench, "ext4")
    with bench.used(volume_id) as target:
        for capability in (raw_block(), filesystem("xfs")):
            with refused(Code.INVALID_ARGUMENT, "ext4" if capability.mount.fs_type else "block"):
                bench.driver.node.NodeExpandVolume(
                    requests.node_expand(volume_id, target, 128 * MIB, capability)
                )

    assert image_of(bench.pool, volume_id).stat().st_size == 64 * MIB


def test_a_restore_into_a_larger_volume_fills_it(bench: Bench) -> None:
    for fs_type in ("ext4", "xfs", "btrfs"):
        capability = filesystem(fs_type)
        source = _create(bench, fs_type)
        with bench.used(source, capability) as target:
            write_synced(target / "file", DATA)
            before = _total(target)
        copy = bench.create(
            size=2 * LEAST_BYTES[fs_type],
            capability=capability,
            source=requests.from_volume(source),
        ).volume_id

        with bench.used(copy, capability) as target:
            assert _total(target) - before >= LEAST_BYTES[fs_type] * 0.9
            assert (target / "file").read_bytes() == DATA


def test_a_small_btrfs_grows_to_the_least_that_the_kernel_grows_one_to(bench: Bench) -> None:
    """It answers EINVAL to less than 256 MiB, at every try; a larger volume is what may be had."""
    capability, small = filesystem("btrfs"), LEAST_BYTES["btrfs"]
    volume_id = bench.create(size=small, capability=capability).volume_id
    snapshot_id = bench.snapshot(volume_id).snapshot_id
    target = bench.use(volume_id, capability)

    grown = bench.driver.node.NodeExpandVolume(
        requests.node_expand(volume_id, target, small + 16 * MIB, capability)
    )
    restored = bench.create(
        size=small + 16 * MIB, capability=capability, source=from_snapshot(snapshot_id)
    )
    same = bench.create(size=small, capability=capability, source=from_snapshot(snapshot_id))

    assert (grown.capacity_bytes, restored.capacity_bytes) == (256 * MIB, 256 * MIB)
    assert same.capacity_bytes == small
    bench.use(restored.volume_id, capability)
    with refused(Code.OUT_OF_RANGE, str(256 * MIB)):
        bench.driver.controller.ControllerExpandVolume(
            requests.controller_expand(same.volume_id, small + MIB, small + 16 * MIB)
        )
