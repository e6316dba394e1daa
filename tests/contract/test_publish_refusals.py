"""What NodePublishVolume refuses, and that a refusal changes nothing."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from csi.v1 import csi_pb2 as pb
from tests.contract import requests
from tests.contract.bench import Bench
from tests.contract.node_fixtures import UNKNOWN_VOLUME, foreign_mount, mounts_at, the_mount_at
from tests.contract.pods import Pods, pods_of
from tests.contract.refusals import Code, refused
from tests.contract.requests import (
    READER,
    filesystem,
    raw_block,
)

pytestmark = pytest.mark.kernel


@pytest.fixture
def pods(bench: Bench) -> Iterator[Pods]:
    yield from pods_of(bench)


@pytest.fixture
def staged(pods: Pods, bench: Bench) -> tuple[str, Path]:
    """A volume and where it is staged."""
    volume_id = bench.create().volume_id
    return volume_id, pods.stage(volume_id)


def _publish(bench: Bench, request: pb.NodePublishVolumeRequest) -> None:
    bench.driver.node.NodePublishVolume(request)


def test_the_same_target_with_other_arguments_is_refused(
    pods: Pods, bench: Bench, staged: tuple[str, Path]
) -> None:
    volume_id, staging = staged
    target = pods.publish(volume_id, staging)
    mount = the_mount_at(target)

    for request in (
        requests.publish(volume_id, staging, target, read_only=True),
        requests.publish(volume_id, staging, target, filesystem(flags=["noexec"])),
        requests.publish(volume_id, staging, target, filesystem(mode=READER)),
    ):
        with refused(Code.ALREADY_EXISTS, str(target)):
            _publish(bench, request)

    assert the_mount_at(target) == mount


def test_a_target_of_another_volume_is_refused(
    pods: Pods, bench: Bench, staged: tuple[str, Path]
) -> None:
    volume_id, staging = staged
    target = pods.publish(volume_id, staging)
    other = bench.create().volume_id
    other_staging = pods.stage(other)

    with refused(Code.ALREADY_EXISTS, str(target)):
        _publish(bench, requests.publish(other, other_staging, target))

    assert the_mount_at(target).source == the_mount_at(staging).source


def test_a_target_where_something_else_is_mounted_is_refused(
    bench: Bench, staged: tuple[str, Path], tmp_path: Path
) -> None:
    volume_id, staging = staged
    with foreign_mount(tmp_path):
        with refused(Code.ALREADY_EXISTS, str(tmp_path)):
            _publish(bench, requests.publish(volume_id, staging, tmp_path))

        assert the_mount_at(tmp_path).fs_type == "tmpfs"
    assert tmp_path.is_dir()


def test_what_is_mounted_over_a_volume_is_not_taken_for_it(
    pods: Pods, bench: Bench, staged: tuple[str, Path]
) -> None:
    volume_id, staging = staged
    target = pods.publish(volume_id, staging)
    with foreign_mount(target):
        with refused(Code.ALREADY_EXISTS, str(target)):
            _publish(bench, requests.publish(volume_id, staging, target))
        assert [mount.fs_type for mount in mounts_at(target)] == ["ext4", "tmpfs"]


def test_a_volume_that_is_not_staged_cannot_be_published(bench: Bench, pods: Pods) -> None:
    volume_id = bench.create().volume_id
    staging, target = bench.kubelet.staging_path(volume_id), pods.target(volume_id)

    with refused(Code.FAILED_PRECONDITION, volume_id, str(staging)):
        _publish(bench, requests.publish(volume_id, staging, target))
    with refused(Code.FAILED_PRECONDITION, "staging_target_path"):
        _publish(bench, requests.publish(volume_id, "", target))

    assert not target.exists()


def test_a_staging_path_of_another_volume_is_refused(
    pods: Pods, bench: Bench, staged: tuple[str, Path]
) -> None:
    _, staging = staged
    other = bench.create().volume_id
    target = pods.target(other)

    with refused(Code.FAILED_PRECONDITION, other, str(staging)):
        _publish(bench, requests.publish(other, staging, target))

    assert not target.exists()


def test_an_unknown_volume_cannot_be_published(bench: Bench, staged: tuple[str, Path]) -> None:
    _, staging = staged
    target = bench.kubelet.target_path("unknown", "pod")

    with refused(Code.NOT_FOUND, UNKNOWN_VOLUME):
        _publish(bench, requests.publish(UNKNOWN_VOLUME, staging, target))

    assert not target.exists()


def test_another_filesystem_or_access_is_refused(
    pods: Pods, bench: Bench, staged: tuple[str, Path]
) -> None:
    volume_id, staging = staged
    target = pods.target(volume_id)

    with refused(Code.FAILED_PRECONDITION, volume_id, "xfs", "ext4"):
        _publish(bench, requests.publish(volume_id, staging, target, filesystem("xfs")))
    with refused(Code.FAILED_PRECONDITION, volume_id, "filesystem", "block"):
        _publish(bench, requests.publish(volume_id, staging, target, raw_block()))

    assert not target.exists()


def test_a_target_that_cannot_be_mounted_on_is_refused(
    bench: Bench, staged: tuple[str, Path], tmp_path: Path
) -> None:
    volume_id, staging = staged
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.write_bytes(b"somebody's")
    folder.mkdir()
    link, dangling = tmp_path / "link", tmp_path / "dangling"
    link.symlink_to(folder)
    dangling.symlink_to(tmp_path / "nowhere")
    targets = [
        file,
        link,
        dangling,
        file / "below-a-file",
        tmp_path / "missing" / "target",
        tmp_path / ("x" * 300),
    ]
    before = sorted(tmp_path.iterdir())

    for target in targets:
        with refused(Code.INVALID_ARGUMENT, "target_path", str(target)[:60]):
            _publish(bench, requests.publish(volume_id, staging, target))

    assert sorted(tmp_path.iterdir()) == before
    assert file.read_bytes() == b"somebody's"
    assert not mounts_at(folder)


def test_a_relative_target_is_refused(
    bench: Bench, staged: tuple[str, Path], tmp_path: Path
) -> None:
    """It would mean a place that depends on where the driver happens to run."""
    volume_id, staging = staged
    empty = tmp_path / "empty"
    empty.mkdir()
    relative = os.path.relpath(empty)

    with refused(Code.INVALID_ARGUMENT, "target_path", relative):
        _publish(bench, requests.publish(volume_id, staging, relative))

    assert empty.is_dir()
    assert not mounts_at(empty)
