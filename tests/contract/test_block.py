"""Raw block volumes: the device that a pod gets, and who else may be using it."""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract import requests
from tests.contract.bench import Bench, read_bytes, write_synced
from tests.contract.node_fixtures import (
    SECTOR_BYTES,
    all_loops,
    foreign_mount,
    image_of,
    loops_over,
    mounts_at,
    no_loop_over,
    run,
    the_mount_at,
)
from tests.contract.pods import Pods, pods_of
from tests.contract.refusals import Code, refused
from tests.contract.requests import MIB, READER, SINGLE_WRITER, raw_block

pytestmark = pytest.mark.kernel


@pytest.fixture
def pods(bench: Bench) -> Iterator[Pods]:
    yield from pods_of(bench)


@pytest.fixture
def volume_id(bench: Bench) -> str:
    """A volume of 8 MiB."""
    return bench.create(size=8 * MIB, capability=raw_block()).volume_id


def _size(device: Path) -> int:
    with device.open("rb") as file:
        return file.seek(0, os.SEEK_END)


def test_a_pod_gets_a_device_node(pods: Pods, bench: Bench, volume_id: str) -> None:
    staging = pods.stage(volume_id, raw_block())
    target = pods.publish(volume_id, staging, raw_block())

    (loop,) = loops_over(image_of(bench.pool, volume_id))
    status = target.lstat()
    assert stat.S_ISBLK(status.st_mode)
    assert status.st_rdev == Path(loop.device).stat().st_rdev
    assert loop.direct_io
    assert loop.sector_bytes == SECTOR_BYTES
    # The pod has the device by its node, which keeps no autoclear device alive between two uses.
    assert not loop.autoclear


@pytest.mark.parametrize("asked", [8 * MIB, 8 * MIB + 1, 8 * MIB + SECTOR_BYTES, 1])
def test_the_device_has_exactly_the_size_that_was_answered(bench: Bench, asked: int) -> None:
    volume = bench.create(size=asked, capability=raw_block())
    assert 0 <= volume.capacity_bytes - asked < SECTOR_BYTES

    with bench.used(volume.volume_id, raw_block()) as target:
        assert _size(target) == volume.capacity_bytes


def test_every_byte_can_be_written_and_none_beyond(bench: Bench, volume_id: str) -> None:
    data = os.urandom(8 * MIB)
    with bench.used(volume_id, raw_block()) as target:
        write_synced(target, data)
        with target.open("r+b", buffering=0) as device:
            device.seek(8 * MIB)
            with pytest.raises(OSError, match="No space left") as caught:
                device.write(b"beyond")
        assert caught.value.errno == errno.ENOSPC

    with bench.used(volume_id, raw_block()) as target:
        assert read_bytes(target, 9 * MIB) == data


def test_what_is_written_is_in_the_image_once_synced(bench: Bench, volume_id: str) -> None:
    with bench.used(volume_id, raw_block()) as target:
        write_synced(target, b"raw" * 1000)

        assert read_bytes(image_of(bench.pool, volume_id), 3000) == b"raw" * 1000


@pytest.mark.parametrize("how", ["readonly", "mode"])
def test_a_read_only_device_takes_no_writes(
    pods: Pods, bench: Bench, volume_id: str, how: str
) -> None:
    staging = pods.stage(volume_id, raw_block())
    writer = pods.publish(volume_id, staging, raw_block())
    write_synced(writer, b"there already")
    pods.unpublish(volume_id, writer)
    capability = raw_block(READER) if how == "mode" else raw_block()

    target = pods.publish(volume_id, staging, capability, read_only=how == "readonly")

    assert read_bytes(target, 13) == b"there already"
    with pytest.raises(OSError, match=r"permitted|denied|Read-only"):
        write_synced(target, b"x" * SECTOR_BYTES)
    assert read_bytes(image_of(bench.pool, volume_id), 13) == b"there already"


