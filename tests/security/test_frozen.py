"""Filesystems that a pod, or a backup, has frozen: no call hangs, and none is stuck afterwards.

A privileged pod may freeze what it mounts, and so may a hook of a backup; either may forget to
thaw. A writer is then held by the kernel, beyond the reach of signals.
"""

import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tests.driver
from csi.linux import bounded, loop
from csi.linux.growth import grow_mounted
from csi.pool import pool as pool_module
from csi.v1 import csi_pb2 as pb
from tests.contract import requests
from tests.contract.bench import Bench, wait_until, write_synced
from tests.contract.command import hurried
from tests.contract.freezing import freeze, frozen, thaw
from tests.contract.node_fixtures import (
    image_of,
    loops_over,
    mounts_at,
    no_loop_over,
    run,
    the_mount_at,
)
from tests.contract.pods import Pods, pods_of
from tests.contract.refusals import Code, refused
from tests.contract.requests import GIB, LEAST_BYTES, MIB, filesystem, raw_block
from tests.disks import mounted_filesystem, opened
from tests.driver import create_pool, running_driver
from tests.kubelet import Kubelet

pytestmark = pytest.mark.kernel

PROMPT_S = 3.0
GROWTH = 128 * MIB  # to what btrfs can be grown to at least
ONLINE = ["xfs", "btrfs"]
"""What this kernel grows while it is mounted; ext4 wants a capability that not every root has."""


@pytest.fixture(scope="module")
def module_bench(xfs_pool: Path, folder: Path) -> Iterator[Bench]:
    """A bench whose driver loses patience with a frozen filesystem sooner."""
    own = folder / "impatient"
    own.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tests.driver, "COMMAND", hurried("_WRITABLE_S", 0.5, bounded))
        with running_driver(xfs_pool, own) as driver:
            yield Bench(driver, Kubelet(own / "kubelet"), xfs_pool)


@pytest.fixture
def bench(module_bench: Bench) -> Iterator[Bench]:
    yield module_bench
    module_bench.clean_up()


@pytest.fixture
def pods(bench: Bench) -> Iterator[Pods]:
    yield from pods_of(bench)


def prompt(call: Callable[[], object]) -> None:
    started = time.monotonic()
    call()
    assert time.monotonic() - started < PROMPT_S, "it took too long"


class TestGrowth:
    @pytest.mark.parametrize("fs_type", ONLINE)
    def test_of_a_frozen_filesystem_is_refused_until_it_is_thawed(
        self, bench: Bench, fs_type: str
    ) -> None:
        size = LEAST_BYTES[fs_type]
        volume_id = bench.create(size=size, capability=filesystem(fs_type)).volume_id
        target = bench.use(volume_id, filesystem(fs_type))
        request = requests.node_expand(volume_id, target, size + GROWTH, filesystem(fs_type))

        def refuse() -> None:
            with refused(Code.UNAVAILABLE, volume_id, "frozen", "fsfreeze"):
                bench.driver.node.NodeExpandVolume(request, timeout=20)

        def total() -> int:
            answer = bench.driver.node.NodeGetVolumeStats(requests.stats(volume_id, target))
            return int(answer.usage[0].total)

        before = total()
        with frozen(target):
            prompt(refuse)
            # The lock was given back, and no second child waits beside the first.
            for _ in range(3):
                prompt(refuse)
            assert thaw(target), "the driver thawed what it had not frozen"

        assert bench.driver.node.NodeExpandVolume(request).capacity_bytes == size + GROWTH
        assert total() >= before + GROWTH - 4 * MIB
        write_synced(target / "file", b"still there")

    @pytest.mark.parametrize("fs_type", ONLINE)
    def test_at_staging(self, bench: Bench, pods: Pods, fs_type: str) -> None:
        """Grown by the controller, frozen, unmounted by hand: it is thawed and grown."""
        size = LEAST_BYTES[fs_type]
        volume_id = bench.create(size=size, capability=filesystem(fs_type)).volume_id
        staging = pods.stage(volume_id, filesystem(fs_type))
        freeze(staging)
        run("umount", str(staging))
        assert loops_over(image_of(bench.pool, volume_id)), "a frozen one keeps its device"
        bench.driver.controller.ControllerExpandVolume(
            requests.controller_expand(volume_id, size + GROWTH)
        )

        prompt(lambda: pods.stage(volume_id, filesystem(fs_type), staging))

        assert not thaw(staging), "it was left frozen, and its pods would hang"
        pods.unstage(volume_id, staging)


