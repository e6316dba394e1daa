"""Ids that the driver never gave out, or that no longer mean anything."""

import os
from pathlib import Path

import pytest
from google.protobuf.message import Message

from tests.contract import requests
from tests.contract.bench import Bench, write_synced
from tests.contract.every_rpc import UNKNOWN_SNAPSHOT, nothing_changes, put, request_for, send
from tests.contract.node_fixtures import UNKNOWN_VOLUME, the_mount_at
from tests.contract.refusals import Code, refused
from tests.contract.requests import from_snapshot, from_volume

pytestmark = pytest.mark.kernel

STRANGE = [
    UNKNOWN_VOLUME,
    UNKNOWN_SNAPSHOT,
    UNKNOWN_VOLUME.upper(),
    f"{UNKNOWN_VOLUME}/",
    f"{UNKNOWN_VOLUME}\n",
    f" {UNKNOWN_VOLUME}",
    "../../etc",
    "/etc",
    "..",
    ".",
    "*",
    "%s%n",
    "vol\0",
    "\0",
    "volumes/../trash",
    "vol-\N{GREEK SMALL LETTER ALPHA}",
    "\N{PILE OF POO}",
    "csi-" + "0" * 64,
]

NOT_FOUND = {
    "ControllerPublishVolume": "volume_id",
    "ValidateVolumeCapabilities": "volume_id",
    "CreateSnapshot": "source_volume_id",
    "GetSnapshot": "snapshot_id",
    "ControllerExpandVolume": "volume_id",
    "ControllerGetVolume": "volume_id",
    "ControllerModifyVolume": "volume_id",
    "GetVolumeGroupSnapshot": "group_snapshot_id",
    "GetMetadataAllocated": "snapshot_id",
    "GetMetadataDelta": "base_snapshot_id",
    "NodeStageVolume": "volume_id",
    "NodePublishVolume": "volume_id",
    "NodeGetVolumeStats": "volume_id",
    "NodeExpandVolume": "volume_id",
}
"""Calls that need the object, and the field that names it."""

FINE = {
    "DeleteVolume": "volume_id",
    "ControllerUnpublishVolume": "volume_id",
    "DeleteSnapshot": "snapshot_id",
    "ListSnapshots": "snapshot_id",
    "DeleteVolumeGroupSnapshot": "group_snapshot_id",
    "NodeUnstageVolume": "volume_id",
    "NodeUnpublishVolume": "volume_id",
}
"""Calls that are content when the object is not there."""


def _with_id(rpc: str, field: str, value: str) -> Message:
    request = request_for(rpc)
    put(request, (field,), value)
    return request


@pytest.mark.parametrize("rpc", NOT_FOUND)
@pytest.mark.parametrize("strange", STRANGE, ids=repr)
def test_what_needs_an_object_does_not_find_it(bench: Bench, rpc: str, strange: str) -> None:
    with nothing_changes(bench.pool), refused(Code.NOT_FOUND) as refusal:
        send(bench.driver, rpc, _with_id(rpc, NOT_FOUND[rpc], strange))

    # It is named, in a spelling that can be read.
    assert strange in refusal.message or repr(strange)[1:-1] in refusal.message


@pytest.mark.parametrize("rpc", FINE)
@pytest.mark.parametrize("strange", STRANGE, ids=repr)
def test_what_takes_away_is_content(bench: Bench, rpc: str, strange: str) -> None:
    with nothing_changes(bench.pool):
        answer = send(bench.driver, rpc, _with_id(rpc, FINE[rpc], strange))

    assert answer == b""


@pytest.mark.parametrize("strange", STRANGE, ids=repr)
def test_a_source_that_is_not_there_makes_nothing(bench: Bench, strange: str) -> None:
    for source, sort in ((from_volume(strange), "vol-"), (from_snapshot(strange), "snap-")):
        # One of the right shape may well be there, in a pool of another node.
        is_elsewhere = strange in (UNKNOWN_VOLUME, UNKNOWN_SNAPSHOT) and strange.startswith(sort)
        code = Code.RESOURCE_EXHAUSTED if is_elsewhere else Code.NOT_FOUND
        with nothing_changes(bench.pool), refused(code):
            bench.create(source=source)

    volume_id = bench.create().volume_id
    with nothing_changes(bench.pool), refused(Code.NOT_FOUND):
        bench.group(volume_id, strange)


