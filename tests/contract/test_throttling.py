"""Limits in force: measured in processes of pods, changed while they run, gone in the end."""

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from csi.v1 import csi_pb2 as pb
from tests.contract import requests
from tests.contract.bench import Bench, wait_until
from tests.contract.node_fixtures import image_of, loops_over, run
from tests.contract.pods import Pods, pods_of
from tests.contract.refusals import Code, refused
from tests.contract.requests import MIB, filesystem, raw_block
from tests.pod_cgroups import PodGroup, Worker, pod_group

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

TOO_FAST = 1.15
"""What the kernel lets through in the first moment counts here, since little is written."""
TOO_SLOW = 0.3
"""The machine may have other things to do."""
LIFTED_TIMEOUT_S = 90.0


class Pod(NamedTuple):
    """A pod with its group; its containers are made by the tests."""

    uid: str
    group: PodGroup
    pods: Pods
    bench: Bench

    def use(self, volume_id: str, capability: pb.VolumeCapability | None = None) -> Path:
        """Gives the pod a volume; returns where it has it."""
        kubelet = self.bench.kubelet
        block = capability is not None and capability.HasField("block")
        place = kubelet.block_target_path if block else kubelet.target_path
        staging = self.pods.stage(volume_id, capability)
        return self.pods.publish(volume_id, staging, capability, target=place(volume_id, self.uid))

    def rules(self, group: Path, volume_id: str) -> dict[str, str]:
        """The rules of a group for the device of a volume."""
        return self.group.rules(group, device_of(self.bench, volume_id))

    def is_limited(self, group: Path, volume_id: str) -> bool:
        """Whether a group has a rule for the device of a volume."""
        return bool(self.rules(group, volume_id))


@pytest.fixture
def pod(bench: Bench) -> Iterator[Pod]:
    uid = str(uuid.uuid4())
    for pods in pods_of(bench):
        with pod_group(uid, "throttling") as group:
            yield Pod(uid, group, pods, bench)


@pytest.fixture
def systemd_pod(bench: Bench) -> Iterator[Pod]:
    """A pod on a node whose kubelet has systemd make the groups."""
    uid = str(uuid.uuid4())
    for pods in pods_of(bench):
        with pod_group(uid, "systemd", systemd=True) as group:
            yield Pod(uid, group, pods, bench)


def create(bench: Bench, limits: Mapping[str, str], **more: pb.VolumeCapability) -> str:
    request = requests.create_volume(bench.name(), size=256 * MIB)
    for capability in more.values():
        request.volume_capabilities[0].CopyFrom(capability)
    request.mutable_parameters.update(limits)
    return bench.send_create(request).volume_id


def modify(bench: Bench, volume_id: str, **limits: str) -> None:
    bench.driver.controller.ControllerModifyVolume(requests.modify(volume_id, limits))


def device_of(bench: Bench, volume_id: str) -> str:
    (loop,) = loops_over(image_of(bench.pool, volume_id))
    number = os.stat(loop.device).st_rdev
    return f"{os.major(number)}:{os.minor(number)}"


def expect_rate(measure: Callable[[], float], amount: float, limit: float) -> None:
    """Holds what was done in a second to a limit: strictly from above, loosely from below."""
    rate = amount / measure()
    assert limit * TOO_SLOW < rate < limit * TOO_FAST, f"{rate:.1f} a second, {limit} asked"


@pytest.mark.parametrize("flags", [os.O_DIRECT, os.O_SYNC], ids=["direct", "synced"])
def test_writes_obey_and_follow_a_change_while_they_run(bench: Bench, pod: Pod, flags: int) -> None:
    volume_id = create(bench, {"writeBandwidth": "20Mi"})
    file = pod.use(volume_id) / "file"
    app = pod.group.container("app")
    with Worker(app) as worker:
        wait_until(lambda: pod.is_limited(app, volume_id), "the first limit")
        expect_rate(lambda: worker.write(file, 40, MIB, flags=flags), 40, 20)

        modify(bench, volume_id, writeBandwidth="5Mi")
        expect_rate(lambda: worker.write(file, 15, MIB, flags=flags), 15, 5)

        modify(bench, volume_id, writeBandwidth="max")
        # The machine may be slow for a moment, yet not for ever as with a limit.
        wait_until(
            lambda: 20 / worker.write(file, 20, MIB, flags=flags) > 5 * TOO_FAST,
            "that writing became faster than the limit that was lifted",
            LIFTED_TIMEOUT_S,
        )


