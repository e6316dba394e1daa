"""csi-local-path pool create: a pool of a directory, in a file or on a disk, or a refusal."""

import json
import os
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.bench import read_bytes
from tests.contract.command import FAILED, WRONG_ARGUMENTS, fails, succeeds
from tests.contract.node_fixtures import (
    SECTOR_BYTES,
    loops_below,
    loops_over,
    mounts_at,
    no_loop_over,
    run,
    the_mount_at,
)
from tests.contract.requests import MIB
from tests.disks import mounted_filesystem
from tests.signatures import SIGNATURES

pytestmark = pytest.mark.kernel

FOLDERS = {"volumes", "snapshots", "groups", "building", "trash", "pool.json"}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An empty disk."""
    file = tmp_path / "disk.img"
    with file.open("xb") as image:
        image.truncate(400 * MIB)
    device = run("losetup", "--find", "--show", str(file)).strip()
    yield Path(device)
    run("losetup", "--detach", device)


def _create(*arguments: object) -> str:
    return succeeds("pool", "create", *arguments)


def _refuse(*arguments: object) -> str:
    return fails(FAILED, "pool", "create", *arguments)


def test_a_directory_becomes_a_pool(tmp_path: Path) -> None:
    said = _create(tmp_path / "pool")

    mark = json.loads((tmp_path / "pool" / "pool.json").read_text())
    assert mark["apiVersion"] == "local-path.csi.dev/v1"
    assert str(uuid.UUID(mark["uuid"])) in said
    assert str(tmp_path / "pool") in said
    assert set(os.listdir(tmp_path / "pool")) == FOLDERS
    for path in (tmp_path / "pool").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    # The root filesystem here is ext4: what that means for copies and directories is said.
    assert "cannot share blocks" in said
    assert "btrfs" in said


def test_an_empty_directory_may_be_there_already(tmp_path: Path) -> None:
    _create(tmp_path)

    assert set(os.listdir(tmp_path)) == FOLDERS


def test_the_top_of_a_new_ext4_counts_as_empty(tmp_path: Path) -> None:
    with mounted_filesystem("ext4", tmp_path, 64 * MIB) as path:
        assert os.listdir(path) == ["lost+found"]
        _create(path)


def test_a_pool_on_btrfs_has_its_quotas_turned_on(tmp_path: Path) -> None:
    with mounted_filesystem("btrfs", tmp_path, 200 * MIB) as path:
        said = _create(path)

        number = run("findmnt", "--noheadings", "--output", "UUID", str(path)).strip()
        assert Path(f"/sys/fs/btrfs/{number}/qgroups/mode").read_text().strip() == "squota"
        assert "share blocks" in said
        assert "cannot" not in said


@pytest.mark.parametrize("fs_type", ["xfs", "btrfs"])
def test_a_pool_in_a_file(tmp_path: Path, fs_type: str) -> None:
    pool, file = tmp_path / "pool", tmp_path / "pool.img"

    said = _create(pool, "--file", file, "--size", "400Mi", "--filesystem", fs_type)

    try:
        mount = the_mount_at(pool)
        assert mount.fs_type == fs_type
        (loop,) = loops_over(file)
        assert (loop.size_bytes, loop.sector_bytes) == (400 * MIB, SECTOR_BYTES)
        assert (loop.autoclear, loop.direct_io) == (True, True)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert set(os.listdir(pool)) == FOLDERS
        assert "share blocks" in said
        line = next(line for line in said.splitlines() if line.startswith(str(file)))
    finally:
        run("umount", str(pool))
    assert no_loop_over(file)
    # The line for fstab brings it back.
    assert "nofail" in line
    source, target, kind, options = line.split()[:4]
    run("mount", "-t", kind, "-o", options, source, target)
    try:
        assert set(os.listdir(pool)) == FOLDERS
    finally:
        run("umount", str(pool))


def test_a_pool_on_a_disk(tmp_path: Path, disk: Path) -> None:
    pool = tmp_path / "pool"

    said = _create(pool, "--device", disk)

    try:
        assert (the_mount_at(pool).fs_type, the_mount_at(pool).source) == ("xfs", str(disk))
        assert set(os.listdir(pool)) == FOLDERS
        assert any(line.split()[1:3] == [str(pool), "xfs"] for line in said.splitlines()[-1:])
    finally:
        run("umount", str(pool))


@pytest.mark.parametrize(
    "signature", ["ext4", "crypto_LUKS", "linux_raid_member", "LVM2_member", "gpt", "dos", "swap"]
)
def test_a_disk_that_holds_something_is_left_alone(
    tmp_path: Path, disk: Path, signature: str
) -> None:
    SIGNATURES[signature](disk)
    before = read_bytes(disk, MIB)

    complaint = _refuse(tmp_path / "pool", "--device", disk)

    assert str(disk) in complaint
    assert signature in complaint
    assert "nothing was changed" in complaint
    assert read_bytes(disk, MIB) == before
    assert not mounts_at(tmp_path / "pool")


def test_a_file_that_exists_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "pool.img"
    file.write_text("somebody's")

    complaint = _refuse(tmp_path / "pool", "--file", file, "--size", "400Mi")

    assert str(file) in complaint
    assert "exists" in complaint
    assert file.read_text() == "somebody's"
    assert not mounts_at(tmp_path / "pool")


def test_what_is_a_pool_already_stays_that_pool(tmp_path: Path) -> None:
    _create(tmp_path / "pool")
    before = (tmp_path / "pool" / "pool.json").read_bytes()

    complaint = _refuse(tmp_path / "pool")

    assert str(tmp_path / "pool") in complaint
    assert "already" in complaint
    assert (tmp_path / "pool" / "pool.json").read_bytes() == before


def test_a_directory_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("somebody's")

    complaint = _refuse(tmp_path)
    assert str(tmp_path) in complaint
    assert "not empty" in complaint
    assert "'data'" in complaint
    complaint = _refuse(tmp_path, "--file", tmp_path.parent / "never-made.img", "--size", "400Mi")
    assert str(tmp_path) in complaint

    assert os.listdir(tmp_path) == ["data"]
    assert not (tmp_path.parent / "never-made.img").exists()


@pytest.mark.parametrize("place", ["missing/pool", "file/pool", "file"])
def test_a_place_that_cannot_be_a_directory_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("somebody's")

    for more in ([], ["--file", str(tmp_path / "img"), "--size", "400Mi"]):
        assert str(tmp_path / place) in _refuse(tmp_path / place, *more)
        assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("size", "names"),
    [
        ("lots", ["--size", "lots"]),
        ("0", ["--size"]),
        ("-1Gi", ["--size", "-1Gi"]),
        ("1Mi", ["--size", str(MIB), str(300 * MIB)]),
        ("100Zi", ["--size", "100Zi"]),
    ],
)
def test_a_size_that_makes_no_pool_is_refused(tmp_path: Path, size: str, names: list[str]) -> None:
    complaint = _refuse(tmp_path / "pool", "--file", tmp_path / "img", f"--size={size}")

    for name in names:
        assert name in complaint
    assert not (tmp_path / "img").exists()
    assert not mounts_at(tmp_path / "pool")
    assert not loops_below(tmp_path)


def test_a_file_needs_a_size_and_a_size_a_file(tmp_path: Path) -> None:
    assert "--size" in _refuse(tmp_path / "pool", "--file", tmp_path / "img")
    assert "--file" in _refuse(tmp_path / "pool", "--size", "400Mi")

    assert os.listdir(tmp_path) == []


def test_a_file_and_a_disk_at_once_are_wrong_arguments(tmp_path: Path) -> None:
    arguments = (tmp_path, "--file", "img", "--device", "/dev/null", "--size", "1Gi")

    assert "not allowed with" in fails(WRONG_ARGUMENTS, "pool", "create", *arguments)


def test_a_pool_that_is_there_can_be_asked_for_again(tmp_path: Path) -> None:
    """What a pod runs at each of its starts."""
    _create(tmp_path / "pool", "--if-missing")
    before = (tmp_path / "pool" / "pool.json").read_bytes()

    _create(tmp_path / "pool", "--if-missing")

    assert (tmp_path / "pool" / "pool.json").read_bytes() == before
