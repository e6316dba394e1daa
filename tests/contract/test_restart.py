"""The driver stopped and started again, at rest, with every sort of volume staged and published."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from csi.v1 import csi_pb2 as pb
from tests.contract import kinds, requests
from tests.contract.bench import Bench, bench_of, read_bytes, write_synced
from tests.contract.kinds import Kind, file_of
from tests.contract.node_fixtures import (
    entry_of,
    image_of,
    loops_below,
    mounts_below,
    no_loop_over,
    run,
    wait_for_empty_trash,
)
from tests.contract.refusals import Code, refused
from tests.contract.requests import LEAST_BYTES, MIB, filesystem, from_snapshot, raw_block
from tests.driver import Driver

pytestmark = pytest.mark.kernel

ANY = filesystem("")
DATA = b"from before the restart"


KINDS = {"btrfs": Kind(LEAST_BYTES["btrfs"], filesystem("btrfs"), {})} | kinds.KINDS


@pytest.fixture
def bench(btrfs_pool: Path, tmp_path: Path) -> Iterator[Bench]:
    with bench_of(btrfs_pool, tmp_path) as bench:
        yield bench


def _end(driver: Driver, how: str) -> None:
    if how == "SIGKILL":
        driver.kill()
    else:
        driver.stop_cleanly()


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_everything_in_use_is_found_again(bench: Bench, how: str) -> None:
    volumes, targets = {}, {}
    for name, kind in KINDS.items():
        volumes[name] = bench.create(
            size=kind.size, capability=kind.capability, parameters=kind.parameters
        ).volume_id
        targets[name] = bench.use(volumes[name], kind.capability)
        write_synced(file_of(targets[name]), DATA)
    mounts, loops = mounts_below(bench.kubelet.directory), loops_below(bench.pool)

    _end(bench.driver, how)
    for target in targets.values():  # pods do not notice
        write_synced(file_of(target), DATA[::-1])
    bench.driver.start()

    for name, kind in KINDS.items():
        staging = (
            bench.kubelet.block_staging_path(volumes[name])
            if name == "block"
            else bench.kubelet.staging_path(volumes[name])
        )
        bench.driver.node.NodeStageVolume(requests.stage(volumes[name], staging, kind.capability))
        bench.driver.node.NodePublishVolume(
            requests.publish(volumes[name], staging, targets[name], kind.capability)
        )
        assert read_bytes(file_of(targets[name]), len(DATA)) == DATA[::-1]
        with refused(Code.FAILED_PRECONDITION, volumes[name]):
            bench.driver.controller.DeleteVolume(requests.delete_volume(volumes[name]))
    assert mounts_below(bench.kubelet.directory) == mounts
    assert loops_below(bench.pool) == loops

    for name in KINDS:
        bench.release(volumes[name])
        assert not targets[name].exists()
        assert name == "directory" or no_loop_over(image_of(bench.pool, volumes[name]))
        bench.delete(volumes[name])
    wait_for_empty_trash(bench.pool)


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_what_only_the_driver_knows_is_found_again(bench: Bench, how: str) -> None:
    volume = bench.create()
    other = bench.create(size=8 * MIB, capability=raw_block())
    with bench.used(volume.volume_id) as target:
        write_synced(target / "file", DATA)
        snapshot = bench.snapshot(volume.volume_id)
        write_synced(target / "file", b"later")
    group = bench.group(volume.volume_id, other.volume_id)
    controller = bench.driver.controller
    controller.ControllerPublishVolume(requests.controller_publish(volume.volume_id))
    listed = controller.ListVolumes(requests.list_volumes())
    snapshots = controller.ListSnapshots(requests.list_snapshots())
    assert len(listed.entries) == 2
    assert len(snapshots.entries) == 3

    _end(bench.driver, how)
    bench.driver.start()

    controller = bench.driver.controller
    assert controller.ListVolumes(requests.list_volumes()) == listed
    assert controller.ListSnapshots(requests.list_snapshots()) == snapshots
    members = [member.snapshot_id for member in group.snapshots]
    found = bench.driver.group.GetVolumeGroupSnapshot(
        requests.get_group(group.group_snapshot_id, members)
    )
    assert found.group_snapshot == group
    restored = bench.create(source=from_snapshot(snapshot.snapshot_id)).volume_id
    with bench.used(restored) as target:
        assert (target / "file").read_bytes() == DATA
    # A repeated create finds what the first one made.
    repeated = requests.create_snapshot(_name_of(bench, snapshot), volume.volume_id)
    assert controller.CreateSnapshot(repeated).snapshot == snapshot


def _name_of(bench: Bench, snapshot: pb.Snapshot) -> str:
    """The name of a snapshot, which no answer tells: it is in the record."""
    folder = bench.pool / "snapshots" / snapshot.snapshot_id.split("-")[2]
    record = (folder / "record.json").read_text(encoding="utf-8")
    return record.partition('"name": "')[2].partition('"')[0]


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_what_is_promised_stays_promised(bench: Bench, how: str) -> None:
    bench.create(size=1 << 30)
    bench.create(size=MIB * 32, capability=ANY, parameters={"kind": "directory"})
    with bench.used(bench.create(size=8 * MIB, capability=raw_block()).volume_id, raw_block()) as t:
        write_synced(t, os.urandom(4 * MIB))
    run("sync", "--file-system", str(bench.pool))
    before = bench.driver.controller.GetCapacity(requests.get_capacity()).available_capacity

    _end(bench.driver, how)
    bench.driver.start()

    after = bench.driver.controller.GetCapacity(requests.get_capacity()).available_capacity
    assert abs(after - before) <= 4 * MIB


def test_a_reboot_while_the_driver_is_away_is_mended(bench: Bench) -> None:
    volumes = {}
    for name, kind in KINDS.items():
        volumes[name] = bench.create(
            size=kind.size, capability=kind.capability, parameters=kind.parameters
        ).volume_id
        write_synced(file_of(bench.use(volumes[name], kind.capability)), DATA)
    bench.driver.kill()
    for mount in reversed(mounts_below(bench.kubelet.directory)):
        run("umount", mount.path)
    for loop in loops_below(bench.pool):
        run("losetup", "--detach", loop.device)
    bench.driver.start()

    for name, kind in KINDS.items():
        with bench.used(volumes[name], kind.capability) as target:
            assert read_bytes(file_of(target), len(DATA)) == DATA


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_what_was_half_built_is_swept(bench: Bench, how: str) -> None:
    volume_id = bench.create().volume_id
    key = entry_of(bench.pool, volume_id).name
    _end(bench.driver, how)
    for name in (f"{key}.0123456789ab", "0" * 32 + ".0123456789ab"):
        half = bench.pool / "building" / name
        half.mkdir()
        (half / "disk.img").write_bytes(b"half of it")
    run("btrfs", "subvolume", "create", str(half / "data"))

    bench.driver.start()

    assert list((bench.pool / "building").iterdir()) == []
    wait_for_empty_trash(bench.pool)
    with bench.used(volume_id) as target:
        assert target.is_dir()


def test_what_was_deleted_is_freed_after_a_restart(bench: Bench) -> None:
    bench.driver.kill()
    waiting = bench.pool / "trash" / ("0" * 32 + ".0123456789ab")
    (waiting / "a" / "b").mkdir(parents=True)
    (waiting / "disk.img").write_bytes(b"x" * (4 * MIB))
    (waiting / "link").symlink_to(bench.pool / "pool.json")

    bench.driver.start()

    wait_for_empty_trash(bench.pool)
    assert (bench.pool / "pool.json").is_file()


def test_a_volume_deleted_just_before_the_end_is_gone(bench: Bench) -> None:
    volume_id = bench.create(
        size=32 * MIB, capability=raw_block(), parameters={"allocation": "thick"}
    ).volume_id
    bench.delete(volume_id)
    bench.driver.kill()

    bench.driver.start()

    with refused(Code.NOT_FOUND, volume_id):
        bench.driver.controller.ControllerGetVolume(requests.get_volume(volume_id))
    wait_for_empty_trash(bench.pool)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda whole: whole[: len(whole) // 2], "damaged"),
        (lambda _: b"", "damaged"),
        (lambda _: None, "No such file"),
        (lambda whole: whole.replace(b'"version": 1', b'"version": 999'), "newer driver"),
        (lambda whole: whole.replace(b'"id": "vol-', b'"id": "vol-0'), "another entry"),
    ],
    ids=["half", "empty", "missing", "newer", "another's"],
)
def test_one_damaged_record_costs_one_volume(
    bench: Bench, damage: Callable[[bytes], bytes | None], reason: str
) -> None:
    name = bench.name()
    damaged, sound = bench.create(name).volume_id, bench.create().volume_id
    target = bench.use(damaged)
    write_synced(target / "file", DATA)
    bench.driver.stop_cleanly()
    record = entry_of(bench.pool, damaged) / "record.json"
    whole = record.read_bytes()
    damaged_record = damage(whole)
    assert damaged_record != whole
    record.unlink()
    if damaged_record is not None:
        record.write_bytes(damaged_record)
    bench.driver.start()
    assert reason in bench.driver.log_text()

    listed = bench.driver.controller.ListVolumes(requests.list_volumes()).entries
    assert [entry.volume.volume_id for entry in listed] == [sound]
    for request in (requests.create_volume(name), requests.create_volume(name, size=128 * MIB)):
        with refused(Code.FAILED_PRECONDITION, record.parent.name, "repair"):
            bench.driver.controller.CreateVolume(request)
    with refused(Code.FAILED_PRECONDITION, record.parent.name):
        bench.driver.controller.DeleteVolume(requests.delete_volume(damaged))
    assert (target / "file").read_bytes() == DATA
    with bench.used(sound):
        pass
    # The node can still let go of it.
    bench.release(damaged)
    assert not target.exists()
    assert no_loop_over(image_of(bench.pool, damaged))

    record.write_bytes(whole)
    bench.driver.restart()
    with bench.used(damaged) as again:
        assert (again / "file").read_bytes() == DATA


class TestImageOfAnotherLength:
    """What growth leaves that was cut off between the image and its record."""

    def test_a_tail_without_data_goes(self, bench: Bench) -> None:
        volume_id = bench.create(size=8 * MIB, capability=raw_block()).volume_id
        bench.driver.kill()
        os.truncate(image_of(bench.pool, volume_id), 12 * MIB)

        bench.driver.start()

        assert image_of(bench.pool, volume_id).stat().st_size == 8 * MIB

    def test_a_tail_with_data_stays_and_is_told(self, bench: Bench) -> None:
        """No growth of ours has written there: the record may be an old one, put back by hand."""
        volume_id = bench.create(size=8 * MIB, capability=raw_block()).volume_id
        bench.driver.kill()
        with image_of(bench.pool, volume_id).open("r+b") as image:
            image.seek(12 * MIB - 1)
            image.write(b"\1")

        bench.driver.start()

        assert image_of(bench.pool, volume_id).stat().st_size == 12 * MIB
        assert '"excess_bytes":4194304' in bench.driver.log_text().replace(" ", "")

    def test_an_unfinished_copy_for_growth_goes(self, bench: Bench) -> None:
        volume_id = bench.create().volume_id
        bench.driver.kill()
        copy = entry_of(bench.pool, volume_id) / "disk.img.grown"
        copy.write_bytes(b"half")

        bench.driver.start()

        assert not copy.exists()
