"""Volumes that are out of order: each is broken for real, and both services tell."""

import errno
import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tests.driver
from csi.v1 import csi_pb2 as pb
from tests.contract import requests
from tests.contract.bench import Bench, wait_until, write_synced
from tests.contract.command import hurried
from tests.contract.node_fixtures import (
    entry_of,
    image_of,
    loops_over,
    mounts_at,
    no_loop_over,
    run,
    the_mount_at,
)
from tests.contract.refusals import Code, refused
from tests.contract.requests import GIB, LEAST_BYTES, MIB, READER, filesystem, raw_block
from tests.disks import mounted_filesystem
from tests.driver import create_pool, running_driver
from tests.kubelet import Kubelet

pytestmark = pytest.mark.kernel

STRING_BYTES = 128
MOMENTS = 5
LOOP_CTL_REMOVE = 0x4C81


def at_controller(bench: Bench, volume_id: str) -> pb.VolumeCondition:
    """The condition that ControllerGetVolume and ListVolumes tell alike."""
    controller = bench.driver.controller
    # A condition may change between the two calls, and settles then.
    for _ in range(MOMENTS):
        one = controller.ControllerGetVolume(requests.get_volume(volume_id)).status.volume_condition
        listed = {
            entry.volume.volume_id: entry.status.volume_condition
            for entry in controller.ListVolumes(requests.list_volumes()).entries
        }
        if listed[volume_id] == one:
            break
    assert listed[volume_id] == one
    return _checked(one)


def at_node(bench: Bench, volume_id: str, path: Path) -> pb.VolumeCondition:
    """The condition that NodeGetVolumeStats tells; the kubelet wants usage beside it always."""
    answer = bench.driver.node.NodeGetVolumeStats(requests.stats(volume_id, path))
    assert answer.usage
    assert answer.usage[0].total > 0
    assert answer.HasField("volume_condition")
    return _checked(answer.volume_condition)


def _checked(condition: pb.VolumeCondition) -> pb.VolumeCondition:
    assert 0 < len(condition.message.encode()) <= STRING_BYTES
    return condition


def test_a_volume_that_is_being_deleted_is_not_told_to_be_broken(bench: Bench) -> None:
    size, capability = MIB, raw_block()
    made = [bench.create(size=size, capability=capability).volume_id for _ in range(30)]
    told: list[str] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            entries = bench.driver.controller.ListVolumes(requests.list_volumes()).entries
            conditions = [entry.status.volume_condition for entry in entries]
            told.extend(condition.message for condition in conditions if condition.abnormal)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for volume_id in made:
            bench.delete(volume_id)
    finally:
        ended.set()
        thread.join()

    assert not told


def expect_everywhere(bench: Bench, volume_id: str, path: Path, words: str) -> None:
    for condition in (at_controller(bench, volume_id), at_node(bench, volume_id, path)):
        assert condition.abnormal is True
        assert words in condition.message


@pytest.mark.parametrize(
    ("capability", "size"),
    [
        (filesystem("ext4"), LEAST_BYTES["ext4"]),
        (filesystem("xfs"), LEAST_BYTES["xfs"]),
        (filesystem("btrfs"), LEAST_BYTES["btrfs"]),
        (filesystem("ext4", READER), LEAST_BYTES["ext4"]),
        (raw_block(), 8 * MIB),
    ],
    ids=["ext4", "xfs", "btrfs", "read-only", "block"],
)
def test_a_volume_in_use_is_in_order(
    bench: Bench, capability: pb.VolumeCapability, size: int
) -> None:
    volume_id = bench.create(size=size, capability=capability).volume_id
    with bench.used(volume_id, capability) as target:
        assert not at_node(bench, volume_id, target).abnormal
        assert not at_controller(bench, volume_id).abnormal


def test_a_directory_in_use_is_in_order(btrfs_bench: Bench) -> None:
    capability = filesystem("")
    volume_id = btrfs_bench.create(
        capability=capability, parameters={"kind": "directory"}
    ).volume_id
    with btrfs_bench.used(volume_id, capability) as target:
        assert not at_node(btrfs_bench, volume_id, target).abnormal
        assert not at_controller(btrfs_bench, volume_id).abnormal


# --- data ------------------------------------------------------------------------------------


