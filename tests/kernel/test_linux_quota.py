"""csi.linux.quota against the kernel.

Also what the kernel does not hold, so that another one is noticed that behaves in another way.
"""

import ctypes
import errno
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from csi.linux import quota, subvolume, syscalls
from tests.disks import opened

pytestmark = pytest.mark.kernel

MIB = 1 << 20
SLACK = 1 * MIB

# A tenant without any privilege: makes a subvolume, naming groups for it, and writes into it.
TENANT = """
import os, sys
from tests.kernel.test_linux_quota import create_with_groups, fill
parent, name, groups, size = sys.argv[1:]
os.chdir(parent)  # all above it is closed to others
os.setgid(65534)
os.setuid(65534)
create_with_groups(".", name, [int(group) for group in groups.split(",") if group])
print(fill(os.path.join(name, "file"), int(size)))
"""


@dataclass
class Pool:
    path: Path
    fd: int

    def volume(self, name: str, limit_mib: int) -> int:
        """Makes a subvolume that a group of its number holds; returns that."""
        subvolume.create(self.fd, name)
        number = self.number(name)
        quota.create_group(self.fd, number)
        quota.assign(self.fd, number, number)
        quota.limit(self.fd, number, limit_mib * MIB)
        (self.path / name).chmod(0o777)
        return number

    def number(self, name: str) -> int:
        with opened(self.path / name, os.O_RDONLY) as fd:
            return subvolume.subvolume_id(fd)

    def snapshot(self, source: str, name: str) -> None:
        with opened(self.path / source, os.O_RDONLY) as fd:
            subvolume.snapshot(fd, self.fd, name, read_only=False)

    def used(self, group: int) -> int:
        os.sync()
        return quota.usage(self.fd, group)[0]


@pytest.fixture
def pool(btrfs_pool: Path) -> Iterator[Pool]:
    """A btrfs with simple quotas."""
    with opened(btrfs_pool, os.O_RDONLY) as fd:
        quota.enable_simple_quotas(fd)
        yield Pool(btrfs_pool, fd)


def fill(path: str | Path, size_mib: int) -> int:
    """Writes over a file from its start; returns how many whole MiB the quota let through."""
    written = 0
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o666), "wb", buffering=0) as file:
            while written < size_mib * MIB:
                written += file.write(os.urandom(MIB - written % MIB)) or 0
                os.fsync(file.fileno())
    except OSError as error:
        if error.errno != errno.EDQUOT:
            raise
    return written // MIB


def create_with_groups(parent: str, name: str, groups: list[int]) -> None:
    """Makes a subvolume with struct btrfs_qgroup_inherit, as `btrfs subvolume create -i` does."""
    numbers = [1 << 48 | group for group in groups]
    packed = struct.pack(f"=9Q{len(numbers)}Q", 0, len(numbers), *[0] * 7, *numbers)
    inherit = ctypes.create_string_buffer(packed, len(packed))
    argument = bytearray(4096)
    struct.pack_into("=qQQQQ", argument, 0, 0, 0, 4, len(packed), ctypes.addressof(inherit))
    argument[56 : 56 + len(name)] = name.encode()
    with opened(Path(parent), os.O_RDONLY) as fd:
        syscalls.ioctl(fd, 0x50009418, argument, name="BTRFS_IOC_SUBVOL_CREATE_V2")


def as_tenant(parent: Path, name: str, groups: list[int], size_mib: int) -> int:
    """Lets a tenant make a subvolume and fill it; returns how many MiB the kernel took."""
    words = [str(parent), name, ",".join(map(str, groups)), str(size_mib)]
    command = [sys.executable, "-c", TENANT, *words]
    root = Path(__file__).parents[2]
    return int(subprocess.check_output(command, cwd=root, text=True))


def eventually(ready: Callable[[], bool]) -> bool:
    """Waits for what the kernel does in the background."""
    deadline = time.monotonic() + 10
    while not ready():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


