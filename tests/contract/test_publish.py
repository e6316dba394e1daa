"""NodePublishVolume of filesystems: the mount itself, and who may share it."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from csi.v1 import csi_pb2 as pb
from tests.contract import requests
from tests.contract.bench import Bench, write_synced
from tests.contract.node_fixtures import mounts_at, the_mount_at
from tests.contract.pods import Pods, pods_of
from tests.contract.refusals import Code, refused
from tests.contract.requests import (
    MULTI_WRITER,
    OLD_WRITER,
    READER,
    SINGLE_WRITER,
    Mode,
    filesystem,
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


def test_a_pod_sees_the_staged_volume(pods: Pods, staged: tuple[str, Path]) -> None:
    volume_id, staging = staged
    target = pods.publish(volume_id, staging)

    mount = the_mount_at(target)
    assert mount.source == the_mount_at(staging).source
    assert {"rw", "nosuid", "nodev"} <= mount.options
    write_synced(target / "file", b"hello")
    assert (staging / "file").read_bytes() == b"hello"


def test_publishing_again_changes_nothing(pods: Pods, staged: tuple[str, Path]) -> None:
    volume_id, staging = staged
    target = pods.publish(volume_id, staging)
    mount = the_mount_at(target)

    pods.publish(volume_id, staging, target=target)

    assert the_mount_at(target) == mount


def test_a_target_that_exists_already_is_used(pods: Pods, staged: tuple[str, Path]) -> None:
    volume_id, staging = staged
    target = pods.target(volume_id)
    target.mkdir()

    pods.publish(volume_id, staging, target=target)

    assert the_mount_at(target).fs_type == "ext4"


def test_a_target_that_ends_in_a_slash_is_the_same_one(
    pods: Pods, bench: Bench, staged: tuple[str, Path]
) -> None:
    volume_id, staging = staged
    target = pods.publish(volume_id, staging)

    _publish(bench, requests.publish(volume_id, staging, f"{target}/"))
    assert len(mounts_at(target)) == 1
    bench.driver.node.NodeUnpublishVolume(requests.unpublish(volume_id, f"{target}/"))
    assert not target.exists()


@pytest.mark.parametrize("how", ["readonly", "flag", "mode"])
def test_read_only_is_read_only(pods: Pods, bench: Bench, how: str) -> None:
    """Nothing can be written, whichever way the request says it."""
    volume_id = bench.create().volume_id
    staging = pods.stage(volume_id)
    write_synced(staging / "file", b"there already")
    capability = {
        "readonly": filesystem(),
        "flag": filesystem(flags=["ro"]),
        "mode": filesystem(mode=READER),
    }[how]

    target = pods.publish(volume_id, staging, capability, read_only=how == "readonly")

    assert the_mount_at(target).read_only
    assert (target / "file").read_bytes() == b"there already"
    for path in (target / "file", target / "new"):
        with pytest.raises(OSError, match="Read-only file system") as caught:
            os.open(path, os.O_WRONLY | os.O_CREAT)
        assert caught.value.errno == errno.EROFS
    assert not the_mount_at(staging).read_only


def test_a_reader_beside_a_writer_stays_a_reader(pods: Pods, staged: tuple[str, Path]) -> None:
    volume_id, staging = staged
    writer = pods.publish(volume_id, staging)
    reader = pods.publish(volume_id, staging, read_only=True)

    write_synced(writer / "file", b"new")

    assert (reader / "file").read_bytes() == b"new"
    assert the_mount_at(reader).read_only
    assert not the_mount_at(writer).read_only


def test_flags_of_the_mount_hold_for_one_target_alone(pods: Pods, staged: tuple[str, Path]) -> None:
    volume_id, staging = staged
    strict = pods.publish(volume_id, staging, filesystem(flags=["noexec", "noatime"]))
    plain = pods.publish(volume_id, staging)

    assert {"noexec", "noatime", "nosuid", "nodev"} <= the_mount_at(strict).options
    assert not {"noexec", "noatime"} & the_mount_at(plain).options


def test_two_pods_of_a_node_share_a_volume(pods: Pods, staged: tuple[str, Path]) -> None:
    volume_id, staging = staged
    first = pods.publish(volume_id, staging, filesystem(mode=MULTI_WRITER))
    second = pods.publish(volume_id, staging, filesystem(mode=MULTI_WRITER))

    write_synced(first / "file", b"shared")
    assert (second / "file").read_bytes() == b"shared"

    pods.unpublish(volume_id, first)
    assert (second / "file").read_bytes() == b"shared"


@pytest.mark.parametrize("mode", [SINGLE_WRITER, OLD_WRITER, READER])
def test_other_modes_allow_one_target(pods: Pods, bench: Bench, mode: Mode.Mode.ValueType) -> None:
    capability = filesystem(mode=mode)
    volume_id = bench.create(capability=capability).volume_id
    staging = pods.stage(volume_id, capability)
    first = pods.publish(volume_id, staging, capability)
    second = pods.target(volume_id)

    with refused(Code.FAILED_PRECONDITION, str(first), Mode.Mode.Name(mode)):
        _publish(bench, requests.publish(volume_id, staging, second, capability))

    assert not second.exists()
    assert len(mounts_at(first)) == 1
    pods.publish(volume_id, staging, capability, target=first)


def test_a_volume_made_for_the_older_mode_serves_as_well(pods: Pods, bench: Bench) -> None:
    """SINGLE_NODE_WRITER is what a claim said before there were the two others."""
    volume_id = bench.create(capability=filesystem(mode=OLD_WRITER)).volume_id
    staging = pods.stage(volume_id)
    first, second = pods.publish(volume_id, staging), pods.publish(volume_id, staging)

    assert the_mount_at(first).source == the_mount_at(second).source


def test_what_the_kubelet_adds_to_the_context_changes_nothing(
    pods: Pods, bench: Bench, staged: tuple[str, Path]
) -> None:
    """Tokens and the like are others in each call."""
    volume_id, staging = staged
    target = pods.publish(volume_id, staging)
    mount = the_mount_at(target)

    for number in range(2):
        context = {
            "kind": "image",
            "storage.kubernetes.io/csiProvisionerIdentity": f"{number}-local-path.csi.dev",
            "csi.storage.k8s.io/ephemeral": "false",
            "csi.storage.k8s.io/pod.name": f"web-{number}",
            "csi.storage.k8s.io/serviceAccount.tokens": f"token-{number}",
        }
        bench.driver.node.NodeStageVolume(requests.stage(volume_id, staging, context=context))
        _publish(bench, requests.publish(volume_id, staging, target, context=context))

    assert the_mount_at(target) == mount


def test_the_next_pod_can_have_it_once_the_first_is_gone(pods: Pods, bench: Bench) -> None:
    capability = filesystem(mode=SINGLE_WRITER)
    volume_id = bench.create(capability=capability).volume_id
    staging = pods.stage(volume_id, capability)
    pods.unpublish(volume_id, pods.publish(volume_id, staging, capability))

    second = pods.publish(volume_id, staging, capability)

    assert the_mount_at(second).fs_type == "ext4"
