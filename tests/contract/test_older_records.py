"""An upgrade: pools whose records an older driver wrote are served, and their volumes repaired."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract import requests
from tests.contract.bench import Bench, bench_of, read_bytes
from tests.contract.kinds import DATA, KINDS, file_of, use_all, wipe
from tests.contract.refusals import Code, refused
from tests.contract.requests import from_snapshot

pytestmark = pytest.mark.kernel

_FIRST_FIELDS = {
    "volumes": {
        *("version", "id", "name", "created_ns", "kind", "access", "size_bytes", "fs_type"),
        *("parameters", "capabilities", "source", "claim", "borrowed_bytes", "lender_id"),
        *("quota_group", "copying", "publications", "ephemeral"),
    },
    "snapshots": {
        *("version", "id", "name", "created_ns", "source_volume_id", "kind", "access"),
        *("size_bytes", "fs_type", "held_bytes", "shared", "copying", "group_id"),
    },
    "groups": {"version", "id", "name", "created_ns", "snapshot_ids", "source_volume_ids"},
}
"""What records of the first driver had; its parameters were kind, pool, fs_type, enforce_size and
thick."""
_FIRST_PARAMETERS = {"kind", "pool", "fs_type", "enforce_size", "thick"}


@pytest.fixture
def bench(btrfs_pool: Path, tmp_path: Path) -> Iterator[Bench]:
    with bench_of(btrfs_pool, tmp_path) as bench:
        yield bench


def _make_older(pool: Path) -> None:
    """Brings all records back to what the first driver wrote."""
    for folder, fields in _FIRST_FIELDS.items():
        for path in (pool / folder).glob("*/record.json"):
            record = {k: v for k, v in json.loads(path.read_bytes()).items() if k in fields}
            if "parameters" in record:
                parameters = record["parameters"]
                record["parameters"] = {
                    k: parameters[k] for k in _FIRST_PARAMETERS & set(parameters)
                }
            assert record["version"] == 1
            path.write_text(json.dumps(record), encoding="utf-8")


def test_records_of_the_first_driver_are_repaired_on_the_node(bench: Bench) -> None:
    volumes = use_all(bench)
    for name, kind in KINDS.items():
        publish = requests.controller_publish(volumes[name], kind.capability)
        bench.driver.controller.ControllerPublishVolume(publish)
    snapshot = bench.snapshot(volumes["ext4"]).snapshot_id
    group = bench.group(volumes["ext4"], volumes["xfs"])
    bench.driver.stop_cleanly()
    wipe(bench)
    _make_older(bench.pool)

    bench.driver.start()

    for name, kind in KINDS.items():
        with bench.used(volumes[name], kind.capability) as target:
            assert read_bytes(file_of(target), len(DATA)) == DATA
        with refused(Code.FAILED_PRECONDITION, volumes[name], "published"):
            bench.driver.controller.DeleteVolume(requests.delete_volume(volumes[name]))
        unpublish = requests.controller_unpublish(volumes[name])
        bench.driver.controller.ControllerUnpublishVolume(unpublish)
    restored = bench.create(source=from_snapshot(snapshot)).volume_id
    with bench.used(restored) as target:
        assert read_bytes(target / "file", len(DATA)) == DATA
    members = [member.snapshot_id for member in group.snapshots]
    get_group = requests.get_group(group.group_snapshot_id, members)
    assert bench.driver.group.GetVolumeGroupSnapshot(get_group).group_snapshot == group
    # A record that is written again is a new one, and a later start reads it.
    limits = {"readIOPS": "100"}
    bench.driver.controller.ControllerModifyVolume(requests.modify(volumes["ext4"], limits))
    bench.driver.restart()
    with bench.used(volumes["ext4"]) as target:
        assert read_bytes(target / "file", len(DATA)) == DATA