class TestEnable:
    def test_is_off_until_it_is_enabled(self, btrfs_pool: Path) -> None:
        with opened(btrfs_pool, os.O_RDONLY) as fd:
            assert not quota.simple_quotas_enabled(fd)
            quota.enable_simple_quotas(fd)
            assert quota.simple_quotas_enabled(fd)
            quota.enable_simple_quotas(fd)

    def test_other_quotas_are_in_the_way(self, btrfs_pool: Path) -> None:
        with opened(btrfs_pool, os.O_RDONLY) as fd:
            subprocess.run(["btrfs", "quota", "enable", btrfs_pool], check=True)
            assert not quota.simple_quotas_enabled(fd)
            with pytest.raises(OSError, match="other quotas") as caught:
                quota.enable_simple_quotas(fd)
        assert caught.value.errno == errno.EBUSY

    def test_what_was_there_before_is_not_charged(self, btrfs_pool: Path) -> None:
        with opened(btrfs_pool, os.O_RDONLY) as fd:
            subvolume.create(fd, "volume")
            fill(btrfs_pool / "volume" / "file", 8)
            quota.enable_simple_quotas(fd)
            found = Pool(btrfs_pool, fd)
            number = found.number("volume")
            quota.create_group(fd, number)
            quota.assign(fd, number, number)
            assert found.used(number) < SLACK


class TestGroups:
    def test_made_once_and_removed_as_often_as_one_likes(self, pool: Pool) -> None:
        quota.create_group(pool.fd, 1000)
        with pytest.raises(FileExistsError, match="QGROUP_CREATE"):
            quota.create_group(pool.fd, 1000)
        assert quota.usage(pool.fd, 1000) == (0, None)
        quota.remove_group(pool.fd, 1000)
        quota.remove_group(pool.fd, 1000)
        with pytest.raises(FileNotFoundError):
            quota.usage(pool.fd, 1000)

    def test_not_without_quotas(self, btrfs_pool: Path) -> None:
        with (
            opened(btrfs_pool, os.O_RDONLY) as fd,
            pytest.raises(OSError, match="QGROUP_CREATE") as caught,
        ):
            quota.create_group(fd, 1000)
        assert caught.value.errno == errno.ENOTCONN

    def test_members(self, pool: Pool) -> None:
        quota.create_group(pool.fd, 1000)
        assert quota.members(pool.fd, 1000) == []
        numbers = []
        for name in map(str, range(200)):  # more than one answer of the kernel holds
            subvolume.create(pool.fd, name)
            numbers.append(pool.number(name))
            quota.assign(pool.fd, numbers[-1], 1000)
        assert quota.members(pool.fd, 1000) == numbers
        quota.assign(pool.fd, numbers[0], 1000)
        quota.remove_group(pool.fd, 1000)
        assert quota.members(pool.fd, 1000) == []

    def test_what_is_not_there_is_no_member(self, pool: Pool) -> None:
        number = pool.volume("volume", 8)
        for child, group in (99999, number), (number, 99999):
            with pytest.raises(OSError, match="QGROUP_ASSIGN") as caught:
                quota.assign(pool.fd, child, group)
            assert caught.value.errno == errno.EINVAL

    def test_a_number_may_carry_its_level(self, pool: Pool) -> None:
        number = pool.volume("volume", 8)
        assert quota.usage(pool.fd, 1 << 48 | number) == quota.usage(pool.fd, number)
        assert quota.members(pool.fd, 1 << 48 | number) == [number]


