"""Stopping while work is under way: what is finished, and what a hard end leaves behind."""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import psutil
import pytest

from csi.v1 import csi_pb2 as pb
from csi.v1 import csi_pb2_grpc
from tests.contract import requests
from tests.contract.bench import Bench, read_bytes, wait_until, write_synced
from tests.contract.node_fixtures import frozen, run, wait_for_empty_trash
from tests.contract.refusals import Code, refused
from tests.contract.requests import MIB, filesystem, from_snapshot, raw_block
from tests.driver import Driver, running_driver
from tests.kubelet import Kubelet

pytestmark = pytest.mark.kernel

COPIED_BYTES = 96 * MIB


@pytest.fixture
def bench(ext4_pool: Path, tmp_path: Path) -> Iterator[Bench]:
    with running_driver(ext4_pool, tmp_path) as driver:
        bench = Bench(driver, Kubelet(tmp_path / "kubelet"), ext4_pool)
        yield bench
        if not driver.running:
            driver.start()
        bench.clean_up()


class Writers:
    """Programs that write, to see whether a filesystem is frozen."""

    def __init__(self) -> None:
        self._stuck: list[tuple[Path, subprocess.Popen[bytes]]] = []

    def find_frozen(self, path: Path) -> bool:
        """Whether a write waits, beyond the reach of signals; it goes on once somebody thaws."""
        writer = subprocess.Popen(("touch", str(path / "written-by-the-test")))
        asleep = 0
        while writer.poll() is None:
            asleep = asleep + 1 if _state(writer.pid) == "D" else 0
            if asleep > 5:
                self._stuck.append((path, writer))
                return True
            time.sleep(0.01)
        return False

    def close(self) -> None:
        """Waits for all of them; thaws by force what the driver has left frozen."""
        for path, writer in self._stuck:
            try:
                writer.wait(10)
            except subprocess.TimeoutExpired:
                run("fsfreeze", "--unfreeze", str(path))
                writer.wait()