def test_reads_obey(bench: Bench, pod: Pod) -> None:
    volume_id = create(bench, {})
    file = pod.use(volume_id) / "file"
    with Worker(pod.group.container("app")) as worker:
        worker.write(file, 40, MIB)
        modify(bench, volume_id, readBandwidth="20Mi")
        expect_rate(lambda: worker.read(file, 40, MIB), 40, 20)


def test_operations_obey_on_a_raw_block_device(bench: Bench, pod: Pod) -> None:
    volume_id = create(bench, {"writeIOPS": "50", "readIOPS": "100"}, capability=raw_block())
    device = pod.use(volume_id, raw_block())
    app = pod.group.container("app")
    with Worker(app) as worker:
        wait_until(lambda: pod.is_limited(app, volume_id), "the limits")
        expect_rate(lambda: worker.write(device, 150, 4096), 150, 50)
        expect_rate(lambda: worker.read(device, 300, 4096), 300, 100)


def test_groups_that_systemd_makes_are_found_too(bench: Bench, systemd_pod: Pod) -> None:
    volume_id = create(bench, {"writeBandwidth": "20Mi"})
    file = systemd_pod.use(volume_id) / "file"
    app = systemd_pod.group.container("cri-containerd-0123456789abcdef.scope")
    with Worker(app) as worker:
        wait_until(lambda: systemd_pod.is_limited(app, volume_id), "the limit")
        expect_rate(lambda: worker.write(file, 40, MIB), 40, 20)


def test_one_volume_of_a_pod_is_limited_and_the_other_not(bench: Bench, pod: Pod) -> None:
    slow, fast = create(bench, {"writeBandwidth": "2Mi"}), create(bench, {})
    app = pod.group.container("app")
    pod.use(slow)
    pod.use(fast)
    wait_until(lambda: pod.is_limited(app, slow), "the limit")
    assert pod.rules(app, fast) == {}


def test_containers_that_start_later_are_limited_too(bench: Bench, pod: Pod) -> None:
    volume_id = create(bench, {"writeIOPS": "100"})
    pod.use(volume_id)
    for name in ("init", "app", "app-again"):
        group = pod.group.container(name)
        wait_until(partial(pod.is_limited, group, volume_id), f"the limit of {name}")


def test_limits_are_in_force_again_after_a_restart(bench: Bench, pod: Pod) -> None:
    volume_id = create(bench, {"writeIOPS": "100"})
    pod.use(volume_id)
    app = pod.group.container("app")
    wait_until(lambda: pod.is_limited(app, volume_id), "the limit")
    before = pod.rules(app, volume_id)

    bench.driver.kill()
    late = pod.group.container("late")
    bench.driver.start()

    wait_until(lambda: pod.rules(late, volume_id) == before, "the limit after the restart")
    modify(bench, volume_id, writeIOPS="0")
    assert pod.rules(app, volume_id) == {}
    assert pod.rules(late, volume_id) == {}


def test_a_pod_that_lets_go_keeps_no_rule(bench: Bench, pod: Pod) -> None:
    """The number of the device is given to another volume next."""
    volume_id = create(bench, {"writeIOPS": "100"})
    target = pod.use(volume_id)
    app = pod.group.container("app")
    wait_until(lambda: pod.is_limited(app, volume_id), "the limit")
    device = device_of(bench, volume_id)

    pod.pods.unpublish(volume_id, target)

    assert pod.group.rules(app, device) == {}
    assert pod.group.rules(pod.group.path, device) == {}


