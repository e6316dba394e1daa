"""Wiped folders, stale devices, and others on the same machine.

What a reboot alone does is proved in test_stage.py and test_restart.py, and that a second driver
over a pool is refused in test_start.py.
"""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.contract import requests
from tests.contract.bench import Bench, bench_of, read_bytes, wait_until, write_synced
from tests.contract.kinds import DATA, KINDS, file_of, use_all, wipe
from tests.contract.node_fixtures import (
    all_loops,
    entry_of,
    image_of,
    loops_below,
    loops_over,
    run,
)
from tests.contract.refusals import Code, refused
from tests.contract.requests import GIB, MIB, filesystem, raw_block
from tests.disks import mounted_filesystem
from tests.driver import create_pool, running_driver
from tests.kubelet import Kubelet

pytestmark = pytest.mark.kernel

BLOCK_BYTES = 8 * MIB


@pytest.fixture
def bench(btrfs_pool: Path, tmp_path: Path) -> Iterator[Bench]:
    with bench_of(btrfs_pool, tmp_path) as bench:
        yield bench


def _attached(file: Path) -> str:
    """Attaches somebody's own loop device to a file."""
    return run("losetup", "--find", "--show", str(file)).strip()


@contextlib.contextmanager
def _attached_to(file: Path) -> Iterator[str]:
    device = _attached(file)
    try:
        yield device
    finally:
        subprocess.run(("losetup", "--detach", device), check=False)


# --- the kubelet's folder is gone -----------------------------------------------------------------


@pytest.mark.parametrize("restarted", [False, True])
def test_a_wiped_kubelet_folder_is_filled_again(bench: Bench, restarted: bool) -> None:
    volumes = use_all(bench)
    wipe(bench)
    if restarted:
        bench.driver.restart()

    for name, kind in KINDS.items():
        with bench.used(volumes[name], kind.capability) as target:
            assert read_bytes(file_of(target), len(DATA)) == DATA


def test_what_a_wiped_folder_held_can_be_deleted_after_a_start(bench: Bench) -> None:
    """Nobody unstages what the kubelet does not know any more."""
    volumes = use_all(bench)
    wipe(bench)
    assert loops_over(image_of(bench.pool, volumes["block"]))

    bench.driver.restart()

    assert not loops_below(bench.pool)
    for volume_id in volumes.values():
        bench.forget_use(volume_id)
        bench.delete(volume_id)


def test_a_volume_is_staged_anew_while_some_process_keeps_its_old_device(bench: Bench) -> None:
    volume_id = bench.create(size=BLOCK_BYTES, capability=raw_block()).volume_id
    write_synced(bench.use(volume_id, raw_block()), DATA)
    (old,) = loops_over(image_of(bench.pool, volume_id))
    wipe(bench)
    with open(old.device, "rb"):
        bench.driver.restart()
        bench.forget_use(volume_id)
        target = bench.use(volume_id, raw_block())
    wait_until(
        lambda: old.device not in {loop.device for loop in all_loops()}, "that the old one went"
    )

    assert read_bytes(target, len(DATA)) == DATA


# --- others on the same machine -------------------------------------------------------------------


def test_loop_devices_of_others_are_left_alone(bench: Bench, tmp_path: Path) -> None:
    volume_id = bench.create(size=BLOCK_BYTES, capability=raw_block()).volume_id
    target = bench.use(volume_id, raw_block())
    inside = Path("volumes") / entry_of(bench.pool, volume_id).name / "disk.img"
    namesake, beside = tmp_path / "other" / inside, bench.pool / "other" / inside
    for file in (namesake, beside):
        file.parent.mkdir(parents=True)
        with file.open("xb") as made:
            made.truncate(MIB)
    own = image_of(bench.pool, volume_id)
    before = loops_over(own)
    try:
        with (
            _attached_to(namesake) as elsewhere,
            _attached_to(beside) as in_the_pool,
            _attached_to(Path(before[0].device)) as stacked,
        ):
            run("umount", str(target))
            run("umount", str(bench.kubelet.block_staging_path(volume_id) / "device"))

            bench.driver.restart()

            left = {loop.device for loop in all_loops()}
            assert {elsewhere, in_the_pool, stacked} <= left
            assert loops_over(own) == before, "the kubelet's own device lies on it"
    finally:
        shutil.rmtree(bench.pool / "other")
    bench.driver.restart()
    assert not loops_over(own)


