"""Staging paths and targets of every shape: those that serve, and those that are refused."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract import requests
from tests.contract.bench import Bench, write_synced
from tests.contract.node_fixtures import (
    UNKNOWN_VOLUME,
    image_of,
    mounts_at,
    no_loop_over,
    the_mount_at,
)
from tests.contract.pods import Pods, pods_of
from tests.contract.refusals import Code, refused
from tests.contract.requests import MIB, raw_block

pytestmark = pytest.mark.kernel


@pytest.fixture
def pods(bench: Bench) -> Iterator[Pods]:
    yield from pods_of(bench)


def test_a_staging_path_that_cannot_be_mounted_on_is_refused(bench: Bench, tmp_path: Path) -> None:
    file, folder, link = tmp_path / "file", tmp_path / "folder", tmp_path / "link"
    file.write_bytes(b"somebody's")
    folder.mkdir()
    link.symlink_to(folder)
    paths = [
        file,
        link,
        file / "below-a-file",
        tmp_path / "missing" / "path",
        tmp_path / ("y" * 300),
    ]
    mounted = bench.create().volume_id
    raw = bench.create(size=MIB, capability=raw_block()).volume_id
    before = sorted(tmp_path.iterdir())

    for path in paths:
        for request in (
            requests.stage(mounted, path),
            requests.stage(raw, path, raw_block()),
        ):
            with refused(Code.INVALID_ARGUMENT, "staging_target_path", str(path)[:60]):
                bench.driver.node.NodeStageVolume(request)

    assert sorted(tmp_path.iterdir()) == before
    assert list(folder.iterdir()) == []
    assert file.read_bytes() == b"somebody's"
    for volume_id in (mounted, raw):
        assert no_loop_over(image_of(bench.pool, volume_id))


def test_a_relative_staging_path_is_refused(bench: Bench, tmp_path: Path) -> None:
    """It would mean a place that depends on where the driver happens to run."""
    volume_id = bench.create().volume_id
    empty = tmp_path / "empty"
    (empty / "device").mkdir(parents=True)
    relative = os.path.relpath(empty)

    with refused(Code.INVALID_ARGUMENT, "staging_target_path", relative):
        bench.driver.node.NodeStageVolume(requests.stage(volume_id, relative))
    for each in (volume_id, UNKNOWN_VOLUME):
        with refused(Code.INVALID_ARGUMENT, "staging_target_path", relative):
            bench.driver.node.NodeUnstageVolume(requests.unstage(each, relative))

    assert (empty / "device").is_dir()


@pytest.mark.parametrize("name", ["a" * 300, "b/" * 1800 + "b"], ids=["long name", "long path"])
def test_what_could_never_be_there_is_not_there(bench: Bench, name: str) -> None:
    """A path that the kernel does not take is no reason to try for ever."""
    volume_id = bench.create().volume_id
    path = f"/tmp/{name}"

    for call in (
        lambda: bench.driver.node.NodeUnpublishVolume(requests.unpublish(volume_id, path)),
        lambda: bench.driver.node.NodeUnpublishVolume(requests.unpublish(UNKNOWN_VOLUME, path)),
        lambda: bench.driver.node.NodeUnstageVolume(requests.unstage(volume_id, path)),
    ):
        if len(name) == 300:
            with refused(Code.INVALID_ARGUMENT, "target_path"):
                call()
        else:
            call()
    with refused(Code.NOT_FOUND, volume_id):
        bench.driver.node.NodeGetVolumeStats(requests.stats(volume_id, path))


def test_the_kubelets_folder_may_be_reached_over_a_link(bench: Bench, tmp_path: Path) -> None:
    """Many nodes keep /var/lib/kubelet on another disk."""
    (tmp_path / "elsewhere").mkdir()
    kubelet = tmp_path / "kubelet"
    kubelet.symlink_to("elsewhere")
    staging, target = kubelet / "staging", kubelet / "target"
    volume_id = bench.create().volume_id
    node = bench.driver.node

    for _ in range(2):
        node.NodeStageVolume(requests.stage(volume_id, staging))
        node.NodePublishVolume(requests.publish(volume_id, staging, target))
    assert len(mounts_at(tmp_path / "elsewhere" / "target")) == 1
    write_synced(target / "file", b"over the link")
    assert node.NodeGetVolumeStats(requests.stats(volume_id, target)).usage
    for _ in range(2):
        node.NodeUnpublishVolume(requests.unpublish(volume_id, target))
        node.NodeUnstageVolume(requests.unstage(volume_id, staging))

    assert not target.exists()
    assert kubelet.is_symlink()
    assert no_loop_over(image_of(bench.pool, volume_id))


@pytest.mark.parametrize(
    "name",
    ["two words", "tab\there", "line\nbreak", r"back\slash", "\\040", "ünïcode", "#%&'\";$x"],
)
def test_any_name_will_do(pods: Pods, bench: Bench, tmp_path: Path, name: str) -> None:
    """The kernel writes some characters in another way when it lists mounts."""
    volume_id = bench.create().volume_id
    staging = pods.stage(volume_id, path=tmp_path / f"staging {name}")
    target = tmp_path / name
    for _ in range(2):
        pods.stage(volume_id, path=staging)
        pods.publish(volume_id, staging, target=target)

    write_synced(target / "file", b"data")
    assert len(mounts_at(target)) == 1
    assert the_mount_at(target).source == the_mount_at(staging).source
    assert bench.driver.node.NodeGetVolumeStats(requests.stats(volume_id, target)).usage

    pods.unpublish(volume_id, target)
    assert not target.exists()
    pods.unstage(volume_id, staging)
    assert not mounts_at(staging)


def test_a_slash_at_the_end_does_not_make_a_link_followed(
    pods: Pods, bench: Bench, tmp_path: Path
) -> None:
    volume_id = bench.create().volume_id
    staging = pods.stage(volume_id)
    (tmp_path / "theirs").mkdir()
    link = tmp_path / "link"
    link.symlink_to("theirs")
    node = bench.driver.node

    with refused(Code.INVALID_ARGUMENT, "target_path"):
        node.NodePublishVolume(requests.publish(volume_id, staging, f"{link}/"))
    for known in (volume_id, UNKNOWN_VOLUME):
        with refused(Code.FAILED_PRECONDITION, str(link), "left as it is"):
            node.NodeUnpublishVolume(requests.unpublish(known, f"{link}/"))

    assert link.is_symlink()
    assert (tmp_path / "theirs").is_dir()
    assert not mounts_at(tmp_path / "theirs")
