"""Snapshots on a pool that shares blocks: taken, found again, of one moment, deleted."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from csi.v1 import csi_pb2 as pb
from tests.contract import requests
from tests.contract.bench import Bench, write_synced
from tests.contract.freezing import frozen, thaw
from tests.contract.refusals import Code, as_call, refused
from tests.contract.requests import (
    LEAST_BYTES,
    MIB,
    UNKNOWN_SNAPSHOT,
    UNKNOWN_VOLUME,
    filesystem,
    from_snapshot,
    from_volume,
)

pytestmark = pytest.mark.kernel

FILESYSTEMS = ["ext4", "xfs", "btrfs"]


def entries(bench: Bench, folder: str = "snapshots") -> list[str]:
    """What the pool itself has in one of its folders."""
    return sorted(path.name for path in (bench.pool / folder).iterdir())


class TestCreate:
    """CreateSnapshot, and the repeat that finds it."""

    def test_a_snapshot_is_ready_and_tells_its_source(self, bench: Bench) -> None:
        volume_id = bench.create(size=96 * MIB).volume_id

        snapshot = bench.snapshot(volume_id)

        assert snapshot.ready_to_use is True
        assert snapshot.source_volume_id == volume_id
        assert snapshot.size_bytes == 96 * MIB
        assert snapshot.group_snapshot_id == ""
        assert 0 < len(snapshot.snapshot_id.encode()) <= 128

    def test_its_time_is_that_of_its_moment(self, bench: Bench) -> None:
        volume_id = bench.create().volume_id

        times = [bench.snapshot(volume_id).creation_time.ToNanoseconds() for _ in range(3)]

        assert times == sorted(set(times))

    def test_a_repeat_finds_it_unchanged(self, bench: Bench) -> None:
        volume_id, name = bench.create().volume_id, bench.name("snapshot")
        snapshot = bench.snapshot(volume_id, name)

        assert bench.snapshot(volume_id, name) == snapshot
        bench.driver.restart()
        assert bench.snapshot(volume_id, name) == snapshot
        get = requests.get_snapshot(snapshot.snapshot_id)
        assert bench.driver.controller.GetSnapshot(get).snapshot == snapshot

    def test_one_name_at_once_makes_one_snapshot(self, bench: Bench) -> None:
        volume_id, name = bench.create().volume_id, bench.name("snapshot")

        def take(_: int) -> str:
            try:
                return bench.snapshot(volume_id, name).snapshot_id
            except grpc.RpcError as error:
                return as_call(error).code().name

        with ThreadPoolExecutor(8) as threads:
            answers = set(threads.map(take, range(8)))

        assert answers - {"ABORTED"} == {bench.snapshot(volume_id, name).snapshot_id}
        assert len(entries(bench)) == 1

    def test_many_of_one_volume_at_once(self, bench: Bench) -> None:
        volume_id = bench.create().volume_id
        target = bench.use(volume_id)

        with ThreadPoolExecutor(8) as threads:
            taken = list(threads.map(lambda _: bench.snapshot(volume_id), range(8)))

        assert len({snapshot.snapshot_id for snapshot in taken}) == 8
        assert not thaw(target), "the volume was left frozen"

    def test_the_name_of_a_snapshot_of_another_volume_is_taken(self, bench: Bench) -> None:
        first, second = bench.create().volume_id, bench.create().volume_id
        name = bench.name("snapshot")
        bench.snapshot(first, name)

        with refused(Code.ALREADY_EXISTS, name, first):
            bench.snapshot(second, name)

    def test_a_name_may_be_that_of_its_volume(self, bench: Bench) -> None:
        name = bench.name()
        volume_id = bench.create(name).volume_id

        assert bench.snapshot(volume_id, name).ready_to_use is True

    def test_a_snapshot_taken_again_under_its_name_has_another_id(self, bench: Bench) -> None:
        volume_id, name = bench.create().volume_id, bench.name("snapshot")
        first = bench.snapshot(volume_id, name)
        bench.delete_snapshot(first.snapshot_id)
        second = bench.snapshot(volume_id, name)
        bench.delete_snapshot(first.snapshot_id)  # a late repeat of the first delete

        assert second.snapshot_id != first.snapshot_id
        assert bench.snapshot(volume_id, name) == second
        with refused(Code.NOT_FOUND, first.snapshot_id):
            bench.create(source=from_snapshot(first.snapshot_id))

    @pytest.mark.parametrize("volume_id", [UNKNOWN_VOLUME, "../../etc", "a\0b"], ids=ascii)
    def test_of_a_volume_that_is_not_there(self, bench: Bench, volume_id: str) -> None:
        with refused(Code.NOT_FOUND, repr(volume_id)):
            bench.snapshot(volume_id)

    def test_of_a_volume_that_was_deleted(self, bench: Bench) -> None:
        volume_id = bench.create().volume_id
        bench.delete(volume_id)

        with refused(Code.NOT_FOUND, volume_id):
            bench.snapshot(volume_id)

    def test_required_fields_names_and_parameters(self, bench: Bench) -> None:
        create = bench.driver.controller.CreateSnapshot
        with refused(Code.INVALID_ARGUMENT, "name"):
            create(requests.create_snapshot("", UNKNOWN_VOLUME))
        with refused(Code.INVALID_ARGUMENT, "source_volume_id"):
            create(requests.create_snapshot("name", ""))
        with refused(Code.INVALID_ARGUMENT, "name", "128"):
            create(requests.create_snapshot("n" * 129, UNKNOWN_VOLUME))
        with refused(Code.INVALID_ARGUMENT, "name", "U+0007"):
            create(requests.create_snapshot("bell\a", UNKNOWN_VOLUME))
        with refused(Code.INVALID_ARGUMENT, "'compress'", "frozenCopySeconds"):
            create(requests.create_snapshot("name", UNKNOWN_VOLUME, {"compress": "yes"}))

    def test_keys_that_the_snapshotter_adds_are_accepted(self, bench: Bench) -> None:
        added = {
            "csi.storage.k8s.io/volumesnapshot/name": "backup",
            "csi.storage.k8s.io/volumesnapshot/namespace": "shop",
            "csi.storage.k8s.io/volumesnapshotcontent/name": "snapcontent-1",
        }

        assert bench.snapshot(bench.create().volume_id, parameters=added).ready_to_use


class TestMoments:
    """What is in a snapshot of a volume that is being used."""

    @pytest.mark.parametrize("fs_type", FILESYSTEMS)
    def test_what_was_synced_is_in_it_and_what_came_later_is_not(
        self, bench: Bench, fs_type: str
    ) -> None:
        volume_id, target = self._used(bench, fs_type)
        write_synced(target / "file", b"before")
        (target / "unsynced").write_bytes(b"in memory")

        snapshot = bench.snapshot(volume_id)
        assert not thaw(target), "the volume was left frozen"
        write_synced(target / "file", b"after!")

        copy = self._restored(bench, snapshot, fs_type)
        assert (copy / "file").read_bytes() == b"before"
        assert (copy / "unsynced").read_bytes() == b"in memory"

    def test_a_directory_in_use_is_of_one_moment(self, btrfs_bench: Bench) -> None:
        capability, parameters = filesystem(""), {"kind": "directory"}
        volume_id = btrfs_bench.create(capability=capability, parameters=parameters).volume_id
        target = btrfs_bench.use(volume_id, capability)
        write_synced(target / "file", b"before")

        snapshot = btrfs_bench.snapshot(volume_id)
        write_synced(target / "file", b"after!")
        restored = btrfs_bench.create(
            capability=capability,
            parameters=parameters,
            source=from_snapshot(snapshot.snapshot_id),
        )

        with btrfs_bench.used(restored.volume_id, capability) as copy:
            assert (copy / "file").read_bytes() == b"before"

    @pytest.mark.parametrize("how", ["snapshot", "clone"])
    @pytest.mark.parametrize("fs_type", FILESYSTEMS)
    def test_a_volume_that_somebody_else_froze_stays_frozen(
        self, bench: Bench, fs_type: str, how: str
    ) -> None:
        volume_id, target = self._used(bench, fs_type)
        write_synced(target / "file", b"before")

        with frozen(target):
            source = (
                from_volume(volume_id)
                if how == "clone"
                else from_snapshot(bench.snapshot(volume_id).snapshot_id)
            )
            volume = bench.create(
                size=LEAST_BYTES[fs_type], capability=filesystem(fs_type), source=source
            )
            assert thaw(target), "the driver thawed what it had not frozen"

        with bench.used(volume.volume_id, filesystem(fs_type)) as copy:
            assert (copy / "file").read_bytes() == b"before"

    def test_a_directory_that_nothing_holds_to_a_moment_is_refused(self, bench: Bench) -> None:
        volume_id = bench.create(
            capability=filesystem(""), parameters={"kind": "directory", "enforceSize": "false"}
        ).volume_id

        with refused(Code.INVALID_ARGUMENT, "btrfs", "kind: image"):
            bench.snapshot(volume_id)

    def _used(self, bench: Bench, fs_type: str) -> tuple[str, Path]:
        capability = filesystem(fs_type)
        volume_id = bench.create(size=LEAST_BYTES[fs_type], capability=capability).volume_id
        return volume_id, bench.use(volume_id, capability)

    def _restored(self, bench: Bench, snapshot: pb.Snapshot, fs_type: str) -> Path:
        capability = filesystem(fs_type)
        volume_id = bench.create(
            size=LEAST_BYTES[fs_type],
            capability=capability,
            source=from_snapshot(snapshot.snapshot_id),
        ).volume_id
        return bench.use(volume_id, capability)


class TestDelete:
    """DeleteSnapshot, and what goes and what stays."""

    def test_a_snapshot_outlives_its_volume(self, bench: Bench) -> None:
        volume_id = bench.create().volume_id
        with bench.used(volume_id) as target:
            write_synced(target / "file", b"kept")
        snapshot = bench.snapshot(volume_id)

        bench.delete(volume_id)

        listed = bench.driver.controller.ListSnapshots(requests.list_snapshots()).entries
        assert [entry.snapshot for entry in listed] == [snapshot]
        restored = bench.create(source=from_snapshot(snapshot.snapshot_id)).volume_id
        with bench.used(restored) as copy:
            assert (copy / "file").read_bytes() == b"kept"

    def test_a_volume_outlives_the_snapshot_it_was_made_from(self, bench: Bench) -> None:
        volume_id = bench.create().volume_id
        with bench.used(volume_id) as target:
            write_synced(target / "file", b"kept")
        snapshot_id = bench.snapshot(volume_id).snapshot_id
        restored = bench.create(source=from_snapshot(snapshot_id)).volume_id

        bench.delete_snapshot(snapshot_id)

        assert entries(bench) == []
        with bench.used(restored) as copy:
            assert (copy / "file").read_bytes() == b"kept"

    def test_of_what_is_not_there_is_fine(self, bench: Bench) -> None:
        for snapshot_id in (UNKNOWN_SNAPSHOT, "../../etc", "a\0b", "snap-"):
            bench.delete_snapshot(snapshot_id)
        volume_id = bench.create().volume_id
        bench.delete_snapshot(volume_id)  # no snapshot's id: it deletes nothing
        bench.driver.controller.ControllerGetVolume(requests.get_volume(volume_id))

    def test_of_no_snapshot_at_all(self, bench: Bench) -> None:
        with refused(Code.INVALID_ARGUMENT, "snapshot_id"):
            bench.delete_snapshot("")
        with refused(Code.INVALID_ARGUMENT, "snapshot_id", "128"):
            bench.delete_snapshot("s" * 129)
