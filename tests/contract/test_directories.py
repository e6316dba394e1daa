"""Directory volumes: held to their size by the groups of btrfs, copied as subvolumes."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from csi.v1 import csi_pb2 as pb
from tests.contract import requests
from tests.contract.bench import Bench, write_synced
from tests.contract.node_fixtures import (
    entry_of,
    fill,
    loops_below,
    run,
    the_mount_at,
    wait_for_empty_trash,
)
from tests.contract.pods import Pods, pods_of
from tests.contract.refusals import Code, refused
from tests.contract.requests import MIB, filesystem, from_snapshot, from_volume, raw_block
from tests.disks import is_unwritten_back, opened

pytestmark = pytest.mark.kernel

DIRECTORY = {"kind": "directory"}
UNENFORCED = {"kind": "directory", "enforceSize": "false"}
SIZE = 32 * MIB
METADATA_BYTES = MIB
"""Room for the tree blocks of a subvolume, which btrfs charges to it too."""

ANY = filesystem("")


@pytest.fixture
def pods(btrfs_bench: Bench) -> Iterator[Pods]:
    yield from pods_of(btrfs_bench)


def _directory(
    bench: Bench, *, size: int = SIZE, source: pb.VolumeContentSource | None = None
) -> str:
    volume = bench.create(size=size, capability=ANY, parameters=DIRECTORY, source=source)
    assert volume.capacity_bytes == size
    return volume.volume_id


def test_a_directory_is_mounted_without_a_device(pods: Pods, btrfs_bench: Bench) -> None:
    volume_id = _directory(btrfs_bench)
    staging = pods.stage(volume_id, ANY)
    target = pods.publish(volume_id, staging, ANY)

    assert not loops_below(btrfs_bench.pool)
    mount = the_mount_at(target)
    assert mount.fs_type == "btrfs"
    assert {"rw", "nosuid", "nodev"} <= mount.options
    write_synced(target / "file", b"hello")
    data = entry_of(btrfs_bench.pool, volume_id) / "data"
    assert (data / "file").read_bytes() == b"hello"
    # Only the data is shown, not the driver's record beside it.
    assert os.listdir(target) == ["file"]


def test_no_call_waits_for_what_other_pods_have_written(pods: Pods, btrfs_bench: Bench) -> None:
    writer = _directory(btrfs_bench)
    target = pods.publish(writer, pods.stage(writer, ANY), ANY)
    other = _directory(btrfs_bench)
    with opened(target / "file", os.O_WRONLY | os.O_CREAT) as file:
        os.write(file, os.urandom(SIZE // 2))
        grown = requests.controller_expand(other, SIZE + MIB)
        btrfs_bench.driver.controller.ControllerExpandVolume(grown)
        snapshot_id = btrfs_bench.snapshot(other).snapshot_id
        _directory(btrfs_bench, size=SIZE + MIB, source=from_snapshot(snapshot_id))
        # A call that had written it back would have taken as long as the disk takes for it.
        assert is_unwritten_back(file)


def test_staging_again_and_unstaging_work_as_for_images(pods: Pods, btrfs_bench: Bench) -> None:
    volume_id = _directory(btrfs_bench)
    staging = pods.stage(volume_id, ANY)
    mount = the_mount_at(staging)
    pods.stage(volume_id, ANY)
    assert the_mount_at(staging) == mount

    with refused(Code.FAILED_PRECONDITION, volume_id):
        btrfs_bench.driver.controller.DeleteVolume(requests.delete_volume(volume_id))
    pods.unstage(volume_id, staging)

    btrfs_bench.delete(volume_id)


def test_a_read_only_directory_takes_no_writes(pods: Pods, btrfs_bench: Bench) -> None:
    volume_id = _directory(btrfs_bench)
    staging = pods.stage(volume_id, ANY)

    target = pods.publish(volume_id, staging, ANY, read_only=True)

    with pytest.raises(OSError, match="Read-only file system"):
        (target / "file").touch()


@pytest.mark.parametrize("nested", [False, True], ids=["plain", "nested"])
def test_the_size_is_enforced(btrfs_bench: Bench, nested: bool) -> None:
    """A subvolume that a tenant makes inside his own is no way out."""
    volume_id = _directory(btrfs_bench)
    with btrfs_bench.used(volume_id, ANY) as target:
        folder = target / "nested" if nested else target
        if nested:
            run("btrfs", "subvolume", "create", str(folder))

        written, number = fill(folder / "ballast")

        assert number == errno.EDQUOT
        assert SIZE - METADATA_BYTES <= written <= SIZE
        # Both count together.
        assert fill(target / "more")[0] <= METADATA_BYTES


def test_a_full_directory_leaves_its_neighbour_alone(btrfs_bench: Bench) -> None:
    full, neighbour = _directory(btrfs_bench), _directory(btrfs_bench)
    with btrfs_bench.used(full, ANY) as target, btrfs_bench.used(neighbour, ANY) as other:
        write_synced(other / "file", b"before")
        fill(target / "ballast")

        write_synced(other / "large", b"x" * (SIZE // 2))
        assert (other / "file").read_bytes() == b"before"

        (target / "ballast").unlink()
        run("btrfs", "filesystem", "sync", str(target))
        write_synced(target / "again", b"x" * (SIZE // 2))


def test_it_grows_while_a_pod_uses_it(btrfs_bench: Bench) -> None:
    volume_id = _directory(btrfs_bench)
    with btrfs_bench.used(volume_id, ANY) as target:
        assert fill(target / "ballast")[1] == errno.EDQUOT

        answer = btrfs_bench.driver.controller.ControllerExpandVolume(
            requests.controller_expand(volume_id, 2 * SIZE)
        )

        assert answer.capacity_bytes == 2 * SIZE
        assert not answer.node_expansion_required
        written, number = fill(target / "more")
        assert SIZE - METADATA_BYTES <= written <= SIZE
        assert number == errno.EDQUOT


def test_stats_come_from_its_own_group(btrfs_bench: Bench) -> None:
    volume_id = _directory(btrfs_bench)
    with btrfs_bench.used(volume_id, ANY) as target:
        write_synced(target / "file", os.urandom(10 * MIB))
        run("btrfs", "filesystem", "sync", str(target))

        answer = btrfs_bench.driver.node.NodeGetVolumeStats(requests.stats(volume_id, target))

        usage = {entry.unit: entry for entry in answer.usage}
        size = usage[pb.VolumeUsage.BYTES]
        assert size.total == SIZE
        assert 10 * MIB <= size.used <= 10 * MIB + METADATA_BYTES
        assert size.used == _charged(target)
        assert size.available == SIZE - size.used


def _charged(target: Path) -> int:
    """What the level-1 group of a subvolume is charged for, by the kernel's own tools."""
    number = run("btrfs", "inspect-internal", "rootid", str(target)).strip()
    uuid = run("findmnt", "--noheadings", "--output", "UUID", "--target", str(target)).strip()
    return int(Path(f"/sys/fs/btrfs/{uuid}/qgroups/1_{number}/referenced").read_text().strip())