class TestLimit:
    def test_holds(self, pool: Pool) -> None:
        number = pool.volume("volume", 16)
        assert fill(pool.path / "volume" / "file", 32) == 15
        used, limit = quota.usage(pool.fd, number)
        assert limit == 16 * MIB
        assert limit - 2 * MIB < used <= limit

    def test_changes_at_once(self, pool: Pool) -> None:
        number = pool.volume("volume", 8)
        assert fill(pool.path / "volume" / "file", 32) < 8
        quota.limit(pool.fd, number, 64 * MIB)
        assert fill(pool.path / "volume" / "more", 32) == 32
        quota.limit(pool.fd, number, 8 * MIB)
        assert fill(pool.path / "volume" / "again", 1) == 0
        quota.limit(pool.fd, number, None)
        assert fill(pool.path / "volume" / "again", 32) == 32
        assert quota.usage(pool.fd, number)[1] is None

    def test_of_no_group(self, pool: Pool) -> None:
        with pytest.raises(FileNotFoundError, match="QGROUP_LIMIT"):
            quota.limit(pool.fd, 99999, MIB)

    def test_usage_by_the_id_of_the_filesystem(self, pool: Pool) -> None:
        number = pool.volume("volume", 8)
        command = ["findmnt", "--noheadings", "--output", "UUID", str(pool.path)]
        uuid = subprocess.check_output(command, text=True).strip()
        if not uuid:  # findmnt asks udev, which may not be there
            command = ["btrfs", "filesystem", "show", str(pool.path)]
            uuid = subprocess.check_output(command, text=True).split("uuid: ")[1].split()[0]
        assert quota.usage(uuid, number) == quota.usage(pool.fd, number)

    def test_at_the_limit_files_can_be_removed(self, pool: Pool) -> None:
        number = pool.volume("volume", 8)
        fill(pool.path / "volume" / "file", 32)
        (pool.path / "volume" / "file").unlink()
        assert pool.used(number) < SLACK
        assert fill(pool.path / "volume" / "file", 4) == 4

    def test_everything_can_be_set_through_a_full_volume(self, pool: Pool) -> None:
        number = pool.volume("volume", 8)
        fill(pool.path / "volume" / "file", 32)
        with opened(pool.path / "volume", os.O_RDONLY) as fd:
            quota.create_group(fd, 1000)
            quota.assign(fd, number, 1000)
            assert quota.members(fd, 1000) == [number]
            quota.remove_group(fd, 1000)
            quota.limit(fd, number, 16 * MIB)
            assert fill(pool.path / "volume" / "more", 4) == 4
            quota.leave_groups(fd, number)
            assert quota.members(fd, number) == []


class TestNested:
    def test_counts_at_any_depth(self, pool: Pool) -> None:
        number = pool.volume("volume", 16)
        assert fill(pool.path / "volume" / "file", 4) == 4
        with opened(pool.path / "volume", os.O_RDONLY) as fd:
            subvolume.create(fd, "nested")
        with opened(pool.path / "volume" / "nested", os.O_RDONLY) as fd:
            subvolume.create(fd, "deeper")
        assert len(quota.members(pool.fd, number)) == 3
        assert 9 <= fill(pool.path / "volume" / "nested" / "deeper" / "file", 32) < 12
        assert pool.used(number) <= 16 * MIB

    def test_a_tenants_own_snapshot_counts(self, pool: Pool) -> None:
        number = pool.volume("volume", 16)
        fill(pool.path / "volume" / "file", 6)
        with opened(pool.path / "volume", os.O_RDONLY) as fd:
            subvolume.snapshot(fd, fd, "snapshot", read_only=False)
        assert fill(pool.path / "volume" / "snapshot" / "more", 32) < 10
        assert pool.used(number) <= 16 * MIB

    def test_a_tenant_escapes_until_his_subvolume_is_adopted(self, pool: Pool) -> None:
        number = pool.volume("volume", 16)
        assert as_tenant(pool.path / "volume", "stray", [], 32) == 32
        assert pool.used(number) < SLACK
        stray = pool.number("volume/stray")
        with opened(pool.path / "volume", os.O_RDONLY) as fd:
            assert quota.adopt_nested(fd, number) == [stray]
            assert quota.adopt_nested(fd, number) == []
        assert pool.used(number) > 32 * MIB
        assert fill(pool.path / "volume" / "stray" / "more", 1) == 0
        assert fill(pool.path / "volume" / "file", 1) == 0

    def test_a_tenant_can_charge_a_stranger_until_that_is_set_right(self, pool: Pool) -> None:
        own, stranger = pool.volume("volume", 16), pool.volume("stranger", 16)
        assert as_tenant(pool.path / "volume", "stray", [stranger], 32) == 15
        assert fill(pool.path / "stranger" / "file", 1) == 0
        stray = pool.number("volume/stray")
        with opened(pool.path / "volume", os.O_RDONLY) as fd:
            assert quota.adopt_nested(fd, own) == [stray]
        with opened(pool.path / "stranger", os.O_RDONLY) as fd:
            assert quota.release_foreign(fd, stranger) == [stray]
            assert quota.release_foreign(fd, stranger) == []
        assert quota.members(pool.fd, stranger) == [stranger]
        assert fill(pool.path / "stranger" / "file", 8) == 8
        assert pool.used(own) > 14 * MIB