@pytest.mark.parametrize("capability", [filesystem(), raw_block()], ids=["filesystem", "block"])
@pytest.mark.parametrize("lose", [Path.unlink, lambda p: p.rename(p.parent / "moved")])
def test_an_image_that_is_gone_under_its_pod(
    bench: Bench, capability: pb.VolumeCapability, lose: Callable[[Path], None]
) -> None:
    volume_id = bench.create(capability=capability).volume_id
    with bench.used(volume_id, capability) as target:
        lose(image_of(bench.pool, volume_id))

        expect_everywhere(bench, volume_id, target, "missing")
        with refused(Code.FAILED_PRECONDITION, volume_id):
            bench.driver.controller.DeleteVolume(requests.delete_volume(volume_id))

    # The pod could end, though there is nothing left to find its device by but a name.
    assert not mounts_at(target)
    assert not [loop for loop in loops_over(image_of(bench.pool, volume_id)) if loop.file]


def test_an_image_that_was_cut_short_under_its_pod(bench: Bench) -> None:
    volume_id = bench.create(size=8 * MIB, capability=raw_block()).volume_id
    with bench.used(volume_id, raw_block()) as target:
        os.truncate(image_of(bench.pool, volume_id), MIB)

        expect_everywhere(bench, volume_id, target, f"{MIB} bytes")


def test_a_device_that_was_detached_under_its_pod(bench: Bench) -> None:
    volume_id, target, device = _detach_under_pod(bench)

    condition = at_node(bench, volume_id, target)

    assert condition.abnormal is True
    assert device in condition.message
    assert "detached" in condition.message
    answer = bench.driver.node.NodeGetVolumeStats(requests.stats(volume_id, target))
    assert answer.usage[0].total == 8 * MIB
    # What the message says to do helps.
    bench.release(volume_id)
    with bench.used(volume_id, raw_block()) as again:
        write_synced(again, b"written again")
        assert not at_node(bench, volume_id, again).abnormal


def _detach_under_pod(bench: Bench) -> tuple[str, Path, str]:
    """Detaches and removes the device of a new volume in use; returns volume, target and device."""
    while True:
        volume_id = bench.create(size=8 * MIB, capability=raw_block()).volume_id
        target = bench.use(volume_id, raw_block())
        (loop,) = loops_over(image_of(bench.pool, volume_id))
        run("losetup", "--detach", loop.device)
        assert no_loop_over(image_of(bench.pool, volume_id))
        if _remove_device(loop.device):
            return volume_id, target, loop.device
        # Another process of this machine took the number for itself. Put it right by hand.
        run("umount", str(target))
        run("umount", str(bench.kubelet.block_staging_path(volume_id) / "device"))


def _remove_device(device: str) -> bool:
    with open("/dev/loop-control", "rb") as control:
        try:
            fcntl.ioctl(control, LOOP_CTL_REMOVE, int(device.removeprefix("/dev/loop")))
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            return False
    return True


def test_a_directory_whose_data_is_gone(bench: Bench) -> None:
    capability = filesystem("")
    parameters = {"kind": "directory", "enforceSize": "false"}
    volume_id = bench.create(capability=capability, parameters=parameters).volume_id
    with bench.used(volume_id, capability) as target:
        (entry_of(bench.pool, volume_id) / "data").rmdir()

        expect_everywhere(bench, volume_id, target, "missing")


