"""Many calls at once: one at a time for a volume, and nobody waits for another's volume."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from csi.v1 import csi_pb2 as pb
from tests.contract import requests
from tests.contract.bench import Bench, wait_until, write_synced
from tests.contract.node_fixtures import (
    frozen,
    image_of,
    loops_over,
    mounts_at,
    no_loop_over,
    the_mount_at,
)
from tests.contract.pods import Pods, pods_of
from tests.contract.refusals import Code, as_call, refused
from tests.contract.requests import LEAST_BYTES, MIB, filesystem, raw_block

pytestmark = pytest.mark.kernel

XFS = filesystem("xfs")
PROMPT_S = 5.0
"""What a call may take that waits for nobody, on a machine that is busy."""


@pytest.fixture
def pods(bench: Bench) -> Iterator[Pods]:
    yield from pods_of(bench)


def together(calls: Sequence[Callable[[], object]]) -> list[Code]:
    """Makes calls at the same instant and returns their codes."""
    gate = threading.Barrier(len(calls))

    def one(call: Callable[[], object]) -> Code:
        gate.wait()
        try:
            call()
        except grpc.RpcError as error:
            return as_call(error).code()
        return Code.OK

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(one, calls))


def only_ok_or_aborted(codes: Sequence[Code]) -> None:
    counted = Counter(codes)
    assert set(counted) <= {Code.OK, Code.ABORTED}, counted
    assert counted[Code.OK], counted


def test_a_volume_created_by_many_is_one_volume(bench: Bench) -> None:
    name = bench.name()

    only_ok_or_aborted(together([lambda: bench.create(name)] * 16))

    listed = bench.driver.controller.ListVolumes(requests.list_volumes()).entries
    assert len(listed) == 1
    assert bench.create(name).volume_id == listed[0].volume.volume_id


def test_a_volume_staged_by_many_is_mounted_once(pods: Pods, bench: Bench) -> None:
    volume_id = bench.create().volume_id

    only_ok_or_aborted(together([lambda: pods.stage(volume_id)] * 16))

    staging = pods.stage(volume_id)
    assert len(mounts_at(staging)) == 1
    assert len(loops_over(image_of(bench.pool, volume_id))) == 1


def test_a_volume_published_by_many_is_mounted_once_each(pods: Pods, bench: Bench) -> None:
    volume_id = bench.create().volume_id
    staging = pods.stage(volume_id)
    targets = [pods.target(volume_id) for _ in range(4)]

    def publish(number: int) -> Callable[[], object]:
        target = targets[number % len(targets)]
        return lambda: pods.publish(volume_id, staging, target=target)

    only_ok_or_aborted(together([publish(number) for number in range(16)]))

    for target in targets:
        pods.publish(volume_id, staging, target=target)
        assert len(mounts_at(target)) == 1


def test_stage_and_unstage_at_once_end_one_way_or_the_other(pods: Pods, bench: Bench) -> None:
    volume_id = bench.create().volume_id
    staging = pods.stage(volume_id)
    for _ in range(5):
        codes = together(
            [
                call
                for _ in range(6)
                for call in (
                    lambda: pods.stage(volume_id, path=staging),
                    lambda: pods.unstage(volume_id, staging),
                )
            ]
        )
        only_ok_or_aborted(codes)
        mounted = len(mounts_at(staging))
        assert mounted in (0, 1)
        if mounted:
            assert len(loops_over(image_of(bench.pool, volume_id))) == 1
        else:
            assert no_loop_over(image_of(bench.pool, volume_id))
    pods.stage(volume_id, path=staging)


def test_everything_at_once_ends_consistent(pods: Pods, bench: Bench) -> None:
    """Stage, publish, snapshot, clone, grow and delete one volume, all at the same instant."""
    capability = raw_block()
    volume_id = bench.create(size=4 * MIB, capability=capability).volume_id
    staging = pods.stage(volume_id, capability)
    target = pods.target(volume_id, capability)
    controller = bench.driver.controller

    codes = together(
        [
            lambda: pods.stage(volume_id, capability),
            lambda: pods.publish(volume_id, staging, capability, target=target),
            lambda: bench.snapshot(volume_id, "everything-snapshot"),
            lambda: bench.create(
                "everything-clone",
                size=4 * MIB,
                capability=capability,
                source=requests.from_volume(volume_id),
            ),
            lambda: controller.ControllerExpandVolume(
                requests.controller_expand(volume_id, 8 * MIB)
            ),
            lambda: controller.ControllerGetVolume(requests.get_volume(volume_id)),
        ]
        * 3
    )

    only_ok_or_aborted(codes)
    pods.publish(volume_id, staging, capability, target=target)
    answer = controller.ControllerExpandVolume(requests.controller_expand(volume_id, 8 * MIB))
    assert answer.capacity_bytes == 8 * MIB
    assert len(loops_over(image_of(bench.pool, volume_id))) == 1
    assert bench.snapshot(volume_id, "everything-snapshot").ready_to_use


def test_many_volumes_come_and_go_at_once(bench: Bench) -> None:
    def live(_: int) -> None:
        volume_id = bench.create(capability=filesystem()).volume_id
        with bench.used(volume_id) as target:
            write_synced(target / "file", b"own")
            assert (target / "file").read_bytes() == b"own"
        bench.delete(volume_id)

    with ThreadPoolExecutor(12) as threads:
        list(threads.map(live, range(24)))

    assert not bench.driver.controller.ListVolumes(requests.list_volumes()).entries


def test_a_volume_that_is_stuck_holds_up_nobody_else(bench: Bench) -> None:
    """Somebody has frozen its filesystem, and growing it waits until it is thawed."""
    size = LEAST_BYTES["xfs"]
    stuck = bench.create(size=size, capability=XFS).volume_id
    node, controller = bench.driver.node, bench.driver.controller
    with bench.used(stuck, XFS) as target:
        with frozen(target):
            waiting = node.NodeExpandVolume.future(
                requests.node_expand(stuck, target, size + 64 * MIB, XFS)
            )
            wait_until(lambda: _is_locked(bench, stuck), "that the volume is being worked on")

            started = time.monotonic()
            with bench.used(bench.create().volume_id) as other:
                write_synced(other / "file", b"not held up")
            assert time.monotonic() - started < PROMPT_S
            staging = bench.kubelet.staging_path(stuck)
            for call in (
                lambda: node.NodeStageVolume(requests.stage(stuck, staging, XFS)),
                lambda: node.NodeUnpublishVolume(requests.unpublish(stuck, target)),
                lambda: node.NodeUnstageVolume(requests.unstage(stuck, staging)),
                lambda: controller.DeleteVolume(requests.delete_volume(stuck)),
                lambda: bench.snapshot(stuck),
                lambda: controller.ControllerExpandVolume(
                    requests.controller_expand(stuck, 2 * size)
                ),
            ):
                with refused(Code.ABORTED, stuck, "under way"):
                    call()
            assert not waiting.done()
            # What only looks does not wait.
            controller.ControllerGetVolume(requests.get_volume(stuck))
            node.NodeGetVolumeStats(requests.stats(stuck, target))
        assert waiting.result(timeout=20).capacity_bytes == size + 64 * MIB
        assert the_mount_at(target).fs_type == "xfs"


def _is_locked(bench: Bench, volume_id: str) -> bool:
    try:
        bench.driver.controller.ControllerUnpublishVolume(requests.controller_unpublish(volume_id))
    except grpc.RpcError as error:
        return as_call(error).code() is Code.ABORTED
    return False


def test_a_hundred_stuck_calls_starve_neither_probe_nor_health(bench: Bench) -> None:
    """The whole pool hangs, and the sidecars go on asking until nothing more is taken."""
    calls = 200
    names = [bench.name() for _ in range(calls)]
    made = [requests.create_volume(n, size=MIB, capabilities=[raw_block()]) for n in names]
    with ThreadPoolExecutor(calls) as threads:
        with frozen(bench.pool):
            answers = [threads.submit(bench.send_create, request) for request in made]
            # Those beyond what is taken at once are told to come back.
            wait_until(
                lambda: sum(answer.done() for answer in answers) >= calls - 160,
                "that the surplus was refused",
            )
            for _ in range(5):
                started = time.monotonic()
                assert bench.driver.identity.Probe(pb.ProbeRequest(), timeout=3).ready.value
                health = health_pb2_grpc.HealthStub(bench.driver.channel)
                assert health.Check(health_pb2.HealthCheckRequest(), timeout=3).status == 1
                assert time.monotonic() - started < 1.0
            refusals = [as_call(_error(answer)) for answer in answers if answer.done()]
            assert {call.code() for call in refusals} == {Code.ABORTED}
            assert "calls" in (refusals[0].details() or "")
            stuck = [answer for answer in answers if not answer.done()]
            assert len(stuck) >= 100
        for answer in stuck:
            assert answer.result(timeout=60).capacity_bytes == MIB

    for name in names:
        assert bench.create(name, size=MIB, capability=raw_block()).capacity_bytes == MIB


def _error(answer: "Future[pb.Volume]") -> grpc.RpcError:
    error = answer.exception()
    assert isinstance(error, grpc.RpcError)
    return error
