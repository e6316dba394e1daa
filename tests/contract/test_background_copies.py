"""Copies on a pool that cannot share blocks: in the background, of a source that is at rest.

To catch a copy half-way, a test freezes the filesystem of the pool: the copy stops in the middle
of a write, and the driver goes on answering.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from csi.v1 import csi_pb2 as pb
from tests.contract import requests
from tests.contract.bench import Bench, wait_until, write_synced
from tests.contract.freezing import frozen
from tests.contract.refusals import Code, refused
from tests.contract.requests import (
    LEAST_BYTES,
    MIB,
    filesystem,
    from_snapshot,
    from_volume,
    raw_block,
)

pytestmark = pytest.mark.kernel

SIZE = 128 * MIB
DATA = b"sixteen bytes .\n" * (80 * MIB // 16)
"""Enough that its copy takes a while."""
LITTLE = b"little data"


def make_source(bench: Bench, data: bytes = DATA, size: int = SIZE, fs_type: str = "ext4") -> str:
    """A volume at rest with data in it."""
    volume_id = bench.create(size=size, capability=filesystem(fs_type)).volume_id
    with bench.used(volume_id, filesystem(fs_type)) as target:
        write_synced(target / "file", data)
    return volume_id


def contents(bench: Bench, volume_id: str, fs_type: str = "ext4") -> bytes:
    """What a copy holds once it is whole."""
    with bench.used(volume_id, filesystem(fs_type)) as target:
        return (target / "file").read_bytes()


def is_ready(bench: Bench, snapshot_id: str) -> bool:
    answer = bench.driver.controller.GetSnapshot(requests.get_snapshot(snapshot_id))
    return answer.snapshot.ready_to_use


@contextlib.contextmanager
def half_copied_snapshot(bench: Bench, volume_id: str, name: str) -> Iterator[pb.Snapshot]:
    """Takes a snapshot whose copy stops half-way, and goes on after the body of the `with`."""
    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(bench.snapshot, volume_id, name)
        wait_until(lambda: bool(_bytes_copied(bench)), "the first part of the copy")
        with frozen(bench.pool):
            yield answer.result(10)


def _bytes_copied(bench: Bench) -> int:
    partial = (bench.pool / "snapshots").glob("*/disk.img.partial")
    return sum(path.stat().st_blocks for path in partial)


class TestSnapshots:
    """Not ready at first, found by the repeat, and ready in the end."""

    def test_a_snapshot_becomes_ready_when_it_is_whole(self, ext4_bench: Bench) -> None:
        source_id, name = make_source(ext4_bench), ext4_bench.name("snapshot")
        controller = ext4_bench.driver.controller

        with half_copied_snapshot(ext4_bench, source_id, name) as snapshot:
            assert snapshot.ready_to_use is False
            assert ext4_bench.snapshot(source_id, name) == snapshot
            request = requests.get_snapshot(snapshot.snapshot_id)
            assert controller.GetSnapshot(request).snapshot == snapshot
            listed = controller.ListSnapshots(requests.list_snapshots()).entries
            assert [entry.snapshot for entry in listed] == [snapshot]

        wait_until(lambda: is_ready(ext4_bench, snapshot.snapshot_id), "a snapshot to be ready")
        ready = ext4_bench.snapshot(source_id, name)
        assert ready.creation_time == snapshot.creation_time
        assert ready.snapshot_id == snapshot.snapshot_id
        restored = ext4_bench.create(size=SIZE, source=from_snapshot(snapshot.snapshot_id))
        assert contents(ext4_bench, restored.volume_id) == DATA

    def test_the_source_is_locked_meanwhile(self, ext4_bench: Bench) -> None:
        source_id = make_source(ext4_bench)
        staging = ext4_bench.kubelet.staging_path(source_id)
        driver = ext4_bench.driver

        with half_copied_snapshot(ext4_bench, source_id, ext4_bench.name("snapshot")):
            with refused(Code.ABORTED, source_id):
                driver.node.NodeStageVolume(requests.stage(source_id, staging))
            with refused(Code.ABORTED, source_id):
                ext4_bench.delete(source_id)
            with refused(Code.ABORTED, source_id):
                driver.controller.ControllerExpandVolume(
                    requests.controller_expand(source_id, 2 * SIZE)
                )

    def test_half_a_snapshot_cannot_be_restored(self, ext4_bench: Bench) -> None:
        source_id = make_source(ext4_bench)

        with (
            half_copied_snapshot(ext4_bench, source_id, ext4_bench.name("snapshot")) as snapshot,
            refused(Code.ABORTED, snapshot.snapshot_id),
        ):
            ext4_bench.create(size=SIZE, source=from_snapshot(snapshot.snapshot_id))

    def test_half_a_snapshot_can_be_deleted(self, ext4_bench: Bench) -> None:
        source_id = make_source(ext4_bench)

        with half_copied_snapshot(ext4_bench, source_id, ext4_bench.name("snapshot")) as snapshot:
            pass
        ext4_bench.delete_snapshot(snapshot.snapshot_id)

        assert list((ext4_bench.pool / "snapshots").iterdir()) == []
        ext4_bench.delete(source_id)  # and its source is free again

    def test_a_snapshot_outlives_its_volume(self, ext4_bench: Bench) -> None:
        source_id = make_source(ext4_bench, LITTLE)
        snapshot = ext4_bench.snapshot(source_id)
        assert snapshot.ready_to_use is True
        ext4_bench.delete(source_id)

        restored = ext4_bench.create(size=SIZE, source=from_snapshot(snapshot.snapshot_id))

        assert contents(ext4_bench, restored.volume_id) == LITTLE

    def test_half_a_snapshot_goes_on_after_a_kill(self, ext4_bench: Bench) -> None:
        source_id = make_source(ext4_bench)
        with ThreadPoolExecutor(1) as thread:
            name = ext4_bench.name("snapshot")
            answer = thread.submit(_cut_off, lambda: ext4_bench.snapshot(source_id, name))
            wait_until(lambda: bool(_bytes_copied(ext4_bench)), "the first part of the copy")
            ext4_bench.driver.kill()
            answer.result(10)
        assert _bytes_copied(ext4_bench), "the copy was whole before the driver was killed"
        ext4_bench.driver.start()

        snapshot_id = ext4_bench.snapshot(source_id, name).snapshot_id
        wait_until(lambda: is_ready(ext4_bench, snapshot_id), "the snapshot to be ready")
        restored = ext4_bench.create(size=SIZE, source=from_snapshot(snapshot_id))
        assert contents(ext4_bench, restored.volume_id) == DATA


class TestVolumes:
    """Clones and restores: there at once, and staged when they are whole."""

    def test_a_clone_cannot_be_used_before_it_is_whole(self, ext4_bench: Bench) -> None:
        source_id = make_source(ext4_bench)
        request = requests.create_volume(
            ext4_bench.name(), size=SIZE, source=from_volume(source_id)
        )
        driver = ext4_bench.driver

        clone = ext4_bench.send_create(request)
        clone_id = clone.volume_id
        with frozen(ext4_bench.pool):
            assert ext4_bench.send_create(request) == clone
            staging = ext4_bench.kubelet.staging_path(clone_id)
            with refused(Code.ABORTED, clone_id):
                driver.node.NodeStageVolume(requests.stage(clone_id, staging))
            with refused(Code.ABORTED, clone_id):
                ext4_bench.snapshot(clone_id)
            with refused(Code.ABORTED, clone_id):
                ext4_bench.create(size=SIZE, source=from_volume(clone_id))
            with refused(Code.ABORTED, clone_id):
                driver.controller.ControllerExpandVolume(
                    requests.controller_expand(clone_id, 2 * SIZE)
                )
            with refused(Code.ABORTED, source_id):
                ext4_bench.delete(source_id)

        assert contents(ext4_bench, clone_id) == DATA

    @pytest.mark.parametrize("fs_type", ["ext4", "xfs", "btrfs"])
    def test_a_larger_restore_is_equal_and_grows(self, ext4_bench: Bench, fs_type: str) -> None:
        small, large = LEAST_BYTES[fs_type], LEAST_BYTES[fs_type] + 256 * MIB
        source_id = make_source(ext4_bench, LITTLE, small, fs_type)
        snapshot = ext4_bench.snapshot(source_id)

        volume = ext4_bench.create(
            size=large,
            capability=filesystem(fs_type),
            source=from_snapshot(snapshot.snapshot_id),
        )

        assert volume.capacity_bytes == large
        assert contents(ext4_bench, volume.volume_id, fs_type) == LITTLE
        with (
            ext4_bench.used(source_id, filesystem(fs_type)) as source,
            ext4_bench.used(volume.volume_id, filesystem(fs_type)) as copy,
        ):
            assert _blocks_bytes(copy) > _blocks_bytes(source) + 200 * MIB
            write_synced(copy / "file", b"changed")
            assert (source / "file").read_bytes() == LITTLE

    def test_holes_stay_holes(self, ext4_bench: Bench) -> None:
        source_id = make_source(ext4_bench, LITTLE, 1024 * MIB)

        clone_id = ext4_bench.create(size=1024 * MIB, source=from_volume(source_id)).volume_id

        assert contents(ext4_bench, clone_id) == LITTLE
        image = ext4_bench.entry(clone_id) / "disk.img"
        assert image.stat().st_blocks * 512 < 64 * MIB

    def test_a_clone_deleted_before_it_is_whole_is_gone(self, ext4_bench: Bench) -> None:
        source_id = make_source(ext4_bench)

        clone_id = ext4_bench.create(size=SIZE, source=from_volume(source_id)).volume_id
        ext4_bench.delete(clone_id)

        assert not ext4_bench.entry(clone_id).exists()
        ext4_bench.delete(source_id)

    def test_a_clone_goes_on_after_a_kill(self, ext4_bench: Bench) -> None:
        source_id = make_source(ext4_bench)
        request = requests.create_volume(
            ext4_bench.name(), size=SIZE, source=from_volume(source_id)
        )
        clone = ext4_bench.send_create(request)
        ext4_bench.driver.kill()
        image = ext4_bench.entry(clone.volume_id) / "disk.img"
        assert not image.exists(), "the copy was whole before the driver was killed"

        ext4_bench.driver.start()

        assert ext4_bench.send_create(request) == clone
        assert contents(ext4_bench, clone.volume_id) == DATA


class TestSourcesInUse:
    """No moment can be had of them, unless the class asks to hold them still."""

    @pytest.mark.parametrize("access", ["mount", "block"])
    def test_they_are_refused_with_what_to_do(self, ext4_bench: Bench, access: str) -> None:
        capability = filesystem() if access == "mount" else raw_block()
        source_id = ext4_bench.create(capability=capability).volume_id
        ext4_bench.use(source_id, capability)
        help_ = ("stop its pods", "xfs", "btrfs", "frozenCopySeconds")

        with refused(Code.FAILED_PRECONDITION, source_id, *help_):
            ext4_bench.snapshot(source_id)
        with refused(Code.FAILED_PRECONDITION, source_id, *help_[:3]):
            ext4_bench.create(capability=capability, source=from_volume(source_id))

    def test_a_source_is_copied_once_its_pods_have_stopped(self, ext4_bench: Bench) -> None:
        source_id, name = make_source(ext4_bench, LITTLE), ext4_bench.name("snapshot")
        ext4_bench.use(source_id)
        with refused(Code.FAILED_PRECONDITION, source_id):
            ext4_bench.snapshot(source_id, name)

        ext4_bench.release(source_id)

        assert ext4_bench.snapshot(source_id, name).ready_to_use is True


def _blocks_bytes(path: Path) -> int:
    status = os.statvfs(path)
    return status.f_blocks * status.f_frsize


def _cut_off(call: Callable[[], object]) -> None:
    """Makes a call that the end of the driver cuts off."""
    with contextlib.suppress(grpc.RpcError):
        call()