@pytest.mark.parametrize("fs_type", sorted(LEAST_BYTES))
class TestEverythingElse:
    def test_takes_no_notice(self, bench: Bench, pods: Pods, fs_type: str) -> None:
        capability = filesystem(fs_type)
        volume_id = bench.create(size=LEAST_BYTES[fs_type], capability=capability).volume_id
        staging = pods.stage(volume_id, capability)
        first = pods.publish(volume_id, staging, capability)
        node, controller = bench.driver.node, bench.driver.controller
        with frozen(staging):
            stats = functools.partial(node.NodeGetVolumeStats, requests.stats(volume_id, first))
            prompt(stats)
            prompt(lambda: controller.ControllerGetVolume(requests.get_volume(volume_id)))
            prompt(lambda: pods.stage(volume_id, capability, staging))
            second = pods.publish(volume_id, staging, capability)
            prompt(lambda: pods.unpublish(volume_id, second))
            with refused(Code.FAILED_PRECONDITION, volume_id):
                controller.DeleteVolume(requests.delete_volume(volume_id), timeout=PROMPT_S)
            snapshot = bench.snapshot(volume_id)
            assert snapshot.ready_to_use
            assert thaw(staging), "the driver thawed what it had not frozen"

    def test_a_volume_that_was_left_frozen_can_be_let_go_of(
        self, bench: Bench, pods: Pods, fs_type: str
    ) -> None:
        """Its pod is gone; unmounted frozen, nobody could ever thaw it or free its device."""
        capability = filesystem(fs_type)
        volume_id = bench.create(size=LEAST_BYTES[fs_type], capability=capability).volume_id
        staging = pods.stage(volume_id, capability)
        target = pods.publish(volume_id, staging, capability)
        write_synced(target / "file", b"kept")
        freeze(target)
        prompt(lambda: pods.unpublish(volume_id, target))
        assert thaw(staging), "it is still staged, and was not to be thawed"
        freeze(staging)
        prompt(lambda: pods.unstage(volume_id, staging))
        assert not mounts_at(staging)
        assert no_loop_over(image_of(bench.pool, volume_id))
        with bench.used(volume_id, capability) as again:
            assert (again / "file").read_bytes() == b"kept"
            write_synced(again / "file", b"and writable")


class TestThePool:
    def test_that_is_frozen_is_told_and_nobody_waits_for_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By a privileged pod with a directory volume, or by a backup of the whole machine."""
        program = hurried("_TRY_WRITING_EVERY_S", 0.2)
        program[2] = f"import {pool_module.__name__} as p; p.SILENT_S = 0.5; " + program[2]
        monkeypatch.setattr(tests.driver, "COMMAND", program)
        with mounted_filesystem("xfs", tmp_path, 2 * GIB) as path:
            create_pool(path)
            with running_driver(path, tmp_path) as driver:
                bench = Bench(driver, Kubelet(tmp_path / "kubelet"), path)
                volume_id = bench.create(size=MIB, capability=raw_block()).volume_id
                snapshot_id = bench.snapshot(volume_id).snapshot_id

                def condition() -> str:
                    answer = driver.controller.ControllerGetVolume(requests.get_volume(volume_id))
                    return str(answer.status.volume_condition.message)

                with frozen(path):
                    wait_until(lambda: "frozen" in condition(), "that it is told")
                    staging = bench.kubelet.block_staging_path(volume_id)
                    growth = requests.controller_expand(volume_id, 2 * MIB)
                    calls: list[Callable[[], object]] = [
                        lambda: driver.controller.CreateVolume(
                            requests.create_volume("more", size=MIB, capabilities=[raw_block()])
                        ),
                        lambda: driver.controller.DeleteVolume(requests.delete_volume(volume_id)),
                        lambda: bench.snapshot(volume_id),
                        lambda: driver.controller.DeleteSnapshot(
                            requests.delete_snapshot(snapshot_id)
                        ),
                        lambda: driver.controller.ControllerExpandVolume(growth),
                        lambda: bench.group(volume_id),
                        lambda: driver.node.NodeStageVolume(
                            requests.stage(volume_id, staging, raw_block())
                        ),
                    ]
                    for call in calls:
                        with refused(Code.UNAVAILABLE, str(path), "frozen", "fsfreeze"):
                            prompt(call)
                    assert driver.identity.Probe(pb.ProbeRequest()).ready.value
                wait_until(lambda: "in order" in condition(), "that it is well again")
                bench.clean_up()


def test_it_is_the_child_that_is_held(tmp_path: Path) -> None:
    """The kernel holds whoever grows a frozen filesystem: without the child, this process."""
    with mounted_filesystem("xfs", tmp_path, 300 * MIB) as path:
        device = the_mount_at(path).source
        image = next(tmp_path.glob("xfs-*/disk.img"))
        with image.open("r+b") as file:
            file.truncate(364 * MIB)
        loop.refresh_size(device)
        with frozen(path), opened(path, 0) as root, pytest.MonkeyPatch.context() as patch:
            patch.setattr(bounded, "_WRITABLE_S", 0.3)
            with pytest.raises(bounded.FilesystemHeld):
                grow_mounted("xfs", root, 364 * MIB)
            held = [child for child in bounded._held.values() if child.poll() is None]
            assert len(held) == 1
            state = Path(f"/proc/{held[0].pid}/stat").read_text().rpartition(")")[2].split()[0]
            assert state == "D", "the child waits where no signal reaches"
        held[0].wait(10)