def test_a_damaged_record(bench: Bench) -> None:
    """The id is known to whoever mounted the volume, and to nobody else any more."""
    volume_id = bench.create().volume_id
    target = bench.use(volume_id)
    record = entry_of(bench.pool, volume_id) / "record.json"
    whole = record.read_bytes()
    record.write_bytes(whole[: len(whole) // 2])
    bench.driver.restart()
    try:
        condition = at_node(bench, volume_id, target)
        assert condition.abnormal is True
        assert f"volumes/{record.parent.name} is damaged" in condition.message
        assert record.parent.name in bench.driver.log_text()
        with refused(Code.FAILED_PRECONDITION, "damaged"):
            bench.driver.controller.ControllerGetVolume(requests.get_volume(volume_id))
        with refused(Code.FAILED_PRECONDITION, "damaged"):
            bench.driver.node.NodeGetVolumeStats(requests.stats(volume_id, bench.pool))
    finally:
        record.write_bytes(whole)
        bench.driver.restart()
    assert not at_node(bench, volume_id, target).abnormal


# --- filesystems -----------------------------------------------------------------------------


def _fail_ext4(target: Path) -> None:
    device = Path(the_mount_at(target).source).name
    Path(f"/sys/fs/ext4/{device}/trigger_fs_error").write_text("1", encoding="ascii")


def _fail_ext4_read_only(target: Path) -> None:
    run("mount", "-o", "remount,errors=remount-ro", str(target))
    _fail_ext4(target)


def _shut_down_xfs(target: Path) -> None:
    run("xfs_io", "-x", "-c", "shutdown", str(target))


@pytest.mark.parametrize(
    ("fs_type", "fail", "words"),
    [
        ("ext4", _fail_ext4, "1 errors and needs fsck"),
        ("ext4", _fail_ext4_read_only, "become read-only"),
        ("xfs", _shut_down_xfs, "Input/output error"),
    ],
)
def test_a_filesystem_that_has_failed(
    bench: Bench, fs_type: str, fail: Callable[[Path], None], words: str
) -> None:
    capability = filesystem(fs_type)
    volume_id = bench.create(size=LEAST_BYTES[fs_type], capability=capability).volume_id
    with bench.used(volume_id, capability) as target:
        fail(target)

        expect_everywhere(bench, volume_id, target, words)


@pytest.mark.parametrize("fs_type", ["ext4", "xfs", "btrfs"])
def test_a_filesystem_that_became_read_only(bench: Bench, fs_type: str) -> None:
    capability = filesystem(fs_type)
    volume_id = bench.create(size=LEAST_BYTES[fs_type], capability=capability).volume_id
    with bench.used(volume_id, capability) as target:
        # Of the whole filesystem: the pod's own mount stays what it was.
        run("mount", "-o", "remount,ro", str(bench.kubelet.staging_path(volume_id)))

        expect_everywhere(bench, volume_id, target, "become read-only")


def test_errors_are_told_until_they_are_mended(bench: Bench) -> None:
    """ext4 keeps them on its disk, so a pod that starts later is told too."""
    volume_id = bench.create().volume_id
    with bench.used(volume_id) as target:
        _fail_ext4(target)
    with bench.used(volume_id) as target:
        assert at_node(bench, volume_id, target).abnormal
    run("e2fsck", "-fy", str(image_of(bench.pool, volume_id)))

    with bench.used(volume_id) as target:
        assert not at_node(bench, volume_id, target).abnormal


# --- pools -----------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A bench on a pool of 1 GiB of its own, which the driver looks at often."""
    monkeypatch.setattr(tests.driver, "COMMAND", hurried("_TRY_WRITING_EVERY_S", 0.1))
    with mounted_filesystem("xfs", tmp_path, GIB) as pool:
        create_pool(pool)
        with running_driver(pool, tmp_path) as driver:
            bench = Bench(driver, Kubelet(tmp_path / "kubelet"), pool)
            yield bench


def _take(pool: Path, size: int) -> Path:
    file = pool / "somebody-elses"
    run("fallocate", "--length", str(size), str(file))
    return file


def test_a_pool_that_is_nearly_full(small: Bench) -> None:
    volume_id = small.create(size=8 * MIB, capability=raw_block()).volume_id
    with small.used(volume_id, raw_block()) as target:
        status = os.statvfs(small.pool)
        file = _take(small.pool, status.f_bavail * status.f_frsize - 10 * MIB)
        wait_until(lambda: at_node(small, volume_id, target).abnormal, "that it is told")

        expect_everywhere(small, volume_id, target, "pool 'default' is nearly full")

        file.unlink()
        wait_until(lambda: not at_node(small, volume_id, target).abnormal, "that all is well again")
        assert not at_controller(small, volume_id).abnormal
    small.delete(volume_id)


def test_a_pool_whose_promised_room_others_have_taken(small: Bench) -> None:
    volume_id = small.create(size=500 * MIB, capability=raw_block()).volume_id
    file = _take(small.pool, 600 * MIB)
    wait_until(lambda: at_controller(small, volume_id).abnormal, "that it is told")

    condition = at_controller(small, volume_id)

    assert "to others" in condition.message
    assert str(500 * MIB) in condition.message
    file.unlink()
    wait_until(lambda: not at_controller(small, volume_id).abnormal, "that all is well again")
    small.delete(volume_id)


def test_a_pool_that_is_gone(small: Bench) -> None:
    volume_id = small.create(size=8 * MIB, capability=raw_block()).volume_id
    target = small.use(volume_id, raw_block())

    _shut_down_xfs(small.pool)

    wait_until(lambda: "no writes" in at_node(small, volume_id, target).message, "that it is told")
    assert at_controller(small, volume_id).abnormal is True
    small.release(volume_id)
