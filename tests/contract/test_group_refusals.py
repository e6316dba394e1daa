"""Group snapshots that cannot be had: refused whole, with nothing left of any member."""

import pytest

from tests.contract import requests
from tests.contract.bench import Bench, write_synced
from tests.contract.freezing import thaw
from tests.contract.refusals import Code, refused
from tests.contract.requests import UNKNOWN_VOLUME, filesystem, raw_block

pytestmark = pytest.mark.kernel

DIRECTORY = {"kind": "directory"}


@pytest.fixture(params=["xfs", "btrfs", "ext4"])
def any_bench(request: pytest.FixtureRequest) -> Bench:
    """A bench on each sort of pool."""
    name = "bench" if request.param == "xfs" else f"{request.param}_bench"
    bench = request.getfixturevalue(name)
    assert isinstance(bench, Bench)
    return bench


def expect_nothing_made(bench: Bench) -> None:
    """Neither the driver nor the pool has anything of a group."""
    assert not bench.driver.controller.ListSnapshots(requests.list_snapshots()).entries
    for folder in ("snapshots", "groups", "building"):
        assert list((bench.pool / folder).iterdir()) == []


def test_a_block_device_in_use(any_bench: Bench) -> None:
    first = any_bench.create().volume_id
    block = any_bench.create(capability=raw_block()).volume_id
    any_bench.use(block, raw_block())

    with refused(Code.FAILED_PRECONDITION, block, "block"):
        any_bench.group(first, block)
    expect_nothing_made(any_bench)


def test_a_directory_in_use(btrfs_bench: Bench) -> None:
    capability = filesystem("")
    first = btrfs_bench.create().volume_id
    directory = btrfs_bench.create(capability=capability, parameters=DIRECTORY).volume_id
    btrfs_bench.use(directory, capability)

    with refused(Code.FAILED_PRECONDITION, directory, "directory"):
        btrfs_bench.group(first, directory)
    expect_nothing_made(btrfs_bench)


def test_a_filesystem_in_use_where_blocks_cannot_be_shared(ext4_bench: Bench) -> None:
    first, used = ext4_bench.create().volume_id, ext4_bench.create().volume_id
    target = ext4_bench.use(used)

    with refused(Code.FAILED_PRECONDITION, used, "stop its pods"):
        ext4_bench.group(first, used)
    expect_nothing_made(ext4_bench)
    assert not thaw(target), "the volume was left frozen"


def test_a_member_that_cannot_be_read_takes_all_back(bench: Bench) -> None:
    """The second image has gone: the first one, frozen by then, is thawed and forgotten."""
    used, broken = bench.create().volume_id, bench.create().volume_id
    target = bench.use(used)
    write_synced(target / "file", b"data")
    image = bench.entry(broken) / "disk.img"
    aside = image.rename(image.with_name("aside"))

    with refused(Code.UNAVAILABLE, "disk.img"):
        bench.group(used, broken)

    assert not thaw(target), "the volume was left frozen"
    expect_nothing_made(bench)
    aside.rename(image)


def test_it_can_be_had_once_the_hindrance_is_gone(bench: Bench) -> None:
    first, block = bench.create().volume_id, bench.create(capability=raw_block()).volume_id
    name = bench.name("group")
    bench.use(block, raw_block())
    with refused(Code.FAILED_PRECONDITION, block):
        bench.group(first, block, name=name)

    bench.release(block)

    assert bench.group(first, block, name=name).ready_to_use is True


@pytest.mark.parametrize("unknown", [UNKNOWN_VOLUME, "../../etc"])
def test_an_unknown_volume(bench: Bench, unknown: str) -> None:
    with refused(Code.NOT_FOUND, unknown):
        bench.group(bench.create().volume_id, unknown)
    expect_nothing_made(bench)


def test_a_volume_named_twice(bench: Bench) -> None:
    volume_id = bench.create().volume_id

    with refused(Code.INVALID_ARGUMENT, "source_volume_ids", "twice"):
        bench.group(volume_id, volume_id)
    expect_nothing_made(bench)


def test_no_name_no_volumes_and_unknown_parameters(bench: Bench) -> None:
    create = bench.driver.group.CreateVolumeGroupSnapshot
    with refused(Code.INVALID_ARGUMENT, "name"):
        create(requests.create_group("", [UNKNOWN_VOLUME]))
    with refused(Code.INVALID_ARGUMENT, "name", "U+0000"):
        create(requests.create_group("a\0b", [UNKNOWN_VOLUME]))
    with refused(Code.INVALID_ARGUMENT, "source_volume_ids"):
        create(requests.create_group("name", []))
    with refused(Code.INVALID_ARGUMENT, "source_volume_ids", "empty"):
        create(requests.create_group("name", ["", UNKNOWN_VOLUME]))
    with refused(Code.INVALID_ARGUMENT, "'quiesce'"):
        create(requests.create_group("name", [UNKNOWN_VOLUME], {"quiesce": "yes"}))
