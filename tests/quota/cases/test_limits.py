"""A directory is held to its size: who writes, who neighbours, who grows."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from csi.v1 import csi_pb2 as pb
from tests.contract import requests
from tests.contract.bench import Bench, wait_until
from tests.contract.node_fixtures import wait_for_empty_trash
from tests.contract.requests import MIB, filesystem
from tests.quota.cases import tenant
from tests.quota.cases.tenant import REFUSALS, SPARE_BYTES, number_of, open_to_all, size_shown

ANY = filesystem("")
DIRECTORY = {"kind": "directory"}
SIZE = 32 * MIB


def _directory(bench: Bench, *, size: int = SIZE) -> str:
    volume = bench.create(size=size, capability=ANY, parameters=DIRECTORY)
    assert volume.capacity_bytes == size
    return volume.volume_id


def _assert_stopped(written: tenant.Written, size: int, fs_type: str) -> None:
    assert REFUSALS[fs_type] in written.complaint
    assert size - SPARE_BYTES <= written.size_bytes <= size


def test_a_writer_is_stopped_at_the_size(bench: Bench, fs_type: str) -> None:
    with bench.used(_directory(bench), ANY) as target:
        open_to_all(target)
        assert size_shown(target) == SIZE

        _assert_stopped(tenant.write(target, "ballast", 2 * SIZE), SIZE, fs_type)

        # Whoever deletes has his room back.
        (target / "ballast").unlink()
        wait_until(
            lambda: not tenant.write(target, "again", SIZE - SPARE_BYTES).complaint,
            "that the room was free again",
        )


def test_what_a_pod_makes_is_held_too(bench: Bench, fs_type: str) -> None:
    """In folders at any depth, one of which another user made."""
    with bench.used(_directory(bench), ANY) as target:
        number = number_of(target)
        assert number > 0
        assert tenant.run(open_to_all(target), "mkdir", "-p", "a/b/c").returncode == 0
        (target / "d").mkdir(mode=0o777)
        open_to_all(target / "d")
        for folder in ("a", "a/b", "a/b/c", "d"):
            assert number_of(target / folder) == number

        first = tenant.write(target / "a/b/c", "ballast", SIZE // 2)
        assert first == (SIZE // 2, "")
        assert number_of(target / "a/b/c/ballast") == number
        _assert_stopped(tenant.write(target / "d", "ballast", SIZE), SIZE // 2, fs_type)


def test_a_full_directory_leaves_its_neighbour_alone(bench: Bench) -> None:
    full, neighbour = _directory(bench), _directory(bench)
    with bench.used(full, ANY) as target, bench.used(neighbour, ANY) as other:
        assert number_of(target) != number_of(other)
        assert tenant.write(open_to_all(target), "ballast", 2 * SIZE).complaint

        half = SIZE // 2
        assert tenant.write(open_to_all(other), "file", half) == (half, "")
        assert size_shown(other) == SIZE


def test_it_grows_while_a_pod_uses_it(bench: Bench, fs_type: str) -> None:
    volume_id = _directory(bench)
    with bench.used(volume_id, ANY) as target:
        full = tenant.write(open_to_all(target), "ballast", 2 * SIZE)
        _assert_stopped(full, SIZE, fs_type)

        answer = bench.driver.controller.ControllerExpandVolume(
            requests.controller_expand(volume_id, 2 * SIZE)
        )

        assert answer.capacity_bytes == 2 * SIZE
        assert not answer.node_expansion_required
        assert size_shown(target) == 2 * SIZE
        more = tenant.write(target, "more", 2 * SIZE)
        _assert_stopped(more, 2 * SIZE - full.size_bytes, fs_type)


def test_stats_and_capacity_come_from_its_own_figures(bench: Bench) -> None:
    before = _settled(bench)
    volume_id = _directory(bench, size=256 * MIB)
    # Promised at once, whether it is used or not.
    assert before - 256 * MIB - SPARE_BYTES <= _available(bench) <= before - 256 * MIB
    with bench.used(volume_id, ANY) as target:
        assert not tenant.write(open_to_all(target), "file", 10 * MIB).complaint

        answer = bench.driver.node.NodeGetVolumeStats(requests.stats(volume_id, target))

        size = next(usage for usage in answer.usage if usage.unit == pb.VolumeUsage.BYTES)
        assert size.total == 256 * MIB
        assert 10 * MIB <= size.used <= 10 * MIB + SPARE_BYTES
        assert size.available == size.total - size.used
        # What it has written was promised already and counts once.
        assert before - 256 * MIB - 2 * SPARE_BYTES <= _available(bench) <= before - 256 * MIB


def _settled(bench: Bench) -> int:
    """What is available once all that other tests have deleted has come back.

    xfs frees the blocks of what was removed a while later.
    """
    wait_for_empty_trash(bench.pool)
    last = -1
    while (now := _available(bench)) != last:
        last = now
        time.sleep(2)
    return now


def test_a_size_that_need_not_be_enforced_is_not(bench: Bench) -> None:
    waived = {"kind": "directory", "enforceSize": "false"}
    volume_id = bench.create(size=MIB, capability=ANY, parameters=waived).volume_id

    with bench.used(volume_id, ANY) as target:
        assert number_of(target) == 0
        assert tenant.write(open_to_all(target), "file", 4 * MIB) == (4 * MIB, "")


def test_root_in_a_privileged_pod_is_held_on_xfs_alone(bench: Bench, fs_type: str) -> None:
    """docs/limitations.md says so: ext4 lets CAP_SYS_RESOURCE past every quota."""
    with bench.used(_directory(bench), ANY) as target:
        written = tenant.write(target, "ballast", 2 * SIZE, user=0)

        if fs_type == "xfs":
            _assert_stopped(written, SIZE, fs_type)
        else:
            assert written == (2 * SIZE, "")


@pytest.mark.parametrize("act", [os.rename, os.link])
def test_nothing_gets_in_uncounted(bench: Bench, act: Callable[[Path, Path], None]) -> None:
    """Neither from outside nor from a neighbour; mv copies then, and the copy is counted."""
    with bench.used(_directory(bench), ANY) as target, bench.used(_directory(bench), ANY) as other:
        outside = bench.pool / "outside"
        outside.write_bytes(b"x" * MIB)
        (other / "inside").write_bytes(b"x" * MIB)
        data = _data(bench, target), _data(bench, other)
        try:
            for source in (outside, data[1] / "inside"):
                with pytest.raises(OSError, match="cross-device"):
                    act(source, data[0] / "file")
                assert source.read_bytes() == b"x" * MIB
            assert list(target.iterdir()) == []
        finally:
            outside.unlink()


def test_a_full_directory_can_be_deleted(bench: Bench) -> None:
    volume_id = _directory(bench)
    with bench.used(volume_id, ANY) as target:
        assert tenant.write(open_to_all(target), "ballast", 2 * SIZE).complaint

    bench.delete(volume_id)

    wait_for_empty_trash(bench.pool)


def _data(bench: Bench, target: Path) -> Path:
    """The same directory by its path in the pool, for renames between two mounts never work."""
    inode = target.stat().st_ino
    return next(path for path in bench.pool.glob("volumes/*/data") if path.stat().st_ino == inode)


def _available(bench: Bench) -> int:
    request = pb.GetCapacityRequest(parameters=DIRECTORY)
    return int(bench.driver.controller.GetCapacity(request).available_capacity)