def _state(task: int | str) -> str:
    """The state of a process or thread, by one letter: D sleeps where no signal wakes it."""
    return Path(f"/proc/{task}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]


@pytest.fixture
def writers(bench: Bench) -> Iterator[Writers]:
    writers = Writers()
    yield writers
    writers.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_call_under_way_is_finished_before_the_end(bench: Bench, number: signal.Signals) -> None:
    driver, name = bench.driver, bench.name()
    process = psutil.Process(driver.pid)

    def create() -> pb.Volume:
        return bench.create(name, size=MIB, capability=raw_block())

    with ThreadPoolExecutor(1) as thread, frozen(bench.pool):
        waiting = thread.submit(create)
        wait_until(lambda: _is_stuck(process), "that the call waits for the pool")

        process.send_signal(number)

        with driver.connect(driver.endpoint) as late:
            wait_until(lambda: _is_refused(late), "that new calls are refused")
        time.sleep(0.3)
        assert process.is_running()
        assert not waiting.done()
    assert _status_at_end(driver) == 0

    driver.start()
    assert create() == waiting.result()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_whichever_thread_gets_the_signal_the_driver_stops(
    bench: Bench, number: signal.Signals
) -> None:
    """The kernel may hand it to any of them, not only to the one that waits for it."""
    process = psutil.Process(bench.driver.pid)
    thread = next(thread.id for thread in process.threads() if thread.id != process.pid)
    libc = ctypes.CDLL(None, use_errno=True)

    assert libc.tgkill(process.pid, thread, number) == 0, os.strerror(ctypes.get_errno())

    assert _status_at_end(bench.driver) == 0


def _status_at_end(driver: Driver) -> int:
    """Waits for the end that was asked for already; a second signal might come too late for it."""
    assert driver._process is not None
    return driver._process.wait(20)


def _is_stuck(process: psutil.Process) -> bool:
    """Whether a thread of a process waits in the kernel."""
    return "D" in {_state(f"{process.pid}/task/{thread.id}") for thread in process.threads()}


def _is_refused(channel: grpc.Channel) -> bool:
    try:
        csi_pb2_grpc.IdentityStub(channel).Probe(pb.ProbeRequest(), timeout=1)
    except grpc.RpcError:
        return True
    return False


def test_a_filesystem_left_frozen_is_thawed_at_the_next_start(
    bench: Bench, writers: Writers
) -> None:
    """The driver and the child that holds the freeze die at once, as in a container."""
    volume_id = bench.create(size=2 * COPIED_BYTES).volume_id
    target = bench.use(volume_id)
    write_synced(target / "file", os.urandom(MIB) * (COPIED_BYTES // MIB))
    _kill_while_frozen(bench, writers, volume_id, target)
    assert writers.find_frozen(target)

    bench.driver.start()

    assert not writers.find_frozen(target)
    write_synced(target / "later", b"thawed")
    assert not bench.driver.controller.ListSnapshots(requests.list_snapshots()).entries
    wait_for_empty_trash(bench.pool)
    assert list((bench.pool / "building").iterdir()) == []


def _kill_while_frozen(bench: Bench, writers: Writers, volume_id: str, target: Path) -> None:
    request = requests.create_snapshot(
        bench.name("snapshot"), volume_id, {"frozenCopySeconds": "60"}
    )
    process = psutil.Process(bench.driver.pid)
    with bench.driver.connect(bench.driver.endpoint) as channel:
        waiting = csi_pb2_grpc.ControllerStub(channel).CreateSnapshot.future(request)
        wait_until(lambda: writers.find_frozen(target), "that the source is frozen")
        process.suspend()
        assert not waiting.done()
        for child in process.children():
            child.kill()
        bench.driver.kill()


def test_a_driver_that_is_killed_leaves_nothing_frozen(bench: Bench, writers: Writers) -> None:
    """The child lives on just long enough to thaw."""
    volume_id = bench.create(size=2 * COPIED_BYTES).volume_id
    target = bench.use(volume_id)
    write_synced(target / "file", os.urandom(MIB) * (COPIED_BYTES // MIB))
    request = requests.create_snapshot(
        bench.name("snapshot"), volume_id, {"frozenCopySeconds": "60"}
    )
    with bench.driver.connect(bench.driver.endpoint) as channel:
        waiting = csi_pb2_grpc.ControllerStub(channel).CreateSnapshot.future(request)
        wait_until(lambda: writers.find_frozen(target), "that the source is frozen")
        bench.driver.kill()
        assert waiting.exception() is not None

    wait_until(lambda: not writers.find_frozen(target), "that the source was thawed")
    write_synced(target / "later", b"thawed")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_copy_under_way_is_taken_up_again(bench: Bench, number: signal.Signals) -> None:
    """It is never ready before it is whole, and the call repeated finds it."""
    capability = raw_block()
    volume_id = bench.create(size=COPIED_BYTES, capability=capability).volume_id
    data = os.urandom(MIB) * (COPIED_BYTES // MIB)
    with bench.used(volume_id, capability) as target:
        write_synced(target, data)
    name = bench.name("snapshot")
    snapshot = _end_while_copying(bench, volume_id, name, number)
    bench.driver.start()

    (listed,) = bench.driver.controller.ListSnapshots(requests.list_snapshots()).entries
    assert listed.snapshot.snapshot_id == snapshot.snapshot_id
    wait_until(lambda: bench.snapshot(volume_id, name).ready_to_use, "that it is ready")
    assert bench.snapshot(volume_id, name).snapshot_id == snapshot.snapshot_id
    restored = bench.create(
        size=COPIED_BYTES, capability=capability, source=from_snapshot(snapshot.snapshot_id)
    ).volume_id
    wait_until(lambda: _is_whole(bench, restored), "that the restore is whole")
    with bench.used(restored, capability) as target:
        assert read_bytes(target, COPIED_BYTES) == data


def _end_while_copying(
    bench: Bench, volume_id: str, name: str, number: signal.Signals
) -> pb.Snapshot:
    """Ends the driver half-way through a copy, which the frozen pool holds up for us."""
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(bench.snapshot, volume_id, name)
        wait_until(lambda: _is_copying(bench), "that the copy began")
        with frozen(bench.pool):
            snapshot = waiting.result(timeout=20)
            assert not snapshot.ready_to_use
            assert _is_copying(bench)
            os.kill(bench.driver.pid, number)
            time.sleep(1)  # the driver is told to put the copy down before that can go on
    assert _status_at_end(bench.driver) == (-number if number == signal.SIGKILL else 0)
    assert _is_copying(bench)
    return snapshot


def _is_copying(bench: Bench) -> bool:
    return bool(list((bench.pool / "snapshots").glob("*/disk.img.partial")))


def _is_whole(bench: Bench, volume_id: str) -> bool:
    return (bench.pool / "volumes" / volume_id.split("-")[2] / "disk.img").exists()


def test_a_volume_being_copied_cannot_be_staged(bench: Bench, tmp_path: Path) -> None:
    volume_id = bench.create(size=2 * COPIED_BYTES).volume_id
    with bench.used(volume_id) as target:
        write_synced(target / "file", os.urandom(MIB) * (COPIED_BYTES // MIB))

    clone = bench.create(size=2 * COPIED_BYTES, source=requests.from_volume(volume_id)).volume_id

    with refused(Code.ABORTED, clone):
        bench.driver.node.NodeStageVolume(requests.stage(clone, tmp_path, filesystem()))
    wait_until(lambda: _is_whole(bench, clone), "that the clone is whole")
