"""NodeUnpublishVolume: what it takes away, and all that it must never take away."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract import requests
from tests.contract.bench import Bench, write_synced
from tests.contract.node_fixtures import UNKNOWN_VOLUME, foreign_mount, mounts_at, run, the_mount_at
from tests.contract.pods import Pods, pods_of
from tests.contract.refusals import Code, refused

pytestmark = pytest.mark.kernel


@pytest.fixture
def pods(bench: Bench) -> Iterator[Pods]:
    yield from pods_of(bench)


@pytest.fixture
def staged(pods: Pods, bench: Bench) -> tuple[str, Path]:
    """A volume and where it is staged."""
    volume_id = bench.create().volume_id
    return volume_id, pods.stage(volume_id)


def test_unpublishing_removes_the_target(pods: Pods, staged: tuple[str, Path]) -> None:
    volume_id, staging = staged
    target = pods.publish(volume_id, staging)
    write_synced(target / "file", b"stays in the volume")

    pods.unpublish(volume_id, target)

    assert not target.exists()
    assert target.parent.is_dir()
    assert (staging / "file").read_bytes() == b"stays in the volume"


def test_unpublishing_again_is_fine(pods: Pods, bench: Bench, staged: tuple[str, Path]) -> None:
    volume_id, staging = staged
    target = pods.publish(volume_id, staging)
    pods.unpublish(volume_id, target)

    pods.unpublish(volume_id, target)
    bench.driver.node.NodeUnpublishVolume(requests.unpublish(volume_id, "/nowhere/at/all"))


def test_unpublishing_what_is_unknown_removes_the_empty_target(
    bench: Bench, tmp_path: Path
) -> None:
    node = bench.driver.node
    target = tmp_path / "target"
    target.mkdir()

    for _ in range(2):
        node.NodeUnpublishVolume(requests.unpublish(UNKNOWN_VOLUME, target))
        assert not target.exists()


def test_unpublishing_never_removes_data(
    bench: Bench, staged: tuple[str, Path], tmp_path: Path
) -> None:
    """What was written below a target while nothing was mounted there is somebody's data."""
    volume_id, _ = staged
    target = tmp_path / "target"
    target.mkdir()
    (target / "precious").write_bytes(b"data")
    file = tmp_path / "file"
    file.write_bytes(b"data")

    for each in (volume_id, UNKNOWN_VOLUME):
        for path in (target, file):
            with refused(Code.FAILED_PRECONDITION, str(path), "left as it is"):
                bench.driver.node.NodeUnpublishVolume(requests.unpublish(each, path))

    assert (target / "precious").read_bytes() == b"data"
    assert file.read_bytes() == b"data"


def test_data_under_a_mounted_target_survives(
    pods: Pods, bench: Bench, staged: tuple[str, Path]
) -> None:
    volume_id, staging = staged
    target = pods.target(volume_id)
    target.mkdir()
    (target / "hidden").write_bytes(b"data")
    pods.publish(volume_id, staging, target=target)
    write_synced(target / "file", b"in the volume")

    with refused(Code.FAILED_PRECONDITION, str(target), "left as it is"):
        bench.driver.node.NodeUnpublishVolume(requests.unpublish(volume_id, target))

    assert not mounts_at(target)
    assert (target / "hidden").read_bytes() == b"data"
    assert (staging / "file").read_bytes() == b"in the volume"

    (target / "hidden").unlink()
    pods.unpublish(volume_id, target)
    assert not target.exists()


def test_a_target_in_use_stays_until_it_is_free(pods: Pods, staged: tuple[str, Path]) -> None:
    volume_id, staging = staged
    target = pods.publish(volume_id, staging)
    with (target / "file").open("wb"):
        with refused(Code.FAILED_PRECONDITION, str(target), "busy"):
            pods.unpublish(volume_id, target)
        assert the_mount_at(target).fs_type == "ext4"

    pods.unpublish(volume_id, target)
    assert not target.exists()


def test_a_link_at_the_target_is_not_followed(
    bench: Bench, pods: Pods, staged: tuple[str, Path], tmp_path: Path
) -> None:
    volume_id, staging = staged
    real = pods.publish(volume_id, staging)
    link = tmp_path / "link"
    link.symlink_to(real)

    with refused(Code.FAILED_PRECONDITION, str(link), "link"):
        bench.driver.node.NodeUnpublishVolume(requests.unpublish(volume_id, link))

    assert link.is_symlink()
    assert the_mount_at(real).fs_type == "ext4"


def test_a_volume_mounted_twice_at_its_target_goes_at_once(
    pods: Pods, staged: tuple[str, Path]
) -> None:
    volume_id, staging = staged
    target = pods.publish(volume_id, staging)
    run("mount", "--bind", str(staging), str(target))
    assert len(mounts_at(target)) == 2

    pods.unpublish(volume_id, target)

    assert not mounts_at(target)
    assert not target.exists()
    assert the_mount_at(staging).fs_type == "ext4"


def test_what_is_mounted_over_a_volume_is_left_alone(
    pods: Pods, bench: Bench, staged: tuple[str, Path]
) -> None:
    volume_id, staging = staged
    target = pods.publish(volume_id, staging)
    with foreign_mount(target):
        with refused(Code.FAILED_PRECONDITION, str(target)):
            bench.driver.node.NodeUnpublishVolume(requests.unpublish(volume_id, target))

        assert [mount.fs_type for mount in mounts_at(target)] == ["ext4", "tmpfs"]
    pods.unpublish(volume_id, target)
    assert not target.exists()


@pytest.mark.parametrize("known", [True, False])
def test_what_somebody_else_has_mounted_is_left_alone(
    bench: Bench, staged: tuple[str, Path], tmp_path: Path, known: bool
) -> None:
    volume_id = staged[0] if known else UNKNOWN_VOLUME
    with foreign_mount(tmp_path):
        with refused(Code.FAILED_PRECONDITION, str(tmp_path), "left alone"):
            bench.driver.node.NodeUnpublishVolume(requests.unpublish(volume_id, tmp_path))

        assert the_mount_at(tmp_path).fs_type == "tmpfs"
    assert tmp_path.is_dir()


def test_another_volume_at_the_target_is_left_alone(
    pods: Pods, bench: Bench, staged: tuple[str, Path]
) -> None:
    volume_id, staging = staged
    target = pods.publish(volume_id, staging)
    other = bench.create().volume_id

    with refused(Code.FAILED_PRECONDITION, str(target), other):
        bench.driver.node.NodeUnpublishVolume(requests.unpublish(other, target))

    assert the_mount_at(target).source == the_mount_at(staging).source


@pytest.mark.parametrize("known", [True, False])
def test_a_relative_target_is_refused(
    bench: Bench, staged: tuple[str, Path], tmp_path: Path, known: bool
) -> None:
    """It would mean a place that depends on where the driver happens to run."""
    volume_id = staged[0] if known else UNKNOWN_VOLUME
    empty = tmp_path / "empty"
    empty.mkdir()
    relative = os.path.relpath(empty)

    with refused(Code.INVALID_ARGUMENT, "target_path", relative):
        bench.driver.node.NodeUnpublishVolume(requests.unpublish(volume_id, relative))

    assert empty.is_dir()