def test_staging_and_publishing_again_changes_nothing(
    pods: Pods, bench: Bench, volume_id: str
) -> None:
    staging = pods.stage(volume_id, raw_block())
    target = pods.publish(volume_id, staging, raw_block())
    before = the_mount_at(target), loops_over(image_of(bench.pool, volume_id))

    pods.stage(volume_id, raw_block())
    pods.publish(volume_id, staging, raw_block(), target=target)

    assert (the_mount_at(target), loops_over(image_of(bench.pool, volume_id))) == before


def test_all_goes_with_unpublish_and_unstage(pods: Pods, bench: Bench, volume_id: str) -> None:
    staging = pods.stage(volume_id, raw_block())
    target = pods.publish(volume_id, staging, raw_block())

    pods.unpublish(volume_id, target)
    assert not target.exists()
    assert len(loops_over(image_of(bench.pool, volume_id))) == 1

    pods.unstage(volume_id, staging)
    assert list(staging.iterdir()) == []
    assert no_loop_over(image_of(bench.pool, volume_id))


def test_a_second_pod_gets_it_by_the_mode(pods: Pods, bench: Bench, volume_id: str) -> None:
    staging = pods.stage(volume_id, raw_block())
    first = pods.publish(volume_id, staging, raw_block())
    second = pods.publish(volume_id, staging, raw_block())
    write_synced(first, b"shared")
    assert read_bytes(second, 6) == b"shared"

    third = pods.target(volume_id, raw_block())
    with refused(Code.FAILED_PRECONDITION, "SINGLE_NODE_SINGLE_WRITER"):
        bench.driver.node.NodePublishVolume(
            requests.publish(volume_id, staging, third, raw_block(SINGLE_WRITER))
        )
    assert not third.exists()


def test_the_same_target_with_other_arguments_is_refused(
    pods: Pods, bench: Bench, volume_id: str
) -> None:
    staging = pods.stage(volume_id, raw_block())
    target = pods.publish(volume_id, staging, raw_block())

    with refused(Code.ALREADY_EXISTS, str(target)):
        bench.driver.node.NodePublishVolume(
            requests.publish(volume_id, staging, target, raw_block(), read_only=True)
        )

    write_synced(target, b"still writable")


def test_a_target_that_is_no_file_is_refused(
    pods: Pods, bench: Bench, volume_id: str, tmp_path: Path
) -> None:
    staging = pods.stage(volume_id, raw_block())
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "folder").mkdir()

    for target in (tmp_path / "folder", link, tmp_path / "missing" / "target"):
        with refused(Code.INVALID_ARGUMENT, "target_path", str(target)):
            bench.driver.node.NodePublishVolume(
                requests.publish(volume_id, staging, target, raw_block())
            )

    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "link"]


def test_a_file_with_data_at_the_target_is_never_removed(
    pods: Pods, bench: Bench, volume_id: str, tmp_path: Path
) -> None:
    pods.stage(volume_id, raw_block())
    target = tmp_path / "target"
    target.write_bytes(b"precious")

    with refused(Code.FAILED_PRECONDITION, str(target), "left as it is"):
        bench.driver.node.NodeUnpublishVolume(requests.unpublish(volume_id, target))

    assert target.read_bytes() == b"precious"


def test_a_block_volume_that_is_not_staged_cannot_be_published(
    pods: Pods, bench: Bench, volume_id: str
) -> None:
    staging = bench.kubelet.block_staging_path(volume_id)
    target = pods.target(volume_id, raw_block())

    with refused(Code.FAILED_PRECONDITION, volume_id, str(staging)):
        bench.driver.node.NodePublishVolume(
            requests.publish(volume_id, staging, target, raw_block())
        )

    assert not target.exists()
    assert not loops_over(image_of(bench.pool, volume_id))


