"""Inline volumes over restarts of the driver, and those whose pods are gone without a word."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

import tests.driver
from tests.contract.bench import wait_until, write_synced
from tests.contract.command import hurried
from tests.contract.inline_pods import CONFIGURATION, MAX_VOLUMES, InlinePods, Pod, inline_pods_of
from tests.contract.node_fixtures import (
    looked_at,
    loops_below,
    run,
    the_mount_at,
    wait_for_empty_trash,
)
from tests.contract.refusals import Code, as_call, refused
from tests.driver import Driver, running_driver

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def driver(xfs_pool: Path, folder: Path) -> Iterator[Driver]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tests.driver, "COMMAND", hurried("_SWEEP_EVERY_S", 0.1))
        with running_driver(xfs_pool, folder, config=CONFIGURATION) as driver:
            yield driver


@pytest.fixture
def pods(driver: Driver, xfs_pool: Path, folder: Path) -> Iterator[InlinePods]:
    yield from inline_pods_of(driver, folder, xfs_pool)


@pytest.mark.parametrize("end", ["SIGTERM", "SIGKILL"])
def test_a_pod_keeps_its_volume_over_a_restart(pods: InlinePods, driver: Driver, end: str) -> None:
    pod = pods.pod()
    target = pods.publish(pod)
    write_synced(target / "file", b"kept")
    mount, loops = the_mount_at(target), loops_below(pods.pool)
    if end == "SIGKILL":
        driver.kill()
    else:
        driver.stop_cleanly()
    assert (target / "file").read_bytes() == b"kept"
    driver.start()

    pods.publish(pod)

    assert the_mount_at(target) == mount
    assert loops_below(pods.pool) == loops
    assert (target / "file").read_bytes() == b"kept"
    pods.unpublish(pod)
    assert pods.made() == []
    assert not target.exists()


def test_a_device_that_somebody_looks_at_keeps_no_volume(pods: InlinePods) -> None:
    pod = pods.pod()
    pods.publish(pod)
    (loop,) = loops_below(pods.pool)

    with looked_at(loop.device):
        pods.unpublish(pod)
        assert pods.made() == []


def test_the_limit_counts_those_from_before_a_restart(pods: InlinePods, driver: Driver) -> None:
    for _ in range(MAX_VOLUMES):
        pods.publish(pods.pod(), {"size": "16Mi"})
    driver.restart()

    with refused(Code.RESOURCE_EXHAUSTED, str(MAX_VOLUMES)):
        pods.publish(pods.pod(), {"size": "16Mi"})


def test_the_limit_holds_for_pods_that_start_together(pods: InlinePods) -> None:
    def publish(pod: Pod) -> Code:
        try:
            pods.publish(pod, {"size": "16Mi"})
        except grpc.RpcError as error:
            return as_call(error).code()
        return Code.OK

    started = [pods.pod() for _ in range(4 * MAX_VOLUMES)]
    with ThreadPoolExecutor(len(started)) as threads:
        codes = list(threads.map(publish, started))

    assert codes.count(Code.OK) == MAX_VOLUMES
    assert set(codes) == {Code.OK, Code.RESOURCE_EXHAUSTED}
    assert len(pods.made()) == MAX_VOLUMES


def test_a_volume_goes_when_its_pod_is_gone(pods: InlinePods) -> None:
    """As after a reboot: nothing is mounted any more, and the kubelet has forgotten the pod."""
    pod, other = pods.pod(), pods.pod()
    run("umount", str(pods.publish(pod)))
    write_synced(pods.publish(other) / "file", b"kept")
    shutil.rmtree(pod.folder)

    wait_until(lambda: len(pods.made()) == 1, "that the volume of the dead pod was deleted")

    wait_for_empty_trash(pods.pool)
    assert (other.target / "file").read_bytes() == b"kept"


def test_a_volume_stays_while_the_kubelet_knows_its_pod(pods: InlinePods) -> None:
    """It is not mounted yet again after the reboot, but the pod is to start again."""
    pod, dead = pods.pod(), pods.pod()
    write_synced(pods.publish(pod) / "file", b"kept")
    run("umount", str(pod.target))
    run("umount", str(pods.publish(dead)))
    shutil.rmtree(dead.folder)

    wait_until(lambda: len(pods.made()) == 1, "that the volume of the dead pod was deleted")

    assert (pods.publish(pod) / "file").read_bytes() == b"kept"


def test_a_mounted_volume_is_never_swept(pods: InlinePods, tmp_path: Path) -> None:
    """Somebody may still be using what is mounted, whatever the kubelet's folders say."""
    pod = pods.pod()
    target = pods.publish(pod)
    write_synced(target / "file", b"in use")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    run("mount", "--bind", str(target), str(elsewhere))
    try:
        run("umount", str(target))
        shutil.rmtree(pod.folder)
        dead = pods.pod()
        run("umount", str(pods.publish(dead)))
        shutil.rmtree(dead.folder)

        wait_until(lambda: len(pods.made()) == 1, "that the volume of the dead pod was deleted")

        assert (elsewhere / "file").read_bytes() == b"in use"
    finally:
        run("umount", str(elsewhere))
    wait_until(lambda: not pods.made(), "that it was deleted once nobody had it any more")
