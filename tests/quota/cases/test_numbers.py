"""The numbers that directories are limited under: nobody shares one, and all come back."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from csi.linux import project_quota, projects
from csi.pool.project_limits import ProjectLimits
from tests.contract.bench import Bench, wait_until
from tests.contract.node_fixtures import entry_of, wait_for_empty_trash
from tests.contract.requests import MIB, filesystem
from tests.disks import opened
from tests.quota.cases import tenant
from tests.quota.cases.tenant import number_of, open_to_all, size_shown

ANY = filesystem("")
DIRECTORY = {"kind": "directory"}
SIZE = 16 * MIB
UUID = "00000001-0000-0000-0000-000000000000"


@pytest.fixture
def root(pool: Path) -> Iterator[int]:
    """The filesystem of the pool, to ask its quotas."""
    with opened(pool, os.O_RDONLY) as descriptor:
        yield descriptor


def _directory(bench: Bench) -> str:
    return bench.create(size=SIZE, capability=ANY, parameters=DIRECTORY).volume_id


def _number(bench: Bench, volume_id: str) -> int:
    return number_of(entry_of(bench.pool, volume_id) / "data")


def _join(path: Path, number: int) -> None:
    with opened(path, os.O_RDONLY) as descriptor:
        projects.join(descriptor, number)


def test_creates_at_once_never_share_one(bench: Bench) -> None:
    with ThreadPoolExecutor(16) as threads:
        made = list(threads.map(lambda _: _directory(bench), range(24)))

    numbers = [_number(bench, volume_id) for volume_id in made]
    assert len(set(numbers)) == len(numbers)
    assert 0 not in numbers


def test_processes_at_once_never_share_one(
    root: int, tmp_path_factory: pytest.TempPathFactory, pool: Path
) -> None:
    """Two that know nothing of each other and count from the same number on."""
    workers = [ProjectLimits(root, UUID) for _ in range(4)]
    folders = [pool / f"racer-{index}" for index in range(4 * 16)]
    start = threading.Barrier(len(workers))

    def race(index: int) -> list[int]:
        numbers = []
        for folder in folders[index :: len(workers)]:
            (folder / "data").mkdir(parents=True)
            start.wait(60)
            with opened(folder, os.O_RDONLY) as descriptor:
                numbers.append(workers[index].hold_new(descriptor, SIZE))
        return numbers

    try:
        with ThreadPoolExecutor(len(workers)) as threads:
            numbers = [number for some in threads.map(race, range(4)) for number in some]
        assert len(set(numbers)) == len(folders)
        for number in numbers:
            assert project_quota.usage(root, number).limit_bytes == SIZE
    finally:
        for number in numbers:
            project_quota.limit(root, number, 0)
        for folder in folders:
            (folder / "data").rmdir()
            folder.rmdir()


def test_numbers_of_strangers_are_left_to_them(bench: Bench, root: int) -> None:
    """One who has a directory under it, and one who has only a limit so far."""
    last = _number(bench, _directory(bench))
    stranger = bench.pool / "stranger"
    stranger.mkdir()
    try:
        _join(stranger, last + 1)
        project_quota.limit(root, last + 2, MIB)

        assert _number(bench, _directory(bench)) == last + 3

        assert project_quota.usage(root, last + 1).limit_bytes == 0
        assert project_quota.usage(root, last + 2).limit_bytes == MIB
    finally:
        project_quota.limit(root, last + 2, 0)
        stranger.rmdir()


def test_a_deleted_volume_gives_its_number_back(bench: Bench, root: int) -> None:
    volume_id = _directory(bench)
    number = _number(bench, volume_id)
    with bench.used(volume_id, ANY) as target:
        tenant.write(open_to_all(target), "file", 4 * MIB)
    found = project_quota.usage(root, number)
    assert (found.inodes, found.limit_bytes) == (2, SIZE)

    bench.delete(volume_id)

    wait_for_empty_trash(bench.pool)
    wait_until(lambda: project_quota.usage(root, number).free, "that the number was free")


def test_a_restart_brings_back_what_is_missing(bench: Bench, root: int) -> None:
    """A limit that a restored filesystem has lost, and a number that the owner has changed."""
    volume_id, other_id = _directory(bench), _directory(bench)
    number, other = _number(bench, volume_id), _number(bench, other_id)
    with bench.used(volume_id, ANY) as target:
        os.chown(target, tenant.USER, tenant.USER)
        left = tenant.run(target, "chattr", "-P", "-p", "0", ".")
        assert left.returncode == 0, left.stderr
        assert number_of(target) == 0
        project_quota.limit(root, other, 0)

        bench.driver.kill()
        bench.driver.start()

        wait_until(lambda: number_of(target) == number, "that the directory was back")
        wait_until(lambda: size_shown(target) == SIZE, "that it was limited")
        wait_until(
            lambda: project_quota.usage(root, other).limit_bytes == SIZE, "that the limit was back"
        )
        (target / "inside").mkdir()
        assert number_of(target / "inside") == number
        # And the numbers that are in use are known again.
        assert _number(bench, _directory(bench)) not in (number, other)


def test_an_unfinished_volume_leaves_nothing(bench: Bench, root: int) -> None:
    """What a crash in the middle of a create leaves: a directory with a number and a limit."""
    number = _number(bench, _directory(bench)) + 1000
    bench.driver.kill()
    unfinished = bench.pool / "building" / f"{'0' * 32}.{'0' * 12}"
    (unfinished / "data").mkdir(parents=True)
    _join(unfinished / "data", number)
    project_quota.limit(root, number, SIZE)

    bench.driver.start()

    wait_for_empty_trash(bench.pool)
    wait_until(lambda: project_quota.usage(root, number).free, "that the number was free")


def test_deleting_takes_nobody_elses_limit(bench: Bench, root: int) -> None:
    """The owner of a directory may put it under a neighbour's number before it is deleted."""
    neighbour, volume_id = _directory(bench), _directory(bench)
    number = _number(bench, neighbour)
    _join(entry_of(bench.pool, volume_id) / "data", number)

    bench.delete(volume_id)
    wait_for_empty_trash(bench.pool)

    assert project_quota.usage(root, number).limit_bytes == SIZE