def test_an_id_leads_to_no_file_outside_of_the_pool(bench: Bench, tmp_path: Path) -> None:
    """Not even where there is one at just that place."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "record.json").write_text("{}")
    way_out = os.path.relpath(victim, bench.pool / "volumes")
    assert len(way_out) <= 128

    for rpc, field in FINE.items():
        send(bench.driver, rpc, _with_id(rpc, field, way_out))
    for rpc, field in NOT_FOUND.items():
        with refused(Code.NOT_FOUND):
            send(bench.driver, rpc, _with_id(rpc, field, way_out))

    assert os.listdir(victim) == ["record.json"]


def test_the_id_of_a_volume_made_again_means_nothing(bench: Bench) -> None:
    name = bench.name()
    old = bench.create(name).volume_id
    bench.delete(old)
    new = bench.create(name).volume_id
    with bench.used(new) as target:
        write_synced(target / "file", b"of the new one")
        with nothing_changes(bench.pool):
            for rpc, field in FINE.items():
                if field == "volume_id":
                    assert send(bench.driver, rpc, _with_id(rpc, field, old)) == b""
            for rpc, field in NOT_FOUND.items():
                if field in ("volume_id", "source_volume_id"):
                    with refused(Code.NOT_FOUND, old):
                        send(bench.driver, rpc, _with_id(rpc, field, old))

        assert the_mount_at(target).fs_type == "ext4"
        assert (target / "file").read_bytes() == b"of the new one"


def test_the_id_of_a_snapshot_made_again_means_nothing(bench: Bench) -> None:
    volume_id, name = bench.create().volume_id, bench.name("snapshot")
    old = bench.snapshot(volume_id, name).snapshot_id
    bench.delete_snapshot(old)
    new = bench.snapshot(volume_id, name).snapshot_id
    assert old != new

    with nothing_changes(bench.pool):
        bench.driver.controller.DeleteSnapshot(requests.delete_snapshot(old))
        with refused(Code.NOT_FOUND, old):
            bench.driver.controller.GetSnapshot(requests.get_snapshot(old))
        with refused(Code.NOT_FOUND, old):
            bench.create(source=from_snapshot(old))

    found = bench.driver.controller.GetSnapshot(requests.get_snapshot(new))
    assert found.snapshot.snapshot_id == new


def test_an_id_of_another_sort_means_nothing(bench: Bench) -> None:
    volume_id = bench.create().volume_id
    snapshot_id = bench.snapshot(volume_id).snapshot_id

    with nothing_changes(bench.pool):
        bench.driver.controller.DeleteVolume(requests.delete_volume(snapshot_id))
        bench.driver.controller.DeleteSnapshot(requests.delete_snapshot(volume_id))
        with refused(Code.NOT_FOUND, snapshot_id):
            bench.driver.controller.ControllerGetVolume(requests.get_volume(snapshot_id))
        with refused(Code.NOT_FOUND):
            bench.create(source=from_snapshot(volume_id))


def test_an_id_that_differs_in_one_character_means_nothing(bench: Bench) -> None:
    volume_id = bench.create().volume_id
    for place in (0, 5, len("vol-") + 12 + 3, len(volume_id) - 1):
        character = "0" if volume_id[place] != "0" else "1"
        other = volume_id[:place] + character + volume_id[place + 1 :]
        with nothing_changes(bench.pool):
            bench.driver.controller.DeleteVolume(requests.delete_volume(other))
            with refused(Code.NOT_FOUND, other):
                bench.driver.controller.ControllerGetVolume(requests.get_volume(other))
