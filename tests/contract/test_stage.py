"""NodeStageVolume and NodeUnstageVolume: what is mounted and attached, and what is refused."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from csi.v1 import csi_pb2 as pb
from tests.contract import requests
from tests.contract.bench import Bench, write_synced
from tests.contract.node_fixtures import (
    SECTOR_BYTES,
    UNKNOWN_VOLUME,
    foreign_mount,
    image_of,
    looked_at,
    loops_over,
    mounts_at,
    no_loop_over,
    run,
    the_mount_at,
)
from tests.contract.pods import Pods, pods_of
from tests.contract.refusals import Code, refused
from tests.contract.requests import LEAST_BYTES, MIB, filesystem, raw_block

pytestmark = pytest.mark.kernel


@pytest.fixture
def pods(bench: Bench) -> Iterator[Pods]:
    yield from pods_of(bench)


@pytest.mark.parametrize("fs_type", ["ext4", "xfs", "btrfs"])
def test_a_volume_is_mounted_from_one_loop_device(pods: Pods, bench: Bench, fs_type: str) -> None:
    capability = filesystem(fs_type)
    size = LEAST_BYTES[fs_type]
    volume_id = bench.create(size=size, capability=capability).volume_id

    staging = pods.stage(volume_id, capability)

    (loop,) = loops_over(image_of(bench.pool, volume_id))
    assert loop.direct_io
    assert loop.autoclear
    assert loop.sector_bytes == SECTOR_BYTES
    assert loop.size_bytes == size
    mount = the_mount_at(staging)
    assert (mount.fs_type, mount.source, mount.root) == (fs_type, loop.device, "/")
    assert {"rw", "nosuid", "nodev"} <= mount.options


def test_a_volume_on_a_pool_without_reflink_is_mounted_alike(ext4_bench: Bench) -> None:
    volume_id = ext4_bench.create().volume_id
    with ext4_bench.used(volume_id) as target:
        (loop,) = loops_over(image_of(ext4_bench.pool, volume_id))

        assert loop.direct_io
        assert loop.sector_bytes == SECTOR_BYTES
        assert the_mount_at(target).source == loop.device


def test_the_device_goes_when_the_volume_is_unstaged(pods: Pods, bench: Bench) -> None:
    volume_id = bench.create().volume_id
    staging = pods.stage(volume_id)

    pods.unstage(volume_id, staging)

    assert not mounts_at(staging)
    assert staging.is_dir()
    assert no_loop_over(image_of(bench.pool, volume_id))


@pytest.mark.parametrize("capability", [filesystem(), raw_block()], ids=["mount", "block"])
def test_a_device_that_somebody_looks_at_is_gone_all_the_same(
    pods: Pods, bench: Bench, capability: pb.VolumeCapability
) -> None:
    """The kernel lets go of it late then; a volume that was unstaged can be deleted at once."""
    volume_id = bench.create(capability=capability).volume_id
    staging = pods.stage(volume_id, capability)
    (loop,) = loops_over(image_of(bench.pool, volume_id))

    with looked_at(loop.device):
        pods.unstage(volume_id, staging)
        bench.delete(volume_id)


def test_staging_again_changes_nothing(pods: Pods, bench: Bench) -> None:
    volume_id = bench.create().volume_id
    staging = pods.stage(volume_id)
    mount, loops = the_mount_at(staging), loops_over(image_of(bench.pool, volume_id))

    pods.stage(volume_id)

    assert the_mount_at(staging) == mount
    assert loops_over(image_of(bench.pool, volume_id)) == loops


def test_staging_at_a_second_path_uses_the_same_device(
    pods: Pods, bench: Bench, tmp_path: Path
) -> None:
    volume_id = bench.create().volume_id
    first = pods.stage(volume_id)
    second = pods.stage(volume_id, path=tmp_path / "second")

    (loop,) = loops_over(image_of(bench.pool, volume_id))
    assert the_mount_at(first).source == the_mount_at(second).source == loop.device

    pods.unstage(volume_id, second)
    assert the_mount_at(first).source == loop.device
    assert loops_over(image_of(bench.pool, volume_id)) == [loop]


def test_the_staging_path_may_exist_or_not(pods: Pods, bench: Bench, tmp_path: Path) -> None:
    volume_id = bench.create().volume_id
    path = tmp_path / "made-by-the-driver"

    pods.stage(volume_id, path=path)

    assert the_mount_at(path).fs_type == "ext4"


def test_an_unknown_volume_cannot_be_staged(bench: Bench, tmp_path: Path) -> None:
    with refused(Code.NOT_FOUND, UNKNOWN_VOLUME):
        bench.driver.node.NodeStageVolume(requests.stage(UNKNOWN_VOLUME, tmp_path))

    assert not mounts_at(tmp_path)


def test_unstaging_what_is_not_there_is_fine(bench: Bench, tmp_path: Path) -> None:
    node = bench.driver.node
    volume_id = bench.create().volume_id

    node.NodeUnstageVolume(requests.unstage(UNKNOWN_VOLUME, tmp_path))
    node.NodeUnstageVolume(requests.unstage(UNKNOWN_VOLUME, tmp_path / "missing" / "path"))
    node.NodeUnstageVolume(requests.unstage(volume_id, tmp_path))
    node.NodeUnstageVolume(requests.unstage(volume_id, tmp_path / "missing" / "path"))

    assert tmp_path.is_dir()


def test_another_volume_at_the_same_path_is_refused(pods: Pods, bench: Bench) -> None:
    first, second = bench.create().volume_id, bench.create().volume_id
    staging = pods.stage(first)
    mount = the_mount_at(staging)

    with refused(Code.ALREADY_EXISTS, str(staging)):
        bench.driver.node.NodeStageVolume(requests.stage(second, staging))

    assert the_mount_at(staging) == mount
    assert not loops_over(image_of(bench.pool, second))


def test_a_path_where_something_else_is_mounted_is_refused(bench: Bench, tmp_path: Path) -> None:
    volume_id = bench.create().volume_id
    with foreign_mount(tmp_path):
        with refused(Code.ALREADY_EXISTS, str(tmp_path)):
            bench.driver.node.NodeStageVolume(requests.stage(volume_id, tmp_path))

        assert the_mount_at(tmp_path).fs_type == "tmpfs"
    assert not loops_over(image_of(bench.pool, volume_id))


def test_another_filesystem_than_the_volume_has_is_refused(bench: Bench, tmp_path: Path) -> None:
    volume_id = bench.create().volume_id

    with refused(Code.FAILED_PRECONDITION, volume_id, "ext4", "xfs"):
        bench.driver.node.NodeStageVolume(requests.stage(volume_id, tmp_path, filesystem("xfs")))


def test_another_access_than_the_volume_has_is_refused(bench: Bench, tmp_path: Path) -> None:
    mounted = bench.create().volume_id
    raw = bench.create(size=4 * MIB, capability=raw_block()).volume_id

    with refused(Code.FAILED_PRECONDITION, mounted, "filesystem"):
        bench.driver.node.NodeStageVolume(requests.stage(mounted, tmp_path, raw_block()))
    with refused(Code.FAILED_PRECONDITION, raw, "block device"):
        bench.driver.node.NodeStageVolume(requests.stage(raw, tmp_path, filesystem()))

    assert list(tmp_path.iterdir()) == []


def test_a_filesystem_need_not_be_named(pods: Pods, bench: Bench) -> None:
    capability = filesystem("xfs")
    volume_id = bench.create(size=LEAST_BYTES["xfs"], capability=capability).volume_id

    assert the_mount_at(pods.stage(volume_id, filesystem(""))).fs_type == "xfs"


def test_staging_after_a_reboot_brings_everything_back(pods: Pods, bench: Bench) -> None:
    volume_id = bench.create().volume_id
    staging = pods.stage(volume_id)
    target = pods.publish(volume_id, staging)
    write_synced(target / "file", b"before the reboot")
    run("umount", str(target))
    run("umount", str(staging))
    assert no_loop_over(image_of(bench.pool, volume_id))

    pods.stage(volume_id)
    pods.publish(volume_id, staging, target=target)

    assert (target / "file").read_bytes() == b"before the reboot"
    assert len(loops_over(image_of(bench.pool, volume_id))) == 1


def test_staging_a_block_volume_after_a_reboot_brings_it_back(pods: Pods, bench: Bench) -> None:
    capability = raw_block()
    volume_id = bench.create(size=4 * MIB, capability=capability).volume_id
    staging = pods.stage(volume_id, capability)
    target = pods.publish(volume_id, staging, capability)
    write_synced(target, b"before the reboot")
    (loop,) = loops_over(image_of(bench.pool, volume_id))
    run("umount", str(target))
    run("umount", str(staging / "device"))
    run("losetup", "--detach", loop.device)
    assert no_loop_over(image_of(bench.pool, volume_id))

    pods.stage(volume_id, capability)
    pods.publish(volume_id, staging, capability, target=target)

    with target.open("rb") as device:
        assert device.read(17) == b"before the reboot"


def test_a_volume_made_again_is_not_taken_away_by_its_old_id(pods: Pods, bench: Bench) -> None:
    name = bench.name()
    old = bench.create(name).volume_id
    bench.delete(old)
    new = bench.create(name).volume_id
    assert old != new
    staging = pods.stage(new)
    mount = the_mount_at(staging)

    with refused(Code.FAILED_PRECONDITION, old, str(staging)):
        bench.driver.node.NodeUnstageVolume(requests.unstage(old, staging))
    with refused(Code.NOT_FOUND, old):
        bench.driver.node.NodeStageVolume(requests.stage(old, staging))

    assert the_mount_at(staging) == mount


def test_what_somebody_else_has_mounted_is_left_alone(bench: Bench, tmp_path: Path) -> None:
    volume_id = bench.create().volume_id
    with foreign_mount(tmp_path):
        for each in (volume_id, UNKNOWN_VOLUME):
            with refused(Code.FAILED_PRECONDITION, str(tmp_path), "left alone"):
                bench.driver.node.NodeUnstageVolume(requests.unstage(each, tmp_path))
            assert the_mount_at(tmp_path).fs_type == "tmpfs"


def test_a_volume_in_use_cannot_be_unstaged_away(pods: Pods, bench: Bench) -> None:
    volume_id = bench.create().volume_id
    staging = pods.stage(volume_id)
    with (staging / "file").open("wb"):
        with refused(Code.FAILED_PRECONDITION, str(staging), "busy"):
            bench.driver.node.NodeUnstageVolume(requests.unstage(volume_id, staging))
        assert the_mount_at(staging).fs_type == "ext4"
    pods.unstage(volume_id, staging)


def test_a_volume_that_somebody_looks_at_is_unstaged_all_the_same(pods: Pods, bench: Bench) -> None:
    volume_id = bench.create().volume_id
    staging = pods.stage(volume_id)
    with looked_at(str(staging), 0.1):
        pods.unstage(volume_id, staging)
    assert not mounts_at(staging)


def test_a_staged_volume_cannot_be_deleted(pods: Pods, bench: Bench) -> None:
    volume_id = bench.create().volume_id
    staging = pods.stage(volume_id)

    with refused(Code.FAILED_PRECONDITION, volume_id, "unstage"):
        bench.driver.controller.DeleteVolume(requests.delete_volume(volume_id))

    assert the_mount_at(staging).fs_type == "ext4"
    assert image_of(bench.pool, volume_id).exists()
