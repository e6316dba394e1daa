"""frozenCopySeconds: a source in use is held still for as long as its copy takes, and no longer."""

from pathlib import Path

import pytest

from tests.contract import requests
from tests.contract.bench import Bench, write_synced
from tests.contract.freezing import thaw
from tests.contract.refusals import Code, refused
from tests.contract.requests import MIB, filesystem, from_snapshot, raw_block

pytestmark = pytest.mark.kernel

PATIENT = {"frozenCopySeconds": "30"}
SIZE = 128 * MIB


def used_source(bench: Bench, fs_type: str = "ext4", size: int = SIZE) -> tuple[str, Path]:
    volume_id = bench.create(size=size, capability=filesystem(fs_type)).volume_id
    return volume_id, bench.use(volume_id, filesystem(fs_type))


@pytest.mark.parametrize(("fs_type", "size"), [("ext4", SIZE), ("xfs", 300 * MIB)])
def test_a_mounted_source_is_copied_as_it_was(ext4_bench: Bench, fs_type: str, size: int) -> None:
    source_id, target = used_source(ext4_bench, fs_type, size)
    write_synced(target / "file", b"old")

    snapshot = ext4_bench.snapshot(source_id, parameters=PATIENT)

    assert snapshot.ready_to_use is True
    assert not thaw(target), "the volume was left frozen"
    write_synced(target / "file", b"new")
    restored = ext4_bench.create(
        size=size, capability=filesystem(fs_type), source=from_snapshot(snapshot.snapshot_id)
    )
    with ext4_bench.used(restored.volume_id, filesystem(fs_type)) as copy:
        assert (copy / "file").read_bytes() == b"old"


def test_a_source_at_rest_needs_no_freeze(ext4_bench: Bench) -> None:
    source_id = ext4_bench.create().volume_id

    assert ext4_bench.snapshot(source_id, parameters=PATIENT).ready_to_use is True


@pytest.mark.parametrize("seconds", ["0.001", "0.01"])
def test_a_copy_that_takes_longer_is_given_up(ext4_bench: Bench, seconds: str) -> None:
    source_id, target = used_source(ext4_bench)
    write_synced(target / "file", bytes(range(256)) * (96 * MIB // 256))

    with refused(Code.FAILED_PRECONDITION, seconds, "frozenCopySeconds", "stop its pods"):
        ext4_bench.snapshot(source_id, parameters={"frozenCopySeconds": seconds})

    assert not thaw(target), "the volume was left frozen"
    assert list((ext4_bench.pool / "snapshots").iterdir()) == []
    write_synced(target / "file", b"still writable")


def test_a_block_device_in_use_cannot_be_held_still(ext4_bench: Bench) -> None:
    source_id = ext4_bench.create(capability=raw_block()).volume_id
    ext4_bench.use(source_id, raw_block())

    with refused(Code.FAILED_PRECONDITION, source_id, "filesystem"):
        ext4_bench.snapshot(source_id, parameters=PATIENT)


@pytest.mark.parametrize("seconds", ["0", "0.0", "-1", "61", "1e1", "ten", "", "nan", "٣"])
def test_other_times_are_refused(ext4_bench: Bench, seconds: str) -> None:
    source_id = ext4_bench.create().volume_id

    with refused(Code.INVALID_ARGUMENT, "frozenCopySeconds", "60"):
        ext4_bench.snapshot(source_id, parameters={"frozenCopySeconds": seconds})


def test_a_group_cannot_be_held_still_for_copies(ext4_bench: Bench) -> None:
    source_id = ext4_bench.create().volume_id
    request = requests.create_group(ext4_bench.name("group"), [source_id], PATIENT)

    with refused(Code.INVALID_ARGUMENT, "frozenCopySeconds", "group"):
        ext4_bench.driver.group.CreateVolumeGroupSnapshot(request)


def test_where_blocks_are_shared_it_changes_nothing(bench: Bench) -> None:
    source_id, target = used_source(bench)
    write_synced(target / "file", b"old")

    snapshot = bench.snapshot(source_id, parameters=PATIENT)

    assert snapshot.ready_to_use is True
    assert not thaw(target), "the volume was left frozen"
