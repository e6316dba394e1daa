"""Tenants of directory volumes who try to have more than their size, or what is another's.

What they do with subvolumes that belong to no group, or to a stranger's, is in
tests/contract/test_quota_escape.py; project numbers and their limits in tests/quota.
"""

import contextlib
import errno
import fcntl
import os
import struct
from pathlib import Path

import pytest

from tests.contract import requests
from tests.contract.bench import Bench
from tests.contract.node_fixtures import fill, run
from tests.contract.requests import MIB, filesystem
from tests.disks import opened
from tests.security import scale

pytestmark = pytest.mark.kernel

ANY = filesystem("")
SIZE = 32 * MIB
SLACK = 4 * MIB
"""Tree blocks, and what was under way as the limit was met."""
FICLONE = 0x40049409
SNAP_CREATE_V2 = 0x50009417


@pytest.fixture
def volumes(btrfs_bench: Bench) -> tuple[Path, Path]:
    """Two volumes of one tenant, in one pod."""
    targets = []
    for _ in range(2):
        made = btrfs_bench.create(size=SIZE, capability=ANY, parameters={"kind": "directory"})
        targets.append(btrfs_bench.use(made.volume_id, ANY))
    scale.FIGURES["attacks on the size of directories"] += 1
    return targets[0], targets[1]


def charged(target: Path) -> int:
    """What the volume's group is charged for, by the kernel's own words."""
    run("btrfs", "filesystem", "sync", str(target))
    number = run("btrfs", "inspect-internal", "rootid", str(target)).strip()
    uuid = run("findmnt", "--noheadings", "--output", "UUID", str(target)).split()[0]
    folder = Path(f"/sys/fs/btrfs/{uuid}/qgroups/1_{number}")
    return int((folder / "referenced").read_text(encoding="ascii"))


def write(path: Path, size: int) -> int:
    """Writes what is taken of a size, synced; returns how much that was."""
    written = 0
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while written < size:
            written += file.write(os.urandom(MIB))
            os.fsync(file.fileno())
    return written


def fill_holes(file: int) -> int:
    """Writes here and there until that is refused; returns the errno, 0 if it never is."""
    try:
        for place in range(2 * SIZE // MIB):
            os.pwrite(file, os.urandom(MIB), place << 40)
            os.fsync(file)
    except OSError as error:
        return error.errno or 0
    return 0


def test_nothing_goes_from_one_volume_to_another_but_by_copying(
    volumes: tuple[Path, Path],
) -> None:
    one, two = volumes
    (one / "file").write_bytes(b"x")
    for act in (os.link, os.rename):
        with pytest.raises(OSError, match="cross-device") as caught:
            act(one / "file", two / "file")
        assert caught.value.errno == errno.EXDEV


def test_blocks_that_are_shared_are_charged_to_who_wrote_them(volumes: tuple[Path, Path]) -> None:
    """A file that is reflinked into another volume and deleted frees nothing."""
    one, two = volumes
    half = SIZE // 2
    assert write(one / "file", half) == half
    before = charged(one)
    with opened(one / "file", os.O_RDONLY) as source, (two / "file").open("wb") as copy:
        fcntl.ioctl(copy, FICLONE, source)
    (one / "file").unlink()
    assert charged(one) >= before - SLACK
    assert write(one / "more", SIZE) <= SIZE - half + SLACK


def test_holes_cost_nothing_and_what_fills_them_does(
    btrfs_bench: Bench, volumes: tuple[Path, Path]
) -> None:
    one, _ = volumes
    with (one / "sparse").open("wb") as file:
        file.truncate(1 << 50)
    assert charged(one) < SLACK
    with opened(one / "sparse", os.O_WRONLY) as file:
        assert fill_holes(file) == errno.EDQUOT
    assert charged(one) <= SIZE + SLACK
    answer = btrfs_bench.driver.controller.GetCapacity(requests.get_capacity())
    assert answer.available_capacity > 0, "a length is no size"


def test_allocating_ahead_is_held_too(volumes: tuple[Path, Path]) -> None:
    one, _ = volumes
    with (one / "file").open("wb") as file, pytest.raises(OSError, match="quota"):
        os.posix_fallocate(file.fileno(), 0, 2 * SIZE)
    assert charged(one) <= SIZE + SLACK


def test_snapshots_that_a_tenant_takes_inside_are_held_with_it(
    volumes: tuple[Path, Path],
) -> None:
    """Each keeps what was there before the next rewrite."""
    one, _ = volumes
    kept = 0
    for number in range(8):
        if write(one / "file", 8 * MIB) < 8 * MIB:
            break
        kept += 8 * MIB
        with opened(one, os.O_RDONLY) as top, contextlib.suppress(OSError):
            name = f"snapshot-{number}".encode()
            argument = bytearray(struct.pack("=qQQ32s4040s", top, 0, 0, b"", name))
            fcntl.ioctl(top, SNAP_CREATE_V2, argument)
    assert kept <= SIZE + SLACK
    assert charged(one) <= SIZE + SLACK


def test_a_full_one_leaves_its_neighbour_its_room(volumes: tuple[Path, Path]) -> None:
    one, two = volumes
    _, number = fill(one / "ballast")
    assert number in (errno.EDQUOT, errno.ENOSPC)
    assert write(two / "file", SIZE // 2) == SIZE // 2