def test_a_volume_that_was_unmounted_by_hand_leaves_no_rule(bench: Bench, pod: Pod) -> None:
    volume_id = create(bench, {"writeIOPS": "100"})
    target = pod.use(volume_id)
    app = pod.group.container("app")
    wait_until(lambda: pod.is_limited(app, volume_id), "the limit")
    device = device_of(bench, volume_id)

    run("umount", str(target))
    pod.pods.unpublish(volume_id, target)
    pod.pods.unstage(volume_id, bench.kubelet.staging_path(volume_id))

    assert pod.group.rules(app, device) == {}


def test_two_pods_are_limited_each(bench: Bench, pod: Pod) -> None:
    volume_id = create(bench, {"writeIOPS": "100"})
    pod.use(volume_id)
    other = str(uuid.uuid4())
    with pod_group(other, "other") as group:
        target = bench.kubelet.target_path(volume_id, other)
        pod.pods.publish(volume_id, bench.kubelet.staging_path(volume_id), target=target)
        app, its = pod.group.container("app"), group.container("app")
        device = device_of(bench, volume_id)
        wait_until(lambda: pod.is_limited(app, volume_id), "the limit of the first")
        wait_until(lambda: bool(group.rules(its, device)), "the limit of the second")

        pod.pods.unpublish(volume_id, target)

        assert group.rules(its, device) == {}
        assert pod.is_limited(app, volume_id)


def test_a_pod_without_a_group_starts_all_the_same(bench: Bench) -> None:
    """The kubelet may mount a pod's volumes before it makes the pod's group."""
    volume_id = create(bench, {"writeIOPS": "100"})
    for pods in pods_of(bench):
        target = pods.publish(volume_id, pods.stage(volume_id))
        (target / "file").write_bytes(b"x")
        found = bench.driver.controller.ControllerGetVolume(requests.get_volume(volume_id))
        assert not found.status.volume_condition.abnormal


def test_clones_begin_without_limits(bench: Bench, pod: Pod) -> None:
    source = create(bench, {"writeIOPS": "100"})
    clone = bench.create(size=256 * MIB, source=requests.from_volume(source)).volume_id
    app = pod.group.container("app")
    pod.use(source)
    pod.use(clone, filesystem())
    wait_until(lambda: pod.is_limited(app, source), "the limit")
    assert pod.rules(app, clone) == {}


@contextlib.contextmanager
def unwritable(rules: Path, folder: Path) -> Iterator[None]:
    """Puts a file that takes no writes where the kernel takes rules."""
    stand_in = folder / "rules"
    stand_in.touch()
    run("mount", "--bind", "-o", "ro", str(stand_in), str(rules))
    try:
        yield
    finally:
        run("umount", str(rules))


def condition(bench: Bench, volume_id: str) -> pb.VolumeCondition:
    found = bench.driver.controller.ControllerGetVolume(requests.get_volume(volume_id))
    return found.status.volume_condition


def test_what_the_kernel_refuses_is_said_and_tried_again(
    bench: Bench, pod: Pod, tmp_path: Path
) -> None:
    volume_id = create(bench, {})
    pod.use(volume_id)
    app = pod.group.container("app")
    with unwritable(pod.group.rule_file(app, "write_iops"), tmp_path):
        with refused(Code.UNAVAILABLE, volume_id, pod.uid, "Read-only file system"):
            modify(bench, volume_id, writeIOPS="100")
        assert condition(bench, volume_id).abnormal
        assert "limits" in condition(bench, volume_id).message
    wait_until(lambda: pod.is_limited(app, volume_id), "the limit, once it could be set")
    wait_until(lambda: not condition(bench, volume_id).abnormal, "the condition to be well again")


def test_a_pod_that_cannot_be_limited_does_not_start(
    bench: Bench, pod: Pod, tmp_path: Path
) -> None:
    volume_id = create(bench, {"writeIOPS": "100"})
    app = pod.group.container("app")
    with (
        unwritable(pod.group.rule_file(app, "write_iops"), tmp_path),
        refused(Code.UNAVAILABLE, volume_id, pod.uid),
    ):
        pod.use(volume_id)
    target = pod.use(volume_id)
    assert pod.rules(app, volume_id)
    pod.pods.unpublish(volume_id, target)
