"""Group snapshots: several volumes at one moment, and found again."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from csi.v1 import csi_pb2 as pb
from tests.contract import requests
from tests.contract.bench import Bench, wait_until, write_synced
from tests.contract.freezing import thaw
from tests.contract.refusals import Code, as_call, refused
from tests.contract.requests import (
    LEAST_BYTES,
    MIB,
    filesystem,
    from_snapshot,
    raw_block,
)

pytestmark = pytest.mark.kernel

DIRECTORY = {"kind": "directory"}


def get(bench: Bench, group: pb.VolumeGroupSnapshot) -> pb.VolumeGroupSnapshot:
    request = requests.get_group(group.group_snapshot_id, members_of(group))
    return bench.driver.group.GetVolumeGroupSnapshot(request).group_snapshot


def members_of(group: pb.VolumeGroupSnapshot) -> list[str]:
    return [snapshot.snapshot_id for snapshot in group.snapshots]


def restored(bench: Bench, snapshot: pb.Snapshot, capability: pb.VolumeCapability) -> Path:
    """A new volume made from a member, in use."""
    volume = bench.create(
        size=snapshot.size_bytes,
        capability=capability,
        source=from_snapshot(snapshot.snapshot_id),
    )
    return bench.use(volume.volume_id, capability)


def two(bench: Bench) -> tuple[str, str]:
    return bench.create().volume_id, bench.create(size=96 * MIB).volume_id


class TestCreate:
    """CreateVolumeGroupSnapshot, and the repeat that finds it."""

    def test_a_group_has_a_member_for_each_volume(self, bench: Bench) -> None:
        first, second = two(bench)

        group = bench.group(first, second)

        assert group.ready_to_use is True
        assert [snapshot.source_volume_id for snapshot in group.snapshots] == [first, second]
        assert [snapshot.size_bytes for snapshot in group.snapshots] == [64 * MIB, 96 * MIB]
        for snapshot in group.snapshots:
            assert snapshot.ready_to_use is True
            assert snapshot.group_snapshot_id == group.group_snapshot_id
            assert snapshot.creation_time == group.creation_time

    def test_members_are_snapshots_like_others(self, bench: Bench) -> None:
        group = bench.group(*two(bench))
        controller = bench.driver.controller

        listed = controller.ListSnapshots(requests.list_snapshots()).entries

        assert sorted(members_of(group)) == sorted(e.snapshot.snapshot_id for e in listed)
        for snapshot in group.snapshots:
            request = requests.get_snapshot(snapshot.snapshot_id)
            assert controller.GetSnapshot(request).snapshot == snapshot

    def test_a_repeat_finds_it_unchanged(self, bench: Bench) -> None:
        first, second = two(bench)
        name = bench.name("group")
        group = bench.group(first, second, name=name)

        assert bench.group(first, second, name=name) == group
        assert bench.group(second, first, name=name) == group
        bench.driver.restart()
        assert bench.group(first, second, name=name) == group
        assert get(bench, group) == group

    def test_one_name_at_once_makes_one_group(self, bench: Bench) -> None:
        first, second = two(bench)
        name = bench.name("group")

        def take(_: int) -> str:
            try:
                return bench.group(first, second, name=name).group_snapshot_id
            except grpc.RpcError as error:
                return as_call(error).code().name

        with ThreadPoolExecutor(6) as threads:
            answers = set(threads.map(take, range(6)))

        group = bench.group(first, second, name=name)
        assert answers - {"ABORTED"} == {group.group_snapshot_id}
        assert len(list((bench.pool / "snapshots").iterdir())) == 2

    def test_the_name_of_a_group_of_other_volumes_is_taken(self, bench: Bench) -> None:
        first, second = two(bench)
        name = bench.name("group")
        bench.group(first, second, name=name)

        for others in ([first], [first, second, bench.create().volume_id]):
            with refused(Code.ALREADY_EXISTS, name, "other volumes"):
                bench.group(*others, name=name)

    def test_a_group_may_have_the_name_of_a_snapshot_and_of_a_volume(self, bench: Bench) -> None:
        name = bench.name()
        volume_id = bench.create(name).volume_id
        snapshot = bench.snapshot(volume_id, name)

        group = bench.group(volume_id, name=name)

        assert members_of(group) != [snapshot.snapshot_id]

    def test_a_group_of_one(self, bench: Bench) -> None:
        volume_id = bench.create().volume_id

        assert len(bench.group(volume_id).snapshots) == 1


class TestMoments:
    """All members are of one moment."""

    @pytest.mark.parametrize("fs_types", [("ext4", "ext4"), ("xfs", "btrfs")], ids=str)
    def test_the_order_of_writes_to_two_mounted_volumes_is_kept(
        self, bench: Bench, fs_types: tuple[str, str]
    ) -> None:
        """A writer counts in both volumes in turns: the second never runs ahead of the first."""
        capabilities = [filesystem(fs_type) for fs_type in fs_types]
        volumes = [
            bench.create(size=LEAST_BYTES[fs_type], capability=capability).volume_id
            for fs_type, capability in zip(fs_types, capabilities, strict=True)
        ]
        targets = [bench.use(v, c) for v, c in zip(volumes, capabilities, strict=True)]
        stop, count = threading.Event(), 0

        def write() -> None:
            nonlocal count
            while not stop.is_set():
                count += 1
                for target in targets:
                    write_synced(target / "count", f"{count:08}".encode())

        writer = threading.Thread(target=write)
        writer.start()
        try:
            groups = []
            for _ in range(4):
                seen = count
                wait_until(lambda at=seen: count > at + 3, "the writer to go on")  # type: ignore[misc]
                groups.append(bench.group(*volumes))
        finally:
            stop.set()
            writer.join(20)

        assert not writer.is_alive()
        for target in targets:
            assert not thaw(target), "a volume was left frozen"
        for group in groups:
            first, second = (
                int((restored(bench, snapshot, capability) / "count").read_bytes())
                for snapshot, capability in zip(group.snapshots, capabilities, strict=True)
            )
            assert 0 <= first - second <= 1

    def test_members_at_rest_and_members_in_use_go_together(self, bench: Bench) -> None:
        used, block = bench.create().volume_id, bench.create(capability=raw_block()).volume_id
        with bench.used(block, raw_block()) as device:
            write_synced(device, b"raw bytes" + bytes(4087))
        target = bench.use(used)
        write_synced(target / "file", b"data")

        group = bench.group(used, block)
        write_synced(target / "file", b"more")

        assert (restored(bench, group.snapshots[0], filesystem()) / "file").read_bytes() == b"data"
        with restored(bench, group.snapshots[1], raw_block()).open("rb") as copy:
            assert copy.read(9) == b"raw bytes"

    def test_directories_at_rest_can_be_members(self, btrfs_bench: Bench) -> None:
        capability = filesystem("")
        directory = btrfs_bench.create(capability=capability, parameters=DIRECTORY).volume_id
        with btrfs_bench.used(directory, capability) as target:
            write_synced(target / "file", b"data")

        group = btrfs_bench.group(directory, btrfs_bench.create().volume_id)

        volume = btrfs_bench.create(
            capability=capability,
            parameters=DIRECTORY,
            source=from_snapshot(members_of(group)[0]),
        )
        with btrfs_bench.used(volume.volume_id, capability) as copy:
            assert (copy / "file").read_bytes() == b"data"

    def test_copies_of_members_at_rest_become_ready(self, ext4_bench: Bench) -> None:
        first, second = two(ext4_bench)
        with ext4_bench.used(first) as target:
            write_synced(target / "file", b"data")

        group = ext4_bench.group(first, second)
        wait_until(lambda: get(ext4_bench, group).ready_to_use, "the group to be ready")

        member = get(ext4_bench, group).snapshots[0]
        assert (restored(ext4_bench, member, filesystem()) / "file").read_bytes() == b"data"

    def test_a_group_outlives_its_volumes(self, bench: Bench) -> None:
        first, second = two(bench)
        group = bench.group(first, second)
        bench.delete(first)
        bench.delete(second)

        assert get(bench, group) == group
        restored(bench, group.snapshots[1], filesystem())
