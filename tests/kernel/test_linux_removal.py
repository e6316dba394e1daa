"""csi.linux.removal, with what it is made of, against the kernel and against tenants."""

import contextlib
import errno
import os
import resource
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from csi.linux import filesystems, mounts, quota, removal, subvolume, syscalls, unlinking
from tests.disks import opened, release

pytestmark = pytest.mark.kernel

MIB, GIB = 1 << 20, 1 << 30
RENAME_EXCHANGE = 2


class Steps:
    """Counts the steps of a removal, does something between them and stops after some."""

    def __init__(self, allowed: int = 1_000_000, between: Callable[[], object] = int) -> None:
        self.allowed = allowed
        self.between = between
        self.paused = 0

    def keep_going(self) -> bool:
        self.allowed -= 1
        return self.allowed >= 0

    def pause(self) -> None:
        self.paused += 1
        self.between()


def remove(path: Path, steps: Steps | None = None) -> bool:
    steps = steps or Steps()
    with opened(path.parent, os.O_RDONLY) as parent:
        return removal.remove_tree(
            parent, path.name, keep_going=steps.keep_going, pause=steps.pause
        )


def make_deep(path: Path, depth: int) -> None:
    """Makes directories in one another, deeper than any path reaches."""
    path.mkdir()
    fd = os.open(path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=fd)
        deeper = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)


def make_many(path: Path, count: int) -> None:
    path.mkdir(exist_ok=True)
    with opened(path, os.O_RDONLY) as fd:
        for number in range(count):
            os.close(os.open(f"file-{number}", os.O_CREAT | os.O_WRONLY, dir_fd=fd))


@pytest.fixture
def trash(tmp_path: Path) -> Path:
    """What is to be removed."""
    path = tmp_path / "trash"
    path.mkdir()
    return path


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """What belongs to somebody else, who finds it untouched."""
    path = tmp_path / "victim"
    (path / "inner").mkdir(parents=True)
    (path / "file").write_text("precious")
    (path / "inner" / "file").write_text("precious")
    yield path
    assert (path / "file").read_text() == "precious"
    assert (path / "inner" / "file").read_text() == "precious"
    assert sorted(os.listdir(path)) == ["file", "inner"]


