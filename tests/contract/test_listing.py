"""ListVolumes and ControllerGetVolume: all there is, in pages, with its condition."""

import os

import pytest

from csi.v1 import csi_pb2 as pb
from tests.contract import requests
from tests.contract.bench import Bench
from tests.contract.refusals import Code, refused
from tests.contract.requests import UNKNOWN_VOLUME, filesystem
from tests.driver import NODE_ID

pytestmark = pytest.mark.kernel

MANY = 25
NO_SIZE = {"kind": "directory", "enforceSize": "false"}


def ask(bench: Bench, token: str = "", max_entries: int = 0) -> pb.ListVolumesResponse:
    return bench.driver.controller.ListVolumes(requests.list_volumes(token, max_entries))


def create_many(bench: Bench, count: int = MANY) -> list[pb.Volume]:
    """Makes volumes that cost next to nothing."""
    return [bench.create(capability=filesystem(""), parameters=NO_SIZE) for _ in range(count)]


def pages(bench: Bench, max_entries: int) -> list[list[pb.Volume]]:
    """Reads all pages, to the end."""
    found, token = [], ""
    while True:
        answer = ask(bench, token, max_entries)
        found.append([entry.volume for entry in answer.entries])
        token = answer.next_token
        if not token:
            return found
        assert len(found) <= MANY, "the pages do not end"


class TestPages:
    """max_entries and starting_token."""

    def test_an_empty_list_has_no_token(self, bench: Bench) -> None:
        assert ask(bench) == pb.ListVolumesResponse()

    def test_without_a_limit_all_come_as_they_were_made(self, bench: Bench) -> None:
        made = create_many(bench)

        assert pages(bench, 0) == [made]

    @pytest.mark.parametrize("size", [1, 7, 24, 25, 26])
    def test_pages_hold_each_volume_once_in_order(self, bench: Bench, size: int) -> None:
        made = create_many(bench)

        assert pages(bench, size) == [made[i : i + size] for i in range(0, MANY, size)]

    def test_a_token_outlives_the_entry_it_was_given_for(self, bench: Bench) -> None:
        made = create_many(bench, 6)
        token = ask(bench, max_entries=3).next_token
        for volume in made[1:4]:
            bench.delete(volume.volume_id)

        answer = ask(bench, token)

        assert [entry.volume for entry in answer.entries] == made[4:]

    def test_a_token_outlives_a_restart(self, bench: Bench) -> None:
        made = create_many(bench, 4)
        token = ask(bench, max_entries=2).next_token
        bench.driver.restart()

        answer = ask(bench, token)

        assert [entry.volume for entry in answer.entries] == made[2:]

    def test_a_token_behind_the_last_entry_gives_an_empty_page(self, bench: Bench) -> None:
        made = create_many(bench, 3)
        token = ask(bench, max_entries=2).next_token
        bench.delete(made[2].volume_id)

        assert ask(bench, token) == pb.ListVolumesResponse()

    def test_what_is_made_between_two_pages_comes_on_a_later_one(self, bench: Bench) -> None:
        made = create_many(bench, 3)
        token = ask(bench, max_entries=2).next_token
        made += create_many(bench, 1)

        answer = ask(bench, token)

        assert [entry.volume for entry in answer.entries] == made[2:]

    @pytest.mark.parametrize(
        "token", ["x", "0", "-1", "1", "../../etc", "1-" + "g" * 32, "null", "1٣-" + "0" * 32]
    )
    def test_a_token_that_was_not_given_out(self, bench: Bench, token: str) -> None:
        with refused(Code.ABORTED, "starting_token", token):
            ask(bench, token)

    def test_a_token_over_the_limit(self, bench: Bench) -> None:
        with refused(Code.INVALID_ARGUMENT, "starting_token", "128"):
            ask(bench, "1" * 129)

    @pytest.mark.parametrize("max_entries", [-1, -(1 << 31)])
    def test_a_negative_limit(self, bench: Bench, max_entries: int) -> None:
        with refused(Code.INVALID_ARGUMENT, "max_entries", str(max_entries)):
            ask(bench, max_entries=max_entries)


class TestStatus:
    """published_node_ids and volume_condition, in both calls alike."""

    def test_an_entry_is_what_create_and_get_answer(self, bench: Bench) -> None:
        volume = bench.create()

        listed, found = self._both(bench, volume.volume_id)

        assert listed.volume == found.volume == volume

    def test_a_new_volume_is_nowhere_and_in_order(self, bench: Bench) -> None:
        for answer in self._both(bench, bench.create().volume_id):
            assert list(answer.status.published_node_ids) == []
            assert answer.status.HasField("volume_condition")
            assert answer.status.volume_condition.abnormal is False
            assert answer.status.volume_condition.message

    def test_the_node_that_has_it_is_told(self, bench: Bench) -> None:
        volume_id = bench.create().volume_id
        controller = bench.driver.controller
        controller.ControllerPublishVolume(requests.controller_publish(volume_id))
        for answer in self._both(bench, volume_id):
            assert list(answer.status.published_node_ids) == [NODE_ID]

        controller.ControllerUnpublishVolume(requests.controller_unpublish(volume_id))
        for answer in self._both(bench, volume_id):
            assert list(answer.status.published_node_ids) == []

    def test_a_volume_without_its_image_is_abnormal(self, bench: Bench) -> None:
        volume_id = bench.create().volume_id
        self._expect_abnormal_without(bench, volume_id, "disk.img")

    def test_a_directory_without_its_data_is_abnormal(self, btrfs_bench: Bench) -> None:
        volume_id = btrfs_bench.create(
            capability=filesystem(""), parameters={"kind": "directory"}
        ).volume_id
        self._expect_abnormal_without(btrfs_bench, volume_id, "data")

    def test_an_image_that_was_cut_short_is_abnormal(self, bench: Bench) -> None:
        volume = bench.create()
        os.truncate(bench.entry(volume.volume_id) / "disk.img", volume.capacity_bytes // 2)

        for answer in self._both(bench, volume.volume_id):
            assert answer.status.volume_condition.abnormal is True

    def test_an_unknown_volume_is_not_found(self, bench: Bench) -> None:
        with refused(Code.NOT_FOUND, UNKNOWN_VOLUME):
            bench.driver.controller.ControllerGetVolume(requests.get_volume(UNKNOWN_VOLUME))

    def test_no_volume_at_all(self, bench: Bench) -> None:
        with refused(Code.INVALID_ARGUMENT, "volume_id"):
            bench.driver.controller.ControllerGetVolume(requests.get_volume(""))

    def _expect_abnormal_without(self, bench: Bench, volume_id: str, name: str) -> None:
        data, elsewhere = bench.entry(volume_id) / name, bench.entry(volume_id) / "moved-away"
        data.rename(elsewhere)
        for answer in self._both(bench, volume_id):
            assert answer.status.volume_condition.abnormal is True
            assert "missing" in answer.status.volume_condition.message
            assert len(answer.status.volume_condition.message.encode()) <= 128

        elsewhere.rename(data)
        for answer in self._both(bench, volume_id):
            assert answer.status.volume_condition.abnormal is False

    def _both(
        self, bench: Bench, volume_id: str
    ) -> tuple[pb.ListVolumesResponse.Entry, pb.ControllerGetVolumeResponse]:
        entries = {entry.volume.volume_id: entry for entry in ask(bench).entries}
        found = bench.driver.controller.ControllerGetVolume(requests.get_volume(volume_id))
        return entries[volume_id], found
