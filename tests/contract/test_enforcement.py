"""The size asked for is the size there is, and nobody takes another's room."""

import errno
import os

import pytest

from tests.contract import requests
from tests.contract.bench import Bench, read_bytes, write_synced
from tests.contract.node_fixtures import fill, image_of, run
from tests.contract.requests import LEAST_BYTES, MIB, filesystem, from_volume, raw_block

pytestmark = pytest.mark.kernel

OVERHEAD = {"ext4": 0.15, "xfs": 0.28, "btrfs": 0.65}
"""What the filesystem's own tables may take of the smallest volumes, as a part of the whole.

btrfs keeps its tables twice and cuts its room into chunks, of which the smallest has few.
"""


@pytest.mark.parametrize("fs_type", ["ext4", "xfs", "btrfs"])
def test_a_full_filesystem_takes_no_more(bench: Bench, fs_type: str) -> None:
    capability = filesystem(fs_type)
    size = LEAST_BYTES[fs_type]
    full = bench.create(size=size, capability=capability).volume_id
    neighbour = bench.create(size=size, capability=capability).volume_id
    with bench.used(full, capability) as target, bench.used(neighbour, capability) as other:
        write_synced(other / "file", b"before")
        free = os.statvfs(other).f_bavail

        written, number = fill(target / "ballast")

        assert number == errno.ENOSPC
        assert size * (1 - OVERHEAD[fs_type]) <= written < size
        assert image_of(bench.pool, full).stat().st_blocks * 512 <= size
        assert image_of(bench.pool, full).stat().st_size == size
        # It is full, not broken: what is in it can be read, and what goes makes room.
        assert (target / "ballast").stat().st_size == written
        (target / "ballast").unlink()
        run("sync", "--file-system", str(target))
        write_synced(target / "again", b"x" * (8 * MIB))

        assert (other / "file").read_bytes() == b"before"
        assert os.statvfs(other).f_bavail == free
        write_synced(other / "more", b"x" * (8 * MIB))


def test_the_whole_size_is_there_for_whoever_is_not_root(bench: Bench) -> None:
    """ext4 keeps a part for root unless told otherwise, which would be missing here."""
    volume_id = bench.create().volume_id
    with bench.used(volume_id) as target:
        status = os.statvfs(target)

        assert status.f_bfree - status.f_bavail < 0.03 * status.f_blocks
        assert status.f_bavail * status.f_frsize >= 0.85 * 64 * MIB


def test_a_thin_volume_takes_what_is_written_and_a_thick_one_all(bench: Bench) -> None:
    thin = bench.create(size=32 * MIB, capability=raw_block()).volume_id
    thick = bench.create(
        size=32 * MIB, capability=raw_block(), parameters={"allocation": "thick"}
    ).volume_id

    assert image_of(bench.pool, thin).stat().st_blocks * 512 <= MIB
    assert image_of(bench.pool, thick).stat().st_blocks * 512 >= 32 * MIB


def test_a_thick_volume_stays_thick_as_it_grows_and_is_cloned(bench: Bench) -> None:
    parameters = {"allocation": "thick"}
    volume_id = bench.create(size=16 * MIB, capability=raw_block(), parameters=parameters).volume_id
    bench.driver.controller.ControllerExpandVolume(requests.controller_expand(volume_id, 32 * MIB))
    clone = bench.create(
        size=48 * MIB,
        capability=raw_block(),
        parameters=parameters,
        source=from_volume(volume_id),
    ).volume_id

    assert image_of(bench.pool, volume_id).stat().st_blocks * 512 >= 32 * MIB
    assert image_of(bench.pool, clone).stat().st_blocks * 512 >= 48 * MIB


def test_a_clone_that_is_filled_leaves_its_source_alone(bench: Bench) -> None:
    source = bench.create(size=16 * MIB, capability=raw_block()).volume_id
    with bench.used(source, raw_block()) as target:
        write_synced(target, b"source" * 1000)
    clone = bench.create(
        size=16 * MIB, capability=raw_block(), source=from_volume(source)
    ).volume_id

    with bench.used(clone, raw_block()) as target, bench.used(source, raw_block()) as other:
        write_synced(target, b"\xff" * (16 * MIB))
        assert read_bytes(other, 6000) == b"source" * 1000
        write_synced(other, b"\x01" * (16 * MIB))
        assert read_bytes(target, 16 * MIB) == b"\xff" * (16 * MIB)


@pytest.mark.parametrize("fs_type", ["ext4", "xfs", "btrfs"])
def test_a_filesystem_of_a_common_size_loses_little(bench: Bench, fs_type: str) -> None:
    """What the documentation promises of a volume of 1 GiB: at most a tenth is overhead."""
    capability = filesystem(fs_type)
    volume_id = bench.create(size=1 << 30, capability=capability).volume_id
    with bench.used(volume_id, capability) as target:
        status = os.statvfs(target)

        assert status.f_bavail * status.f_frsize >= 0.88 * (1 << 30)