def test_a_volume_that_others_have_mounted_is_left_alone(bench: Bench) -> None:
    """A pod has made a filesystem on its raw device, and mounted it where only it can see that."""
    volume_id = bench.create(size=BLOCK_BYTES, capability=raw_block()).volume_id
    bench.use(volume_id, raw_block())
    before = loops_over(image_of(bench.pool, volume_id))
    run("mkfs.ext4", "-q", before[0].device)
    with _mounted_elsewhere(before[0].device):
        wipe(bench)

        bench.driver.restart()

        assert loops_over(image_of(bench.pool, volume_id)) == before


def test_a_filesystem_that_others_hold_mounted_for_writing_is_asked_for_again(bench: Bench) -> None:
    """The kernel mounts no filesystem for reading that is mounted for writing somewhere."""
    volume_id, node = bench.create().volume_id, bench.driver.node
    staging = bench.kubelet.staging_path(volume_id)
    node.NodeStageVolume(requests.stage(volume_id, staging, filesystem()))
    (loop,) = loops_over(image_of(bench.pool, volume_id))
    reading = requests.stage(volume_id, staging, filesystem(mode=requests.READER))
    with _mounted_elsewhere(loop.device):
        with refused(Code.UNAVAILABLE, "in a mount namespace of its own"):
            node.NodeUnstageVolume(requests.unstage(volume_id, staging))

        with refused(Code.ABORTED, "mounted in another way", "try again"):
            node.NodeStageVolume(reading)

    node.NodeStageVolume(reading)
    node.NodeUnstageVolume(requests.unstage(volume_id, staging))


@contextlib.contextmanager
def _mounted_elsewhere(device: str) -> Iterator[None]:
    """Mounts a device in a mount namespace of its own."""
    script = f"mount {device} /mnt && echo && exec sleep 60"
    command = ("unshare", "--mount", "--propagation", "private", "sh", "-c", script)
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline(), "it could not be mounted"
        yield
    finally:
        process.kill()
        process.communicate()


def test_another_drivers_devices_are_left_alone(bench: Bench, tmp_path: Path) -> None:
    place = tmp_path / "other"
    place.mkdir()
    with mounted_filesystem("xfs", place, GIB) as pool:
        create_pool(pool)
        with running_driver(pool, place) as driver:
            other = Bench(driver, Kubelet(place / "kubelet"), pool)
            volume_id = other.create(size=BLOCK_BYTES, capability=raw_block()).volume_id
            target = other.use(volume_id, raw_block())
            run("umount", str(target))
            run("umount", str(other.kubelet.block_staging_path(volume_id) / "device"))

            bench.driver.restart()

            assert loops_over(image_of(pool, volume_id))
            other.clean_up()


# --- two drivers over one pool --------------------------------------------------------------------


def test_a_dead_driver_whose_child_lives_on_keeps_no_pool(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid_file, programs = tmp_path / "pid", tmp_path / "programs"
    programs.mkdir()
    slow = programs / "mkfs.ext4"
    slow.write_text(
        f"#!/bin/sh\necho $$ > {pid_file}.new\nmv {pid_file}.new {pid_file}\nexec sleep 60\n"
    )
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    bench.driver.restart()
    making = bench.driver.controller.CreateVolume.future(requests.create_volume(bench.name()))
    wait_until(pid_file.exists, "that mkfs runs")
    child = int(pid_file.read_text())
    try:
        bench.driver.kill()
        assert isinstance(making.exception(timeout=10), grpc.RpcError)
        os.kill(child, 0)  # it is there

        bench.driver.start()

        os.kill(child, 0)
        assert bench.create(size=BLOCK_BYTES, capability=raw_block()).capacity_bytes == BLOCK_BYTES
    finally:
        os.kill(child, signal.SIGKILL)
