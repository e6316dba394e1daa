"""What a pod's author may not have as an inline volume; a refusal leaves nothing behind."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract import requests
from tests.contract.inline_pods import (
    CONFIGURATION,
    MAX_VOLUMES,
    InlinePods,
    inline_pods_of,
)
from tests.contract.node_fixtures import (
    the_mount_at,
)
from tests.contract.refusals import Code, refused
from tests.contract.requests import MIB, filesystem
from tests.driver import Driver, running_driver

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def driver(btrfs_pool: Path, folder: Path) -> Iterator[Driver]:
    with running_driver(btrfs_pool, folder, config=CONFIGURATION) as driver:
        yield driver


@pytest.fixture
def pods(driver: Driver, btrfs_pool: Path, folder: Path) -> Iterator[InlinePods]:
    yield from inline_pods_of(driver, folder, btrfs_pool)


@pytest.mark.parametrize(
    ("attributes", "code", "names"),
    [
        ({"class": "gold"}, Code.INVALID_ARGUMENT, ["gold", "flash", "shared"]),
        ({"kind": "directory"}, Code.INVALID_ARGUMENT, ["kind", "class, fsType, size"]),
        ({"pool": "other"}, Code.INVALID_ARGUMENT, ["pool"]),
        ({"Size": "1Gi"}, Code.INVALID_ARGUMENT, ["Size"]),
        ({"size": "lots"}, Code.INVALID_ARGUMENT, ["size", "lots", "1Gi"]),
        ({"size": ""}, Code.INVALID_ARGUMENT, ["size"]),
        ({"size": "0"}, Code.INVALID_ARGUMENT, ["size"]),
        ({"size": "-1Gi"}, Code.INVALID_ARGUMENT, ["size", "-1Gi"]),
        ({"size": "513Mi"}, Code.OUT_OF_RANGE, [str(513 * MIB), str(512 * MIB)]),
        ({"size": "8Ei"}, Code.INVALID_ARGUMENT, ["size", "8Ei"]),
        ({"fsType": "zfs"}, Code.INVALID_ARGUMENT, ["zfs", "ext4"]),
    ],
)
def test_what_the_author_may_not_have_is_refused(
    pods: InlinePods,
    attributes: dict[str, str],
    code: Code,
    names: list[str],
) -> None:
    pod = pods.pod()

    with refused(code, *names):
        pods.publish(pod, attributes)

    assert pods.made() == []
    assert not pod.target.exists()


def test_a_raw_device_is_refused(pods: InlinePods) -> None:
    pod = pods.pod()

    with refused(Code.INVALID_ARGUMENT, "block"):
        pods.publish(pod, capability=requests.raw_block())

    assert pods.made() == []


def test_a_volume_of_nobody_is_refused(pods: InlinePods) -> None:
    pod = pods.pod()
    request = pods.request(pod)
    del request.volume_context["csi.storage.k8s.io/pod.uid"]

    with refused(Code.INVALID_ARGUMENT, "pod.uid", "podInfoOnMount"):
        pods.driver.node.NodePublishVolume(request)

    assert pods.made() == []


@pytest.mark.parametrize("volume_id", ["scratch", "csi-1234", "csi-" + "G" * 64])
def test_an_id_that_is_not_the_kubelets_leaves_nothing(pods: InlinePods, volume_id: str) -> None:
    pod = pods.pod()
    request = pods.request(pod)
    request.volume_id = volume_id

    with refused(Code.NOT_FOUND, volume_id):
        pods.driver.node.NodePublishVolume(request)

    assert pods.made() == []
    assert not pod.target.exists()


def test_a_target_that_cannot_be_mounted_on_leaves_nothing(
    pods: InlinePods, tmp_path: Path
) -> None:
    """The kubelet never unpublishes what was refused for good: so it must be gone by then."""
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_bytes(b"somebody's")
    link.symlink_to(tmp_path)
    for target in (file, link, tmp_path / "missing" / "target", Path("relative")):
        request = pods.request(pods.pod())
        request.target_path = str(target)
        with refused(Code.INVALID_ARGUMENT, "target_path", str(target)):
            pods.driver.node.NodePublishVolume(request)
        assert pods.made() == []

    assert file.read_bytes() == b"somebody's"


def test_a_mount_flag_that_is_not_allowed_leaves_nothing(pods: InlinePods) -> None:
    for flag in ("suid", "journal_path=/dev/vda", "nouuid"):
        with refused(Code.INVALID_ARGUMENT, flag.partition("=")[0]):
            pods.publish(pods.pod(), capability=filesystem("", flags=[flag]))
        assert pods.made() == []


def test_the_same_target_with_other_arguments_is_refused(pods: InlinePods) -> None:
    pod = pods.pod()
    target = pods.publish(pod)

    with refused(Code.ALREADY_EXISTS, str(target)):
        pods.publish(pod, read_only=True)

    assert not the_mount_at(target).read_only


def test_a_node_has_so_many_and_no_more(pods: InlinePods) -> None:
    made = [pods.pod() for _ in range(MAX_VOLUMES)]
    for pod in made:
        pods.publish(pod, {"size": "16Mi"})
    late = pods.pod()

    with refused(Code.RESOURCE_EXHAUSTED, str(MAX_VOLUMES), "inline"):
        pods.publish(late, {"size": "16Mi"})

    assert len(pods.made()) == MAX_VOLUMES
    pods.publish(made[0], {"size": "16Mi"})
    pods.unpublish(made[0])
    pods.publish(late, {"size": "16Mi"})