class TestTrees:
    def test_takes_everything(self, trash: Path, victim: Path) -> None:
        (trash / "a" / "b" / "c").mkdir(parents=True)
        (trash / "a" / "empty").mkdir()
        (trash / "a" / "b" / "file").write_text("content")
        (trash / "to-file").symlink_to(victim / "file")
        (trash / "a" / "to-directory").symlink_to(victim)
        (trash / "dangling").symlink_to("nowhere")
        (trash / os.fsdecode(b"\xff\xfe")).write_text("no UTF-8")
        (trash / "line\nfeed").mkdir()
        (trash / "linked").hardlink_to(trash / "a" / "b" / "file")
        (trash / "a" / "closed").mkdir(mode=0)
        os.mkfifo(trash / "fifo")
        os.mknod(trash / "device", 0o600 | 0o020000, os.makedev(1, 3))
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(trash / "socket"))
        assert remove(trash)
        assert not trash.exists()

    @pytest.mark.parametrize("kind", ["file", "symlink", "fifo", "nothing"])
    def test_takes_what_is_no_directory(self, tmp_path: Path, kind: str, victim: Path) -> None:
        path = tmp_path / "single"
        if kind == "file":
            path.write_text("content")
        elif kind == "symlink":
            path.symlink_to(victim)
        elif kind == "fifo":
            os.mkfifo(path)
        assert remove(path)
        assert not os.path.lexists(path)

    @pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/", "trash/.."])
    def test_takes_single_names_only(self, tmp_path: Path, trash: Path, name: str) -> None:
        steps = Steps()
        with opened(tmp_path, os.O_RDONLY) as parent, pytest.raises(ValueError, match="name"):
            removal.remove_tree(parent, name, keep_going=steps.keep_going, pause=steps.pause)
        assert trash.exists()

    def test_a_deep_one_takes_few_descriptors(self, trash: Path) -> None:
        make_deep(trash / "deep", 2000)
        make_deep(trash / "deeper", 500)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        descriptors = len(os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors + 80, hard))
        try:
            assert remove(trash)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert not trash.exists()
        assert len(os.listdir("/proc/self/fd")) == descriptors

    @pytest.mark.parametrize("pool", ["ext4_pool", "xfs_pool", "btrfs_pool"])
    def test_a_wide_one(self, pool: str, request: pytest.FixtureRequest) -> None:
        path: Path = request.getfixturevalue(pool)
        steps = Steps()
        make_many(path / "trash", 3000)
        assert remove(path / "trash", steps)
        assert not (path / "trash").exists()
        assert steps.paused == 3001 // 256

    @pytest.mark.parametrize("flag", ["+i", "+a"])
    def test_flags_do_not_keep_anything(self, ext4_pool: Path, flag: str) -> None:
        (ext4_pool / "trash" / "directory").mkdir(parents=True)
        (ext4_pool / "trash" / "directory" / "file").write_text("content")
        command = ["chattr", "-R", flag, str(ext4_pool / "trash")]
        subprocess.run(command, check=True)
        assert remove(ext4_pool / "trash")
        assert not (ext4_pool / "trash").exists()

    @pytest.mark.parametrize("kind", ["fifo", "device"])
    def test_nor_flags_of_what_is_not_to_be_opened(self, xfs_pool: Path, kind: str) -> None:
        """XFS keeps them for special files, too."""
        if filesystems.kernel_version() < (6, 17):
            pytest.skip("before Linux 6.17 a file has to be opened to change its flags")
        (xfs_pool / "trash").mkdir()
        file = xfs_pool / "trash" / "file"
        if kind == "fifo":
            os.mkfifo(file)
        else:
            os.mknod(file, 0o600 | 0o020000, os.makedev(1, 3))
        with opened(xfs_pool / "trash", os.O_RDONLY) as above:
            attributes = bytearray(24)
            syscalls.file_getattr(above, "file", attributes)
            attributes[0] |= 0x8  # FS_XFLAG_IMMUTABLE
            syscalls.file_setattr(above, "file", attributes)
        with pytest.raises(PermissionError):
            file.unlink()
        assert remove(xfs_pool / "trash")

    def test_a_full_filesystem(self, ext4_pool: Path) -> None:
        make_deep(ext4_pool / "trash", 100)
        with (ext4_pool / "filler").open("wb", buffering=0) as filler:
            with contextlib.suppress(OSError):
                while True:
                    filler.write(bytes(MIB))
            with contextlib.suppress(OSError):
                while True:
                    filler.write(b"x")
            assert remove(ext4_pool / "trash")

    def test_what_the_kernel_refuses_is_raised(self, ext4_pool: Path) -> None:
        (ext4_pool / "trash").mkdir()
        with opened(ext4_pool, os.O_PATH) as pool, opened(ext4_pool, os.O_PATH) as target:
            mounts.bind_mount(pool, target, read_only=True)
        with pytest.raises(OSError, match="Read-only") as caught:
            remove(ext4_pool / "trash")
        assert caught.value.errno == errno.EROFS
        mounts.unmount(str(ext4_pool))