def test_staging_where_something_else_is_mounted_is_refused(
    bench: Bench, volume_id: str, tmp_path: Path
) -> None:
    place = tmp_path / "device"
    place.mkdir()
    with foreign_mount(place):
        with refused(Code.INVALID_ARGUMENT, "staging_target_path"):
            bench.driver.node.NodeStageVolume(requests.stage(volume_id, tmp_path, raw_block()))
        with refused(Code.FAILED_PRECONDITION, str(place), "left alone"):
            bench.driver.node.NodeUnstageVolume(requests.unstage(volume_id, tmp_path))

        assert the_mount_at(place).fs_type == "tmpfs"
    assert not loops_over(image_of(bench.pool, volume_id))


def test_staging_in_another_volume_is_refused(pods: Pods, bench: Bench, volume_id: str) -> None:
    """The file that shows the device would be made among that volume's own."""
    other = bench.create().volume_id
    staging = pods.stage(other)

    with refused(Code.ALREADY_EXISTS, str(staging)):
        bench.driver.node.NodeStageVolume(requests.stage(volume_id, staging, raw_block()))

    assert not (staging / "device").exists()
    assert not loops_over(image_of(bench.pool, volume_id))


def test_a_filesystem_is_not_staged_over_a_block_volume(
    pods: Pods, bench: Bench, volume_id: str
) -> None:
    staging = pods.stage(volume_id, raw_block())
    other = bench.create().volume_id

    with refused(Code.ALREADY_EXISTS, str(staging)):
        bench.driver.node.NodeStageVolume(requests.stage(other, staging))

    assert not mounts_at(staging)
    pods.unstage(volume_id, staging)


def test_the_loop_that_the_kubelet_stacks_is_never_detached(
    pods: Pods, bench: Bench, volume_id: str, tmp_path: Path
) -> None:
    """It shows the target at a place of its own and holds the device there by a loop on it."""
    staging = pods.stage(volume_id, raw_block())
    target = pods.publish(volume_id, staging, raw_block())
    own = tmp_path / "device-of-the-pod"
    own.touch()
    run("mount", "--bind", str(target), str(own))
    stacked = run("losetup", "--find", "--show", str(own)).strip()
    try:
        write_synced(Path(stacked), b"through both")

        pods.unpublish(volume_id, target)
        pods.unstage(volume_id, staging)

        assert stacked in {loop.device for loop in all_loops()}
        assert read_bytes(Path(stacked), 12) == b"through both"
    finally:
        run("losetup", "--detach", stacked)
        run("umount", str(own))
    pods.unstage(volume_id, staging)
    assert no_loop_over(image_of(bench.pool, volume_id))
    assert not mounts_at(staging / "device")
    bench.delete(volume_id)


def test_a_device_grows_while_a_pod_uses_it(bench: Bench, volume_id: str) -> None:
    with bench.used(volume_id, raw_block()) as target:
        write_synced(target, b"from before")
        with target.open("rb") as held:
            answer = bench.driver.controller.ControllerExpandVolume(
                requests.controller_expand(volume_id, 16 * MIB)
            )
            assert answer.node_expansion_required
            assert answer.capacity_bytes == 16 * MIB
            grown = bench.driver.node.NodeExpandVolume(
                requests.node_expand(volume_id, target, 16 * MIB, raw_block())
            )

            assert grown.capacity_bytes == 16 * MIB
            assert held.seek(0, os.SEEK_END) == 16 * MIB
        assert read_bytes(target, 11) == b"from before"
        with target.open("r+b", buffering=0) as device:
            device.seek(16 * MIB - SECTOR_BYTES)
            assert device.write(b"x" * SECTOR_BYTES) == SECTOR_BYTES


def test_a_device_that_grew_while_unused_has_its_size_at_the_next_stage(
    bench: Bench, volume_id: str
) -> None:
    bench.driver.controller.ControllerExpandVolume(requests.controller_expand(volume_id, 12 * MIB))

    with bench.used(volume_id, raw_block()) as target:
        assert _size(target) == 12 * MIB
