"""Groups and their members: got together, and deleted together."""

from concurrent.futures import Future, ThreadPoolExecutor

import grpc
import pytest

from csi.v1 import csi_pb2 as pb
from tests.contract import requests
from tests.contract.bench import Bench, write_synced
from tests.contract.refusals import Code, refused
from tests.contract.requests import (
    MIB,
    UNKNOWN_GROUP,
    UNKNOWN_SNAPSHOT,
    from_snapshot,
)

pytestmark = pytest.mark.kernel


def get(bench: Bench, group: pb.VolumeGroupSnapshot) -> pb.VolumeGroupSnapshot:
    request = requests.get_group(group.group_snapshot_id, members_of(group))
    return bench.driver.group.GetVolumeGroupSnapshot(request).group_snapshot


def members_of(group: pb.VolumeGroupSnapshot) -> list[str]:
    return [snapshot.snapshot_id for snapshot in group.snapshots]


def two(bench: Bench) -> tuple[str, str]:
    return bench.create().volume_id, bench.create(size=96 * MIB).volume_id


class TestGet:
    """GetVolumeGroupSnapshot: the group first, then the list."""

    def test_an_unknown_group_is_not_found_whatever_the_list(self, bench: Bench) -> None:
        for group_id in (UNKNOWN_GROUP, "../../etc"):
            for members in ([], [UNKNOWN_SNAPSHOT]):
                with refused(Code.NOT_FOUND, group_id):
                    bench.driver.group.GetVolumeGroupSnapshot(requests.get_group(group_id, members))

    def test_a_list_that_does_not_match(self, bench: Bench) -> None:
        group = bench.group(*two(bench))
        alone = bench.snapshot(group.snapshots[0].source_volume_id).snapshot_id
        first, second = members_of(group)

        for members in ([], [first], [first, alone], [first, second, alone], [first, first]):
            with refused(Code.INVALID_ARGUMENT, "snapshot_ids", group.group_snapshot_id):
                bench.driver.group.GetVolumeGroupSnapshot(
                    requests.get_group(group.group_snapshot_id, members)
                )

    def test_the_order_of_the_list_does_not_matter(self, bench: Bench) -> None:
        group = bench.group(*two(bench))
        request = requests.get_group(group.group_snapshot_id, members_of(group)[::-1])

        assert bench.driver.group.GetVolumeGroupSnapshot(request).group_snapshot == group

    def test_without_an_id(self, bench: Bench) -> None:
        with refused(Code.INVALID_ARGUMENT, "group_snapshot_id"):
            bench.driver.group.GetVolumeGroupSnapshot(requests.get_group(""))


class TestDelete:
    """DeleteVolumeGroupSnapshot takes the members along; they do not go alone."""

    def test_the_members_go_with_the_group(self, bench: Bench) -> None:
        group = bench.group(*two(bench))

        bench.delete_group(group)

        assert not bench.driver.controller.ListSnapshots(requests.list_snapshots()).entries
        with refused(Code.NOT_FOUND, group.group_snapshot_id):
            get(bench, group)
        for member in members_of(group):
            with refused(Code.NOT_FOUND, member):
                bench.driver.controller.GetSnapshot(requests.get_snapshot(member))
        bench.delete_group(group)  # a repeat is fine

    def test_a_member_is_not_deleted_alone(self, bench: Bench) -> None:
        group = bench.group(*two(bench))

        with refused(Code.INVALID_ARGUMENT, members_of(group)[0], group.group_snapshot_id):
            bench.delete_snapshot(members_of(group)[0])
        assert get(bench, group) == group

    def test_what_was_restored_stays(self, bench: Bench) -> None:
        first, second = two(bench)
        with bench.used(first) as target:
            write_synced(target / "file", b"kept")
        group = bench.group(first, second)
        copy = bench.use(bench.create(source=from_snapshot(members_of(group)[0])).volume_id)

        bench.delete_group(group)

        assert (copy / "file").read_bytes() == b"kept"

    def test_a_list_that_does_not_match_deletes_nothing(self, bench: Bench) -> None:
        group = bench.group(*two(bench))

        for members in ([], members_of(group)[:1], [*members_of(group), UNKNOWN_SNAPSHOT]):
            with refused(Code.INVALID_ARGUMENT, "snapshot_ids", group.group_snapshot_id):
                bench.driver.group.DeleteVolumeGroupSnapshot(
                    requests.delete_group(group.group_snapshot_id, members)
                )
        assert get(bench, group) == group

    def test_an_unknown_group_is_fine_whatever_the_list(self, bench: Bench) -> None:
        for group_id in (UNKNOWN_GROUP, "../../etc"):
            for members in ([], [UNKNOWN_SNAPSHOT]):
                bench.driver.group.DeleteVolumeGroupSnapshot(
                    requests.delete_group(group_id, members)
                )
        with refused(Code.INVALID_ARGUMENT, "group_snapshot_id"):
            bench.driver.group.DeleteVolumeGroupSnapshot(requests.delete_group(""))


def test_a_group_that_many_delete_at_once_is_deleted_once(bench: Bench) -> None:
    group_service = bench.driver.group
    with ThreadPoolExecutor(8) as callers:
        for _ in range(10):
            group = bench.group(*two(bench))
            # A member that is named twice, too: the group is gone for most of the callers.
            request = requests.delete_group(group.group_snapshot_id, members_of(group))
            twice = requests.delete_group(group.group_snapshot_id, members_of(group) * 2)
            calls = [
                callers.submit(group_service.DeleteVolumeGroupSnapshot, each)
                for each in (request, request, request, twice, request, twice, request, request)
            ]
            codes = {_code(call) for call in calls}
            # Twice the members is a wrong list as long as the group is there.
            assert codes <= {Code.OK, Code.ABORTED, Code.INVALID_ARGUMENT}
            bench.delete_group(group)


def _code(call: Future[pb.DeleteVolumeGroupSnapshotResponse]) -> Code:
    error = call.exception(timeout=60)
    if error is None:
        return Code.OK
    assert isinstance(error, grpc.RpcError)
    code: Code = error.code()
    return code
