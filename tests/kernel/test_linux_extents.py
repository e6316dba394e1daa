"""csi.linux.extents against the kernel."""

import errno
import itertools
import os
import random
from pathlib import Path

import pytest

from csi.linux import copying, syscalls
from csi.linux.extents import Extent, read_extents
from tests.contract.node_fixtures import run
from tests.disks import opened

pytestmark = pytest.mark.kernel

BLOCK = 4096
MIB = 1 << 20
POOLS = ["xfs_pool", "btrfs_pool"]


def extents_of(path: Path, start: int = 0, end: int | None = None) -> list[Extent]:
    with opened(path, os.O_RDONLY) as fd:
        return list(read_extents(fd, start, path.stat().st_size if end is None else end))


def places(path: Path) -> dict[int, int]:
    """Where each block with data lies on the disk, by its number in the file."""
    return {
        block: extent.physical + (block * BLOCK - extent.offset)
        for extent in extents_of(path)
        if extent.written
        for block in range(extent.offset // BLOCK, extent.end // BLOCK)
    }


def write_blocks(path: Path, numbers: list[int]) -> None:
    with opened(path, os.O_WRONLY | os.O_CREAT) as fd:
        for number in numbers:
            os.pwrite(fd, os.urandom(BLOCK), number * BLOCK)


def clone(source: Path, target: Path) -> None:
    target.touch()
    with opened(source, os.O_RDONLY) as source_fd, opened(target, os.O_WRONLY) as fd:
        copying.clone_file(source_fd, fd)


@pytest.fixture(params=[*POOLS, "ext4_pool"])
def pool(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


@pytest.fixture(params=POOLS)
def reflinking(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


def test_what_was_just_written_is_there_and_what_was_not_is_a_hole(pool: Path) -> None:
    """Without writing back first, there would be no place for it yet."""
    numbers = [0, 1, 2, 100, 1000]
    write_blocks(pool / "file", numbers)
    with opened(pool / "file", os.O_WRONLY) as fd:
        os.ftruncate(fd, 2000 * BLOCK)

    found = extents_of(pool / "file")

    assert all(extent.written and extent.exact for extent in found)
    assert sorted(places(pool / "file")) == numbers
    assert len(set(places(pool / "file").values())) == len(numbers)


def test_room_that_was_never_written_is_told_from_data(pool: Path) -> None:
    path = pool / "file"
    with opened(path, os.O_RDWR | os.O_CREAT) as fd:
        syscalls.fallocate(fd, 0, MIB)
        os.pwrite(fd, b"x" * BLOCK, 8 * BLOCK)
        os.fsync(fd)

    assert sorted(places(path)) == [8]
    assert sum(extent.length for extent in extents_of(path) if not extent.written) >= MIB - BLOCK


def test_thousands_of_extents_come_whole_from_any_place(pool: Path) -> None:
    path = pool / "file"
    numbers = list(range(0, 10_000, 2))
    write_blocks(path, numbers)

    whole = extents_of(path)

    # XFS allocates ahead: what lies between may have room, and no data.
    assert [extent.offset for extent in whole if extent.written] == [n * BLOCK for n in numbers]
    for start in (0, 1, BLOCK, 777 * BLOCK, 9_998 * BLOCK + 1):
        part = extents_of(path, start)
        assert part[0].end > start
        assert part[-1] == whole[-1]
        assert all(a.end <= b.offset for a, b in itertools.pairwise(part))
        assert sum(b.offset >= start for b in part) == sum(e.offset >= start for e in whole)
    assert extents_of(path, 0, 1)[-1].offset == 0
    assert extents_of(path, 9_999 * BLOCK, 20_000 * BLOCK) == []


def test_a_clone_lies_where_its_source_does_but_for_what_was_written_since(
    reflinking: Path,
) -> None:
    source, target = reflinking / "source", reflinking / "target"
    chosen = random.Random(6)  # noqa: S311 - data, not secrets
    write_blocks(source, sorted(chosen.sample(range(8_000), 4_000)))
    clone(source, target)
    before = places(source)
    assert places(target) == before

    rewritten = chosen.sample(sorted(before), 500)
    added = [8_000, 8_001]
    write_blocks(target, [*rewritten, *added])
    dropped = chosen.sample(sorted(set(before) - set(rewritten)), 300)
    for block in dropped:
        run("fallocate", "--punch-hole", "-o", f"{block * BLOCK}", "-l", f"{BLOCK}", str(target))

    after = places(target)
    assert places(source) == before
    changed = {block for block in before.keys() | after if before.get(block) != after.get(block)}
    assert changed == {*rewritten, *added, *dropped}


def test_what_is_compressed_has_no_exact_place(tmp_path: Path, btrfs_pool: Path) -> None:
    run("mount", "-o", "remount,compress-force=zstd", str(btrfs_pool))
    (btrfs_pool / "file").write_bytes(b"easily compressed " * 60_000)

    found = extents_of(btrfs_pool / "file")

    assert found
    assert not any(extent.exact for extent in found)


def test_a_filesystem_that_cannot_tell_says_so() -> None:
    with (
        opened(Path("/proc/self/status"), os.O_RDONLY) as fd,
        pytest.raises(OSError, match="FIEMAP") as caught,
    ):
        list(read_extents(fd, 0, BLOCK))
    assert caught.value.errno in (errno.EOPNOTSUPP, errno.ENOTTY)
