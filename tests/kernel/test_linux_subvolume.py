"""csi.linux.subvolume against the kernel."""

import errno
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from csi.linux import subvolume
from csi.linux.mounts import mount_containing
from tests.disks import is_unwritten_back, opened

pytestmark = pytest.mark.kernel

MIB = 1 << 20


@pytest.fixture
def pool(btrfs_pool: Path) -> Iterator[int]:
    with opened(btrfs_pool, os.O_RDONLY) as fd:
        yield fd


def make(parent: Path, name: str) -> int:
    """Makes a subvolume and returns its id."""
    with opened(parent, os.O_RDONLY) as fd:
        subvolume.create(fd, name)
    return id_of(parent / name)


def take(source: Path, parent: Path, name: str, *, read_only: bool = False) -> int:
    """Makes a snapshot and returns its id."""
    with opened(source, os.O_RDONLY) as source_fd, opened(parent, os.O_RDONLY) as fd:
        subvolume.snapshot(source_fd, fd, name, read_only=read_only)
    return id_of(parent / name)


def id_of(path: Path) -> int:
    with opened(path, os.O_RDONLY) as fd:
        return subvolume.subvolume_id(fd)


class TestKind:
    def test_tells_btrfs(self, btrfs_pool: Path, xfs_pool: Path) -> None:
        for flags in os.O_RDONLY, os.O_PATH:
            with opened(btrfs_pool, flags) as yes, opened(xfs_pool, flags) as no:
                assert subvolume.is_btrfs(yes)
                assert not subvolume.is_btrfs(no)

    def test_tells_subvolumes(self, btrfs_pool: Path, xfs_pool: Path) -> None:
        make(btrfs_pool, "volume")
        (btrfs_pool / "directory").mkdir()
        found = {}
        for path in btrfs_pool, btrfs_pool / "volume", btrfs_pool / "directory", xfs_pool:
            with opened(path, os.O_RDONLY) as fd:
                found[path] = subvolume.is_subvolume(fd)
        assert list(found.values()) == [True, True, False, False]

    def test_ids(self, btrfs_pool: Path) -> None:
        assert id_of(btrfs_pool) == 5
        first, second = make(btrfs_pool, "first"), make(btrfs_pool, "second")
        assert 256 <= first < second
        (btrfs_pool / "first" / "directory").mkdir()
        assert id_of(btrfs_pool / "first" / "directory") == first

    def test_no_id_elsewhere(self, xfs_pool: Path) -> None:
        with opened(xfs_pool, os.O_RDONLY) as fd, pytest.raises(OSError, match="INO_LOOKUP"):
            subvolume.subvolume_id(fd)


class TestCreate:
    def test_what_is_there_is_not_replaced(self, pool: int) -> None:
        subvolume.create(pool, "volume")
        with pytest.raises(FileExistsError, match="SUBVOL_CREATE"):
            subvolume.create(pool, "volume")

    @pytest.mark.parametrize(
        ("name", "number"),
        [("", errno.EACCES), ("a/b", errno.EINVAL), ("..", errno.EEXIST)]
        + [("x" * length, errno.ENAMETOOLONG) for length in (256, 4039, 4040, 9000)],
    )
    def test_bad_names(self, pool: int, name: str, number: int) -> None:
        with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is the point
            subvolume.create(pool, name)
        assert caught.value.errno == number

    def test_a_null_byte_does_not_end_the_name(self, pool: int, btrfs_pool: Path) -> None:
        with pytest.raises(ValueError, match="null byte"):
            subvolume.create(pool, "volume\0hidden")
        assert list(btrfs_pool.iterdir()) == []