def test_a_snapshot_is_the_moment_it_was_taken(btrfs_bench: Bench) -> None:
    volume_id = _directory(btrfs_bench)
    with btrfs_bench.used(volume_id, ANY) as target:
        write_synced(target / "file", b"old")
        snapshot = btrfs_bench.snapshot(volume_id)
        assert snapshot.ready_to_use
        assert snapshot.size_bytes == SIZE
        write_synced(target / "file", b"new")
        write_synced(target / "later", b"")

        restored = _directory(btrfs_bench, source=from_snapshot(snapshot.snapshot_id))
        with btrfs_bench.used(restored, ANY) as other:
            assert (other / "file").read_bytes() == b"old"
            assert os.listdir(other) == ["file"]
            write_synced(other / "file", b"own")
        assert (target / "file").read_bytes() == b"new"


def test_a_snapshot_outlives_its_volume(btrfs_bench: Bench) -> None:
    volume_id = _directory(btrfs_bench)
    with btrfs_bench.used(volume_id, ANY) as target:
        write_synced(target / "file", b"kept")
    snapshot = btrfs_bench.snapshot(volume_id)
    btrfs_bench.delete(volume_id)

    restored = _directory(btrfs_bench, source=from_snapshot(snapshot.snapshot_id))

    with btrfs_bench.used(restored, ANY) as target:
        assert (target / "file").read_bytes() == b"kept"


def test_a_snapshot_takes_no_room_from_its_volume(btrfs_bench: Bench) -> None:
    """What is overwritten stays in the snapshot; the volume still has its whole size."""
    volume_id = _directory(btrfs_bench)
    with btrfs_bench.used(volume_id, ANY) as target:
        write_synced(target / "file", os.urandom(24 * MIB))
        btrfs_bench.snapshot(volume_id)

        write_synced(target / "file", os.urandom(24 * MIB))


