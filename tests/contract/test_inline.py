"""Inline ephemeral volumes: what a pod's author may have, and that they go with their pod."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from csi.v1 import csi_pb2 as pb
from tests.contract import requests
from tests.contract.bench import write_synced
from tests.contract.inline_pods import (
    CONFIGURATION,
    DEFAULT_BYTES,
    InlinePods,
    inline_pods_of,
)
from tests.contract.node_fixtures import (
    fill,
    loops_below,
    mounts_at,
    run,
    the_mount_at,
    wait_for_empty_trash,
)
from tests.contract.refusals import Code, refused
from tests.contract.requests import MIB, READER, filesystem
from tests.driver import Driver, running_driver

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def driver(btrfs_pool: Path, folder: Path) -> Iterator[Driver]:
    with running_driver(btrfs_pool, folder, config=CONFIGURATION) as driver:
        yield driver


@pytest.fixture
def pods(driver: Driver, btrfs_pool: Path, folder: Path) -> Iterator[InlinePods]:
    yield from inline_pods_of(driver, folder, btrfs_pool)


def test_a_volume_is_made_with_its_pod_and_goes_with_it(pods: InlinePods) -> None:
    pod = pods.pod()

    target = pods.publish(pod)

    mount = the_mount_at(target)
    assert mount.fs_type == "ext4"
    assert {"rw", "nosuid", "nodev"} <= mount.options
    (loop,) = loops_below(pods.pool)
    assert (loop.size_bytes, loop.autoclear, loop.direct_io) == (DEFAULT_BYTES, True, True)
    write_synced(target / "file", b"scratch")
    assert len(pods.made()) == 1

    pods.unpublish(pod)

    assert not target.exists()
    assert pods.made() == []
    wait_for_empty_trash(pods.pool)


def test_publishing_again_changes_nothing(pods: InlinePods) -> None:
    pod = pods.pod()
    target = pods.publish(pod)
    write_synced(target / "file", b"kept")
    mount = the_mount_at(target)

    pods.publish(pod)

    assert the_mount_at(target) == mount
    assert (target / "file").read_bytes() == b"kept"
    assert len(pods.made()) == 1


def test_ending_a_pod_again_is_fine(pods: InlinePods) -> None:
    pod = pods.pod()
    pods.publish(pod)

    for _ in range(2):
        pods.unpublish(pod)
        assert pods.made() == []


@pytest.mark.parametrize(
    ("attributes", "fs_type", "size"),
    [
        ({"size": "200Mi"}, "ext4", 200 * MIB),
        ({"size": "20000000"}, "ext4", 20_000_768),
        ({"size": "300Mi", "fsType": "xfs"}, "xfs", 300 * MIB),
        ({"class": "flash"}, "btrfs", DEFAULT_BYTES),
        ({"class": "flash", "fsType": "ext4", "size": "64Mi"}, "ext4", 64 * MIB),
    ],
)
def test_the_author_says_size_filesystem_and_class(
    pods: InlinePods, attributes: dict[str, str], fs_type: str, size: int
) -> None:
    pod = pods.pod()

    mount = the_mount_at(pods.publish(pod, attributes))

    assert mount.fs_type == fs_type
    (loop,) = loops_below(pods.pool)
    assert (loop.device, loop.size_bytes) == (mount.source, size)


def test_the_size_is_enforced(pods: InlinePods) -> None:
    target = pods.publish(pods.pod(), {"size": "32Mi"})

    written, number = fill(target / "ballast")

    assert number == errno.ENOSPC
    assert 16 * MIB < written < 32 * MIB


def test_a_class_may_stand_for_directories(pods: InlinePods) -> None:
    target = pods.publish(pods.pod(), {"class": "shared", "size": "32Mi"})

    assert the_mount_at(target).fs_type == "btrfs"
    written, number = fill(target / "ballast")
    assert number == errno.EDQUOT
    assert 31 * MIB <= written <= 32 * MIB


@pytest.mark.parametrize("how", ["readonly", "mode"])
def test_read_only_is_read_only(pods: InlinePods, how: str) -> None:
    capability = filesystem("", mode=READER) if how == "mode" else None

    target = pods.publish(pods.pod(), capability=capability, read_only=how == "readonly")

    assert the_mount_at(target).read_only
    with pytest.raises(OSError, match="Read-only file system"):
        (target / "file").touch()


def test_it_is_nobody_elses(pods: InlinePods, driver: Driver) -> None:
    """It is in no list, and neither deleted, staged, copied nor snapshotted by its id."""
    pod = pods.pod()
    target = pods.publish(pod)
    controller, volume_id = driver.controller, pod.volume_id

    assert not controller.ListVolumes(requests.list_volumes()).entries
    controller.DeleteVolume(requests.delete_volume(volume_id))
    with refused(Code.INVALID_ARGUMENT, "inline"):
        controller.CreateSnapshot(requests.create_snapshot("of-a-pod", volume_id))
    with refused(Code.INVALID_ARGUMENT, "inline"):
        driver.node.NodeStageVolume(requests.stage(volume_id, target.parent, filesystem("")))
    with refused(Code.INVALID_ARGUMENT, "inline"):
        controller.CreateVolume(
            requests.create_volume("of-a-pod", source=requests.from_volume(volume_id))
        )

    assert len(mounts_at(target)) == 1
    assert len(pods.made()) == 1


def test_stats_are_those_of_the_kernel(pods: InlinePods, driver: Driver) -> None:
    pod = pods.pod()
    target = pods.publish(pod)

    answer = driver.node.NodeGetVolumeStats(requests.stats(pod.volume_id, target))

    size = next(entry for entry in answer.usage if entry.unit == pb.VolumeUsage.BYTES)
    status = os.statvfs(target)
    assert size.total == status.f_blocks * status.f_frsize
    assert size.available == status.f_bavail * status.f_frsize


def test_a_pod_that_ends_after_a_reboot_takes_its_volume_along(pods: InlinePods) -> None:
    pod = pods.pod()
    run("umount", str(pods.publish(pod)))
    assert len(pods.made()) == 1

    pods.unpublish(pod)

    assert pods.made() == []
    assert not pod.target.exists()