class TestSteps:
    def test_nothing_is_done_without_leave(self, trash: Path) -> None:
        assert not remove(trash, Steps(allowed=0))
        assert trash.exists()

    def test_goes_on_where_it_was_stopped(self, trash: Path) -> None:
        make_many(trash, 1000)
        steps = Steps(allowed=3)
        assert not remove(trash, steps)
        assert len(os.listdir(trash)) == 1000 - 3 * 256
        assert remove(trash)
        assert not trash.exists()

    def test_a_large_file_goes_in_parts(self, trash: Path) -> None:
        sizes = []
        file = trash / "large"
        with file.open("wb") as opened_file:
            os.posix_fallocate(opened_file.fileno(), 0, 3 * GIB + MIB)
        steps = Steps(between=lambda: sizes.append(file.stat().st_size))
        assert remove(trash, steps)
        assert sizes == [2 * GIB + MIB, GIB + MIB, MIB, 0]
        assert not trash.exists()

    def test_a_large_file_can_be_left_half_way(self, trash: Path) -> None:
        file = trash / "large"
        with file.open("wb") as opened_file:
            os.posix_fallocate(opened_file.fileno(), 0, 3 * GIB)
        assert not remove(trash, Steps(allowed=2))
        assert file.stat().st_size == GIB
        assert remove(trash)

    def test_a_huge_length_is_not_walked(
        self, xfs_pool: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One that a tenant may set on a file without data: here 4 EiB, and 1 MiB of data."""
        monkeypatch.setattr(unlinking, "_STEP_BYTES", 64 << 10)
        (xfs_pool / "trash").mkdir()
        file = xfs_pool / "trash" / "huge"
        file.write_bytes(os.urandom(MIB))
        os.truncate(file, 4 << 60)
        steps = Steps()
        assert remove(xfs_pool / "trash", steps)
        assert steps.paused <= 2

    def test_what_has_another_name_keeps_its_data(
        self, trash: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(unlinking, "_STEP_BYTES", 64 << 10)
        (tmp_path / "kept").write_bytes(b"x" * MIB)
        (trash / "file").hardlink_to(tmp_path / "kept")
        assert remove(trash)
        assert (tmp_path / "kept").read_bytes() == b"x" * MIB

    def test_a_program_that_runs(self, trash: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """It cannot be truncated, but unlinked."""
        monkeypatch.setattr(unlinking, "_STEP_BYTES", 4 << 10)
        program = trash / "sleep"
        program.write_bytes(Path("/bin/sleep").read_bytes())
        program.chmod(0o700)
        with subprocess.Popen([program, "60"]) as process:
            try:
                assert remove(trash)
            finally:
                process.kill()


class TestMounts:
    @pytest.fixture
    def bound(self, trash: Path, victim: Path) -> Iterator[Path]:
        """Another's directory, of the same filesystem, mounted inside."""
        make_many(trash / "a", 3)
        target = trash / "a" / "mounted"
        target.mkdir()
        with opened(victim, os.O_PATH) as source, opened(target, os.O_PATH) as place:
            mounts.bind_mount(source, place)
        yield target
        release(target)

    def test_a_mount_is_not_crossed(self, bound: Path, trash: Path, victim: Path) -> None:
        with pytest.raises(OSError, match="openat2") as caught:
            remove(trash)
        assert (caught.value.errno, caught.value.filename) == (errno.EXDEV, "mounted")

    def test_nor_at_the_top(self, bound: Path, victim: Path) -> None:
        with pytest.raises(OSError, match="openat2") as caught:
            remove(bound)
        assert caught.value.errno == errno.EXDEV

    def test_nor_another_filesystem(self, xfs_pool: Path) -> None:
        (xfs_pool / "file").write_text("content")
        with pytest.raises(OSError, match="openat2") as caught:
            remove(xfs_pool.parent)
        assert caught.value.errno == errno.EXDEV
        assert (xfs_pool / "file").read_text() == "content"
        # What is beside the mount may be gone by now; the fixture looks for the image.
        (xfs_pool.parent / "disk.img").touch()

    def test_a_mounted_file_stays(self, trash: Path, victim: Path) -> None:
        (trash / "file").touch()
        source, target = victim / "file", trash / "file"
        with opened(source, os.O_PATH) as source_fd, opened(target, os.O_PATH) as target_fd:
            mounts.bind_mount(source_fd, target_fd)
        try:
            with pytest.raises(OSError, match="busy") as caught:
                remove(trash)
            assert caught.value.errno == errno.EBUSY
        finally:
            mounts.unmount(str(target))


class TestHostileTenants:
    @pytest.mark.parametrize("target", ["victim", "victim/inner", "victim/file"])
    def test_links_take_the_place_of_a_directory(
        self, trash: Path, victim: Path, tmp_path: Path, target: str
    ) -> None:
        """They change places again and again while the removal goes on."""
        (trash / "link").symlink_to(tmp_path / target)
        (trash / "directory").mkdir()
        make_many(trash / "directory", 2000)
        stop = threading.Event()

        def exchange() -> None:
            with opened(trash, os.O_RDONLY) as fd:
                while not stop.is_set():
                    with contextlib.suppress(OSError):
                        syscalls.renameat2(fd, "link", fd, "directory", RENAME_EXCHANGE)
                    with contextlib.suppress(OSError):
                        os.symlink(tmp_path / target, trash / "link")
                    with contextlib.suppress(OSError):
                        os.mkdir(trash / "directory")

        tenant = threading.Thread(target=exchange)
        tenant.start()
        try:
            for _ in range(20):
                remove(trash, Steps(allowed=5))
        finally:
            stop.set()
            tenant.join()
        assert remove(trash)
        assert not trash.exists()

    def test_a_link_takes_the_place_of_what_has_been_entered(
        self, trash: Path, victim: Path
    ) -> None:
        inner = trash / "inner"
        make_many(inner, 1000)

        def swap() -> None:
            if not inner.is_symlink():
                inner.rename(trash / "aside")
                inner.symlink_to(victim)

        assert remove(trash, Steps(between=swap))
        assert not trash.exists()

    def test_a_link_takes_the_place_of_the_top(self, trash: Path, victim: Path) -> None:
        """Then the link goes, and what was there before is not ours any more."""
        make_many(trash, 1000)
        aside = trash.with_name("aside")

        def swap() -> None:
            if not aside.exists():
                trash.rename(aside)
                trash.symlink_to(victim)

        assert remove(trash, Steps(between=swap))
        assert not os.path.lexists(trash)

    def test_a_link_takes_the_place_of_a_large_file(
        self, trash: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(unlinking, "_STEP_BYTES", 1)
        file = trash / "file"
        file.write_bytes(b"x" * MIB)
        stat_of = os.stat

        def stat_and_swap(path: str, *, dir_fd: int, follow_symlinks: bool) -> os.stat_result:
            found = stat_of(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks)
            file.unlink()
            file.symlink_to(victim / "file")
            return found

        monkeypatch.setattr(os, "stat", stat_and_swap)
        assert remove(file)

    def test_a_fifo_takes_the_place_of_a_large_file(
        self, trash: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Opening that would wait for a reader for ever."""
        monkeypatch.setattr(unlinking, "_is_large", lambda _: True)
        os.mkfifo(trash / "fifo")
        assert remove(trash)

    def test_directories_move_while_they_are_far_above(self, trash: Path) -> None:
        """The way up is closed by then; it must not lead anywhere else."""
        make_deep(trash / "deep", 600)
        moved = trash / "moved"
        upper = trash / "deep" / "d" / "d"

        def move() -> None:
            with contextlib.suppress(OSError):
                (upper / "d" / "d").rename(moved)

        assert remove(trash, Steps(between=move))
        assert not trash.exists()

    def test_new_files_keep_coming(self, trash: Path) -> None:
        make_many(trash, 300)
        created = iter(range(700))

        def create() -> None:
            for number, _ in zip(created, range(100), strict=False):
                (trash / f"new-{number}").touch()

        steps = Steps(between=create)
        assert remove(trash, steps)
        assert not trash.exists()


class TestSubvolumes:
    @pytest.fixture
    def pool(self, btrfs_pool: Path) -> Iterator[int]:
        with opened(btrfs_pool, os.O_RDONLY) as fd:
            yield fd

    def make(self, path: Path, *, read_only: bool = False) -> None:
        with opened(path.parent, os.O_RDONLY) as parent:
            subvolume.create(parent, path.name)
        (path / "file").write_text("content")
        if read_only:
            with opened(path, os.O_RDONLY) as fd:
                subvolume.set_read_only(fd, True)

    def freeze(self, path: Path) -> None:
        with opened(path, os.O_RDONLY) as fd:
            subvolume.set_read_only(fd, True)

    def test_one_goes_whole(self, btrfs_pool: Path) -> None:
        self.make(btrfs_pool / "volume")
        make_many(btrfs_pool / "volume" / "many", 1000)
        steps = Steps()
        assert remove(btrfs_pool / "volume", steps)
        assert os.listdir(btrfs_pool) == []
        assert steps.paused == 1

    def test_in_a_directory(self, btrfs_pool: Path) -> None:
        (btrfs_pool / "entry").mkdir()
        (btrfs_pool / "entry" / "record.json").write_text("{}")
        self.make(btrfs_pool / "entry" / "data")
        assert remove(btrfs_pool / "entry")
        assert os.listdir(btrfs_pool) == []

    def test_nested_and_read_only_ones(self, pool: int, btrfs_pool: Path) -> None:
        volume = btrfs_pool / "volume"
        self.make(volume)
        (volume / "directory").mkdir()
        self.make(volume / "directory" / "first")
        self.make(volume / "directory" / "first" / "second", read_only=True)
        self.make(volume / "third")
        self.make(volume / "third" / "fourth")
        self.freeze(volume / "directory" / "first")
        self.freeze(volume)
        assert remove(volume)
        assert os.listdir(btrfs_pool) == []
        assert subvolume.nested(pool) == []

    def test_read_only_snapshots(self, pool: int, btrfs_pool: Path) -> None:
        self.make(btrfs_pool / "volume")
        self.make(btrfs_pool / "volume" / "nested")
        with opened(btrfs_pool / "volume", os.O_RDONLY) as fd:
            subvolume.snapshot(fd, pool, "snapshot", read_only=True)
        assert remove(btrfs_pool / "snapshot")
        assert os.listdir(btrfs_pool) == ["volume"]

    def test_stops_between_two(self, pool: int, btrfs_pool: Path) -> None:
        self.make(btrfs_pool / "volume")
        for name in "abcdef":
            self.make(btrfs_pool / "volume" / name)
        assert not remove(btrfs_pool / "volume", Steps(allowed=4))
        assert 0 < len(subvolume.descendants(pool)) < 7
        assert remove(btrfs_pool / "volume")
        assert subvolume.nested(pool) == []

    def test_new_ones_keep_coming(self, pool: int, btrfs_pool: Path) -> None:
        volume = btrfs_pool / "volume"
        self.make(volume)
        self.make(volume / "first")
        names = iter("abc")

        def create() -> None:
            with contextlib.suppress(OSError, StopIteration):
                self.make(volume / next(names))

        assert remove(volume, Steps(between=create))
        assert subvolume.nested(pool) == []

    def test_a_link_to_another_one_is_a_link(self, pool: int, btrfs_pool: Path) -> None:
        self.make(btrfs_pool / "other")
        self.make(btrfs_pool / "volume")
        (btrfs_pool / "volume" / "link").symlink_to(btrfs_pool / "other")
        (btrfs_pool / "link").symlink_to(btrfs_pool / "other")
        assert remove(btrfs_pool / "volume")
        assert remove(btrfs_pool / "link")
        assert (btrfs_pool / "other" / "file").read_text() == "content"

    def test_a_limit_that_is_reached_does_not_keep_anything(
        self, pool: int, btrfs_pool: Path
    ) -> None:
        """Such a btrfs refuses to destroy a subvolume inside the one that is at its limit."""
        quota.enable_simple_quotas(pool)
        volume = btrfs_pool / "volume"
        self.make(volume)
        with opened(volume, os.O_RDONLY) as fd:
            number = subvolume.subvolume_id(fd)
            quota.create_group(pool, number)
            quota.assign(pool, number, number)
            quota.limit(pool, number, 8 * MIB)
        self.make(volume / "first")
        self.make(volume / "first" / "second")
        with (volume / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
            while True:
                filler.write(os.urandom(MIB))
                os.fsync(filler.fileno())
        with (
            opened(volume / "first", os.O_RDONLY) as fd,
            pytest.raises(OSError, match="quota") as caught,
        ):
            subvolume.destroy(fd, "second")
        assert caught.value.errno == errno.EDQUOT
        assert remove(volume)
        assert subvolume.nested(pool) == []
        quota.remove_group(pool, number)

    @pytest.mark.parametrize("where", ["volume", "volume/between", "volume/between/inner"])
    @pytest.mark.parametrize("flag", ["+i", "+a"])
    def test_flags_around_a_nested_one_do_not_keep_it(
        self, pool: int, btrfs_pool: Path, where: str, flag: str
    ) -> None:
        volume = btrfs_pool / "volume"
        self.make(volume)
        (volume / "between").mkdir()
        self.make(volume / "between" / "inner")
        subprocess.run(["chattr", flag, str(btrfs_pool / where)], check=True)
        assert remove(volume)
        assert subvolume.nested(pool) == []