class TestSnapshot:
    def test_is_a_moment_of_its_source(self, btrfs_pool: Path) -> None:
        make(btrfs_pool, "volume")
        (btrfs_pool / "volume" / "file").write_text("before")
        take(btrfs_pool / "volume", btrfs_pool, "snapshot")
        (btrfs_pool / "volume" / "file").write_text("after")
        assert (btrfs_pool / "snapshot" / "file").read_text() == "before"
        (btrfs_pool / "snapshot" / "file").write_text("changed")
        assert (btrfs_pool / "volume" / "file").read_text() == "after"

    def test_read_only(self, btrfs_pool: Path) -> None:
        make(btrfs_pool, "volume")
        take(btrfs_pool / "volume", btrfs_pool, "snapshot", read_only=True)
        with pytest.raises(OSError, match="Read-only"):
            (btrfs_pool / "snapshot" / "file").touch()
        with opened(btrfs_pool / "snapshot", os.O_RDONLY) as fd:
            assert subvolume.is_read_only(fd)
            subvolume.set_read_only(fd, False)
            assert not subvolume.is_read_only(fd)
        (btrfs_pool / "snapshot" / "file").touch()

    def test_leaves_out_what_is_nested(self, btrfs_pool: Path) -> None:
        make(btrfs_pool, "volume")
        make(btrfs_pool / "volume", "nested")
        (btrfs_pool / "volume" / "nested" / "file").touch()
        take(btrfs_pool / "volume", btrfs_pool, "snapshot")
        assert list((btrfs_pool / "snapshot" / "nested").iterdir()) == []

    def test_a_directory_has_none(self, btrfs_pool: Path) -> None:
        (btrfs_pool / "directory").mkdir()
        with pytest.raises(OSError, match="SNAP_CREATE") as caught:
            take(btrfs_pool / "directory", btrfs_pool, "snapshot")
        assert caught.value.errno == errno.EINVAL


class TestNested:
    def test_lists_children_and_descendants(self, btrfs_pool: Path) -> None:
        make(btrfs_pool, "volume")
        (btrfs_pool / "volume" / "directory").mkdir()
        first = make(btrfs_pool / "volume", "first")
        second = make(btrfs_pool / "volume" / "directory", "second")
        third = make(btrfs_pool / "volume" / "first", "third")
        with opened(btrfs_pool / "volume", os.O_RDONLY) as fd:
            assert sorted(subvolume.nested(fd)) == [first, second]
            assert sorted(subvolume.descendants(fd)) == [first, second, third]
        with opened(btrfs_pool / "volume" / "first" / "third", os.O_RDONLY) as fd:
            assert subvolume.nested(fd) == []
            assert subvolume.descendants(fd) == []

    @pytest.mark.parametrize("count", [254, 255, 256, 600])
    def test_more_than_one_answer_holds(self, btrfs_pool: Path, count: int) -> None:
        make(btrfs_pool, "volume")
        with opened(btrfs_pool / "volume", os.O_RDONLY) as fd:
            for number in range(count):
                subvolume.create(fd, f"nested-{number}")
            assert len(set(subvolume.nested(fd))) == count


class TestOpenById:
    def test_opens_wherever_it_has_moved_to(self, pool: int, btrfs_pool: Path) -> None:
        number = make(btrfs_pool, "volume")
        (btrfs_pool / "directory").mkdir()
        (btrfs_pool / "volume").rename(btrfs_pool / "directory" / "moved")
        fd = subvolume.open_by_id(pool, number)
        try:
            assert os.readlink(f"/proc/self/fd/{fd}") == str(btrfs_pool / "directory" / "moved")
            assert not os.get_inheritable(fd)
        finally:
            os.close(fd)

    def test_what_is_destroyed_is_stale(self, pool: int, btrfs_pool: Path) -> None:
        number = make(btrfs_pool, "volume")
        subvolume.destroy(pool, "volume")
        for gone in number, 99999:
            with pytest.raises(OSError, match="handle") as caught:
                subvolume.open_by_id(pool, gone)
            assert caught.value.errno == errno.ESTALE