class TestSnapshotAccounting:
    def test_what_is_shared_stays_with_the_source(self, pool: Pool) -> None:
        source = pool.volume("source", 64)
        fill(pool.path / "source" / "file", 16)
        pool.snapshot("source", "copy")
        copy = pool.number("copy")
        quota.create_group(pool.fd, copy)
        quota.assign(pool.fd, copy, copy)
        assert pool.used(copy) == 16384
        assert 16 * MIB <= pool.used(source) < 16 * MIB + SLACK
        assert fill(pool.path / "copy" / "file", 4) == 4
        assert 4 * MIB <= pool.used(copy) < 4 * MIB + SLACK
        assert 16 * MIB <= pool.used(source) < 16 * MIB + SLACK

    def test_overwriting_the_source_is_charged_on_top(self, pool: Pool) -> None:
        """So that a volume with a snapshot meets its limit by rewriting what it has."""
        source = pool.volume("source", 32)
        fill(pool.path / "source" / "file", 20)
        pool.snapshot("source", "copy")
        assert 10 <= fill(pool.path / "source" / "file", 20) < 12
        subvolume.destroy(pool.fd, "copy")
        assert eventually(lambda: cleaned(pool).used(source) < 21 * MIB)
        assert fill(pool.path / "source" / "file", 11) == 11

    def test_a_destroyed_source_keeps_the_charge(self, pool: Pool) -> None:
        source = pool.volume("source", 32)
        fill(pool.path / "source" / "file", 16)
        pool.snapshot("source", "copy")
        subvolume.destroy(pool.fd, "source")
        assert not quota.drop_subvolume_group(pool.fd, source)
        assert pool.used(source) >= 16 * MIB
        quota.remove_group(pool.fd, source)
        subvolume.destroy(pool.fd, "copy")
        assert eventually(lambda: drop_dead(pool))
        assert quota.drop_subvolume_group(pool.fd, source)


def cleaned(pool: Pool) -> Pool:
    """The pool, in which what was destroyed is freed soon after this was asked some times."""
    subvolume.start_commit(pool.fd)
    return pool


def drop_dead(pool: Pool) -> bool:
    return quota.drop_dead_groups(cleaned(pool).fd) > 0


class TestDrop:
    def test_the_group_of_a_destroyed_one_goes(self, pool: Pool) -> None:
        number = pool.volume("volume", 8)
        fill(pool.path / "volume" / "file", 4)
        assert not quota.drop_subvolume_group(pool.fd, number)
        subvolume.destroy(pool.fd, "volume")
        assert eventually(lambda: quota.members(cleaned(pool).fd, number) == [])
        assert quota.drop_subvolume_group(pool.fd, number)

    def test_those_of_live_ones_stay(self, pool: Pool) -> None:
        number = pool.volume("volume", 8)
        assert quota.drop_dead_groups(pool.fd) == 0
        assert quota.members(pool.fd, number) == [number]
