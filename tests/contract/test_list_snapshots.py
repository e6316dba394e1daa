"""ListSnapshots and GetSnapshot: filters, pages and tokens."""

import pytest

from csi.v1 import csi_pb2 as pb
from tests.contract import requests
from tests.contract.bench import Bench
from tests.contract.refusals import Code, refused
from tests.contract.requests import UNKNOWN_SNAPSHOT, UNKNOWN_VOLUME

pytestmark = pytest.mark.kernel


def ask(
    bench: Bench,
    *,
    snapshot_id: str = "",
    volume_id: str = "",
    token: str = "",
    max_entries: int = 0,
) -> pb.ListSnapshotsResponse:
    return bench.driver.controller.ListSnapshots(
        requests.list_snapshots(
            snapshot_id=snapshot_id, volume_id=volume_id, token=token, max_entries=max_entries
        )
    )


def snapshots(answer: pb.ListSnapshotsResponse) -> list[pb.Snapshot]:
    return [entry.snapshot for entry in answer.entries]


def take_five(bench: Bench) -> tuple[str, str, list[pb.Snapshot]]:
    """Five snapshots of two volumes, in turns."""
    first, second = bench.create().volume_id, bench.create().volume_id
    return first, second, [bench.snapshot(v) for v in (first, second, first, second, first)]


def test_an_empty_list_has_no_token(bench: Bench) -> None:
    assert ask(bench) == pb.ListSnapshotsResponse()


def test_all_come_as_they_were_taken(bench: Bench) -> None:
    _, _, taken = take_five(bench)

    answer = ask(bench)

    assert snapshots(answer) == taken
    assert answer.next_token == ""


def test_those_of_one_volume(bench: Bench) -> None:
    first, second, taken = take_five(bench)

    assert snapshots(ask(bench, volume_id=first)) == taken[::2]
    assert snapshots(ask(bench, volume_id=second)) == taken[1::2]
    bench.delete(second)
    assert snapshots(ask(bench, volume_id=second)) == taken[1::2]


def test_one_by_its_id(bench: Bench) -> None:
    first, second, taken = take_five(bench)
    snapshot = taken[0]

    assert snapshots(ask(bench, snapshot_id=snapshot.snapshot_id)) == [snapshot]
    assert snapshots(ask(bench, snapshot_id=snapshot.snapshot_id, volume_id=first)) == [snapshot]
    assert snapshots(ask(bench, snapshot_id=snapshot.snapshot_id, volume_id=second)) == []


@pytest.mark.parametrize("unknown", [UNKNOWN_SNAPSHOT, UNKNOWN_VOLUME, "../../etc", "a\0b"])
def test_filters_that_match_nothing_give_an_empty_list(bench: Bench, unknown: str) -> None:
    take_five(bench)

    assert ask(bench, snapshot_id=unknown) == pb.ListSnapshotsResponse()
    assert ask(bench, volume_id=unknown) == pb.ListSnapshotsResponse()


@pytest.mark.parametrize("size", [1, 2, 4, 5, 6])
def test_pages_hold_each_snapshot_once_in_order(bench: Bench, size: int) -> None:
    _, _, taken = take_five(bench)

    pages: list[list[pb.Snapshot]] = []
    token = ""
    while not pages or token:
        answer = ask(bench, token=token, max_entries=size)
        pages.append(snapshots(answer))
        token = answer.next_token

    assert pages == [taken[i : i + size] for i in range(0, 5, size)]


def test_pages_of_one_volume(bench: Bench) -> None:
    first, _, taken = take_five(bench)

    page = ask(bench, volume_id=first, max_entries=2)
    rest = ask(bench, volume_id=first, max_entries=2, token=page.next_token)

    assert snapshots(page) == [taken[0], taken[2]]
    assert snapshots(rest) == [taken[4]]
    assert rest.next_token == ""


def test_a_token_outlives_the_entry_it_was_given_for(bench: Bench) -> None:
    _, _, taken = take_five(bench)
    token = ask(bench, max_entries=2).next_token
    for snapshot in taken[1:3]:
        bench.delete_snapshot(snapshot.snapshot_id)

    assert snapshots(ask(bench, token=token)) == taken[3:]


@pytest.mark.parametrize("token", ["x", "0", "-1", "../../etc", "1-" + "g" * 32])
def test_a_token_that_was_not_given_out(bench: Bench, token: str) -> None:
    with refused(Code.ABORTED, "starting_token", token):
        ask(bench, token=token)


def test_a_bad_token_beside_a_filter(bench: Bench) -> None:
    _, _, taken = take_five(bench)

    with refused(Code.ABORTED, "starting_token", "'x'"):
        ask(bench, token="x", snapshot_id=taken[0].snapshot_id)
    with refused(Code.ABORTED, "starting_token", "'x'"):
        ask(bench, token="x", volume_id=taken[0].source_volume_id)


def test_a_negative_limit(bench: Bench) -> None:
    with refused(Code.INVALID_ARGUMENT, "max_entries", "-1"):
        ask(bench, max_entries=-1)


class TestGet:
    """GetSnapshot."""

    def test_answers_what_create_did(self, bench: Bench) -> None:
        snapshot = bench.snapshot(bench.create().volume_id)

        answer = bench.driver.controller.GetSnapshot(requests.get_snapshot(snapshot.snapshot_id))

        assert answer.snapshot == snapshot

    @pytest.mark.parametrize("unknown", [UNKNOWN_SNAPSHOT, UNKNOWN_VOLUME, "../../etc"])
    def test_of_what_is_not_there(self, bench: Bench, unknown: str) -> None:
        with refused(Code.NOT_FOUND, unknown):
            bench.driver.controller.GetSnapshot(requests.get_snapshot(unknown))

    def test_of_a_deleted_one(self, bench: Bench) -> None:
        snapshot_id = bench.snapshot(bench.create().volume_id).snapshot_id
        bench.delete_snapshot(snapshot_id)

        with refused(Code.NOT_FOUND, snapshot_id):
            bench.driver.controller.GetSnapshot(requests.get_snapshot(snapshot_id))

    def test_of_none_at_all(self, bench: Bench) -> None:
        with refused(Code.INVALID_ARGUMENT, "snapshot_id"):
            bench.driver.controller.GetSnapshot(requests.get_snapshot(""))