class TestDestroy:
    @pytest.mark.parametrize("by_id", [True, False])
    @pytest.mark.parametrize("read_only", [True, False])
    def test_takes_all_that_is_in_it(
        self, pool: int, btrfs_pool: Path, by_id: bool, read_only: bool
    ) -> None:
        make(btrfs_pool, "volume")
        (btrfs_pool / "volume" / "directory").mkdir()
        (btrfs_pool / "volume" / "directory" / "file").write_text("content")
        number = take(btrfs_pool / "volume", btrfs_pool, "snapshot", read_only=read_only)
        if by_id:
            subvolume.destroy_by_id(pool, number)
        else:
            subvolume.destroy(pool, "snapshot")
        assert [path.name for path in btrfs_pool.iterdir()] == ["volume"]

    def test_not_what_holds_others(self, pool: int, btrfs_pool: Path) -> None:
        number = make(btrfs_pool, "volume")
        make(btrfs_pool / "volume", "nested")
        with pytest.raises(OSError, match="SNAP_DESTROY") as caught:
            subvolume.destroy(pool, "volume")
        assert caught.value.errno == errno.ENOTEMPTY
        with pytest.raises(OSError, match="SNAP_DESTROY") as caught:
            subvolume.destroy_by_id(pool, number)
        assert caught.value.errno == errno.ENOTEMPTY

    def test_not_what_is_no_subvolume(self, pool: int, btrfs_pool: Path) -> None:
        (btrfs_pool / "directory").mkdir()
        with pytest.raises(OSError, match="SNAP_DESTROY") as caught:
            subvolume.destroy(pool, "directory")
        assert caught.value.errno == errno.EINVAL
        with pytest.raises(FileNotFoundError):
            subvolume.destroy(pool, "nothing")
        with pytest.raises(FileNotFoundError):
            subvolume.destroy_by_id(pool, 99999)


class TestCommit:
    def test_takes_in_what_was_done_and_leaves_what_files_hold_for_later(
        self, btrfs_pool: Path, pool: int
    ) -> None:
        disk = mount_containing(pool).source
        before = generation(disk)
        with opened(btrfs_pool / "file", os.O_WRONLY | os.O_CREAT) as file:
            os.write(file, os.urandom(16 * MIB))
            make(btrfs_pool, "volume")
            subvolume.commit(pool)
            assert generation(disk) > before
            assert is_unwritten_back(file)
            os.fsync(file)
            assert not is_unwritten_back(file)

    def test_of_nothing_new_is_fine(self, pool: int) -> None:
        for _ in range(3):
            subvolume.commit(pool)

    def test_of_another_filesystem_is_refused(self, xfs_pool: Path) -> None:
        with opened(xfs_pool, os.O_RDONLY) as fd, pytest.raises(OSError, match="FSLABEL") as caught:
            subvolume.commit(fd)
        assert caught.value.errno == errno.ENOTTY

    def test_the_label_stays(self, btrfs_pool: Path, pool: int) -> None:
        label = ["btrfs", "filesystem", "label", str(btrfs_pool)]
        subprocess.run([*label, "somebody's"], check=True, timeout=60)
        make(btrfs_pool, "volume")
        subvolume.commit(pool)
        said = subprocess.run(label, capture_output=True, text=True, check=True, timeout=60).stdout
        assert said.strip() == "somebody's"

    def test_none_waits_for_the_next_one_that_comes_by_itself(
        self, btrfs_pool: Path, pool: int
    ) -> None:
        """Bursts with rests between: the kernel's own thread is then about to sleep now and then.

        It is the one that commits what others only ask for, and misses one request in hundreds.
        """
        rounds = threading.Barrier(4, timeout=60)

        def make_and_destroy(number: int) -> None:
            for each in range(60):
                rounds.wait()
                for step in (subvolume.create, subvolume.destroy):
                    start = time.monotonic()
                    step(pool, f"{number}-{each}")
                    subvolume.commit(pool)
                    assert time.monotonic() - start < 10
                time.sleep(each % 10 / 200)

        with ThreadPoolExecutor(4) as at_once:
            list(at_once.map(make_and_destroy, range(4)))

    def test_of_one_that_has_become_read_only_is_told(self, btrfs_pool: Path, pool: int) -> None:
        """As after a commit that failed."""
        subprocess.run(["mount", "-o", "remount,ro", btrfs_pool], check=True, timeout=60)
        with pytest.raises(OSError, match="Read-only") as caught:
            subvolume.commit(pool)
        assert caught.value.errno == errno.EROFS


def generation(disk: str) -> int:
    """The number of the last commit on a disk."""
    command = ["btrfs", "inspect-internal", "dump-super", disk]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    line = next(line for line in said.splitlines() if line.startswith("generation"))
    return int(line.split()[1])