@pytest.mark.parametrize("source", ["volume", "snapshot"])
def test_a_copy_is_held_to_its_own_size(btrfs_bench: Bench, source: str) -> None:
    volume_id = _directory(btrfs_bench)
    with btrfs_bench.used(volume_id, ANY) as target:
        write_synced(target / "file", b"shared")
        content = (
            from_volume(volume_id)
            if source == "volume"
            else from_snapshot(btrfs_bench.snapshot(volume_id).snapshot_id)
        )
        copy = _directory(btrfs_bench, source=content)

        with btrfs_bench.used(copy, ANY) as other:
            assert (other / "file").read_bytes() == b"shared"
            written, number = fill(other / "ballast")
            assert number == errno.EDQUOT
            assert SIZE - METADATA_BYTES <= written <= SIZE
        assert os.listdir(target) == ["file"]


def test_nested_subvolumes_stand_in_the_way_of_a_snapshot(btrfs_bench: Bench) -> None:
    """A snapshot would leave them empty: better none than half a one."""
    volume_id = _directory(btrfs_bench)
    with btrfs_bench.used(volume_id, ANY) as target:
        run("btrfs", "subvolume", "create", str(target / "nested"))
        before = os.listdir(btrfs_bench.pool / "snapshots")

        with refused(Code.FAILED_PRECONDITION, "nested"):
            btrfs_bench.snapshot(volume_id)
        with refused(Code.FAILED_PRECONDITION, "nested"):
            _directory(btrfs_bench, source=from_volume(volume_id))

        assert os.listdir(btrfs_bench.pool / "snapshots") == before
        run("btrfs", "subvolume", "delete", str(target / "nested"))
        assert btrfs_bench.snapshot(volume_id).ready_to_use


def test_a_volume_with_nested_subvolumes_can_be_deleted(btrfs_bench: Bench) -> None:
    volume_id = _directory(btrfs_bench)
    with btrfs_bench.used(volume_id, ANY) as target:
        run("btrfs", "subvolume", "create", str(target / "nested"))
        write_synced(target / "nested" / "file", b"x" * MIB)

    btrfs_bench.delete(volume_id)

    wait_for_empty_trash(btrfs_bench.pool)


def test_a_block_device_cannot_be_a_directory(btrfs_bench: Bench) -> None:
    before = os.listdir(btrfs_bench.pool / "volumes")

    with refused(Code.INVALID_ARGUMENT, "block", "kind"):
        btrfs_bench.create(capability=raw_block(), parameters=DIRECTORY)

    assert os.listdir(btrfs_bench.pool / "volumes") == before


@pytest.mark.parametrize("pool", ["xfs", "ext4"])
def test_a_pool_that_cannot_enforce_the_size_says_so(
    bench: Bench, ext4_bench: Bench, pool: str
) -> None:
    chosen = bench if pool == "xfs" else ext4_bench
    before = os.listdir(chosen.pool / "volumes")

    with refused(Code.INVALID_ARGUMENT, "enforceSize", "btrfs", "image"):
        chosen.create(capability=ANY, parameters=DIRECTORY)

    assert os.listdir(chosen.pool / "volumes") == before


@pytest.mark.parametrize("pool", ["xfs", "ext4"])
def test_enforcement_can_be_waived(bench: Bench, ext4_bench: Bench, pool: str) -> None:
    chosen = bench if pool == "xfs" else ext4_bench
    volume_id = chosen.create(size=MIB, capability=ANY, parameters=UNENFORCED).volume_id

    with chosen.used(volume_id, ANY) as target:
        write_synced(target / "file", b"x" * (4 * MIB))
        assert the_mount_at(target).fs_type == pool
        answer = chosen.driver.node.NodeGetVolumeStats(requests.stats(volume_id, target))
        size = next(entry for entry in answer.usage if entry.unit == pb.VolumeUsage.BYTES)
        status = os.statvfs(target)
        assert size.total == status.f_blocks * status.f_frsize
        with refused(Code.INVALID_ARGUMENT, "btrfs"):
            chosen.snapshot(volume_id)


def test_flags_of_a_filesystem_make_no_sense_for_a_directory(
    btrfs_bench: Bench, tmp_path: Path
) -> None:
    volume_id = _directory(btrfs_bench)

    with refused(Code.INVALID_ARGUMENT, "commit", "directory"):
        btrfs_bench.driver.node.NodeStageVolume(
            requests.stage(volume_id, tmp_path, filesystem("", flags=["commit=7"]))
        )
