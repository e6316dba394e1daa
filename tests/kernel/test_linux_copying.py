"""csi.linux.copying against the kernel."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from csi.linux import copying
from tests.disks import opened

pytestmark = pytest.mark.kernel

MIB = 1 << 20
PIECES = {0: b"begin" * 1000, 4 * MIB: os.urandom(3 * MIB), 20 * MIB: b"end"}


def always() -> bool:
    return True


def write_sparse(path: Path) -> Path:
    """Writes a file of 24 MiB with three pieces of data in it."""
    with path.open("xb") as file:
        for offset, data in PIECES.items():
            file.seek(offset)
            file.write(data)
        file.truncate(24 * MIB)
        os.fsync(file.fileno())
    return path


def copy(source: Path, target: Path, keep_going: Callable[[], bool] = always) -> int:
    target.touch()
    with opened(source, os.O_RDONLY) as source_fd, opened(target, os.O_WRONLY) as target_fd:
        return copying.copy_sparse(source_fd, target_fd, keep_going=keep_going, chunk_bytes=1 * MIB)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_sparse(tmp_path / "source")


class TestClone:
    @pytest.mark.parametrize("pool", ["xfs_pool", "btrfs_pool"])
    def test_shares_the_blocks(self, pool: str, request: pytest.FixtureRequest) -> None:
        path: Path = request.getfixturevalue(pool)
        source = write_sparse(path / "source")
        (path / "clone").touch()
        before = os.statvfs(path).f_bfree
        with opened(source, os.O_RDONLY) as source_fd, opened(path / "clone", os.O_WRONLY) as fd:
            copying.clone_file(source_fd, fd)
            os.fsync(fd)
            assert before - os.statvfs(path).f_bfree < 1 * MIB // 4096
            assert copying.allocated_bytes(fd) >= 3 * MIB
        assert (path / "clone").read_bytes() == source.read_bytes()

    def test_ext4_says_no(self, ext4_pool: Path) -> None:
        source = write_sparse(ext4_pool / "source")
        (ext4_pool / "clone").touch()
        with (
            opened(source, os.O_RDONLY) as source_fd,
            opened(ext4_pool / "clone", os.O_WRONLY) as fd,
            pytest.raises(OSError, match="FICLONE") as caught,
        ):
            copying.clone_file(source_fd, fd)
        assert caught.value.errno == errno.EOPNOTSUPP

    def test_nothing_is_shared_between_filesystems(self, xfs_pool: Path, source: Path) -> None:
        (xfs_pool / "clone").touch()
        with (
            opened(source, os.O_RDONLY) as source_fd,
            opened(xfs_pool / "clone", os.O_WRONLY) as fd,
            pytest.raises(OSError, match="FICLONE") as caught,
        ):
            copying.clone_file(source_fd, fd)
        assert caught.value.errno == errno.EXDEV


class TestCanClone:
    @pytest.mark.parametrize(
        ("pool", "expected"), [("xfs_pool", True), ("btrfs_pool", True), ("ext4_pool", False)]
    )
    @pytest.mark.parametrize("unnamed", [True, False])
    def test_is_tried(
        self,
        pool: str,
        expected: bool,
        unnamed: bool,
        request: pytest.FixtureRequest,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        if not unnamed:
            monkeypatch.setattr(copying, "open_beneath", without_tmpfile)
        directory: Path = request.getfixturevalue(pool) / "empty"
        directory.mkdir()
        with opened(directory, os.O_RDONLY) as fd:
            assert copying.can_clone(fd) is expected
        assert list(directory.iterdir()) == []

    def test_what_cannot_be_tried_raises(self) -> None:
        with opened(Path("/proc/self"), os.O_RDONLY) as fd, pytest.raises(OSError, match="openat2"):
            copying.can_clone(fd)


def without_tmpfile(root: int, path: str, flags: int, mode: int = 0) -> int:
    """Opens like a filesystem that cannot make files without a name."""
    if flags & os.O_TMPFILE == os.O_TMPFILE:
        raise OSError(errno.EOPNOTSUPP, "no O_TMPFILE")
    return os.open(path, flags | os.O_CLOEXEC, mode, dir_fd=root)


class TestCopySparse:
    @pytest.fixture(params=["tmp_path", "ext4_pool", "xfs_pool", "btrfs_pool"])
    def target(self, request: pytest.FixtureRequest) -> Path:
        """A file on the filesystem of the source, and on others of each type."""
        directory: Path = request.getfixturevalue(request.param)
        return directory / "target"

    def test_copies_data_and_keeps_holes(self, source: Path, target: Path) -> None:
        copied = copy(source, target)
        assert target.read_bytes() == source.read_bytes()
        assert sum(map(len, PIECES.values())) <= copied <= 3 * MIB + 16 * 4096
        with opened(target, os.O_RDONLY) as fd:
            os.fsync(fd)
            assert copying.allocated_bytes(fd) <= 3 * MIB + 16 * 4096

    def test_fills_what_was_preallocated(self, source: Path, tmp_path: Path) -> None:
        target = tmp_path / "target"
        target.touch()
        with opened(target, os.O_RDWR) as fd:
            copying.preallocate(fd, 24 * MIB)
        copy(source, target)
        assert target.read_bytes() == source.read_bytes()
        assert target.stat().st_blocks * 512 >= 24 * MIB

    @pytest.mark.parametrize("size", [0, 5 * MIB])
    def test_copies_nothing_but_the_size(self, tmp_path: Path, size: int) -> None:
        with (tmp_path / "source").open("xb") as file:
            file.truncate(size)
        assert copy(tmp_path / "source", tmp_path / "target") == 0
        status = (tmp_path / "target").stat()
        assert (status.st_size, status.st_blocks) == (size, 0)

    def test_stops_when_told(self, source: Path, tmp_path: Path) -> None:
        answers = iter([True, True, False])
        with pytest.raises(InterruptedError):
            copy(source, tmp_path / "target", lambda: next(answers))
        assert list(answers) == []

    @pytest.mark.parametrize("in_kernel", [True, False])
    def test_a_source_that_is_cut_short_is_an_error(
        self, source: Path, tmp_path: Path, in_kernel: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if not in_kernel:
            monkeypatch.setattr(os, "copy_file_range", not_in_kernel)

        def cut() -> bool:
            os.truncate(source, 0)
            return True

        with pytest.raises(OSError, match="cut short") as caught:
            copy(source, tmp_path / "target", cut)
        assert caught.value.errno == errno.EIO

    def test_a_full_target_is_an_error(self, tmp_path: Path, ext4_pool: Path) -> None:
        with (tmp_path / "source").open("xb") as file:
            os.posix_fallocate(file.fileno(), 0, 300 * MIB)
            for offset in range(0, 300 * MIB, MIB):
                os.pwrite(file.fileno(), b"x" * 65536, offset)
        (ext4_pool / "filler").touch()
        with opened(ext4_pool / "filler", os.O_RDWR) as fd:
            copying.preallocate(fd, os.statvfs(ext4_pool).f_bavail * 4096 - 8 * MIB)
        with pytest.raises(OSError, match="No space") as caught:
            copy(tmp_path / "source", ext4_pool / "target")
        assert caught.value.errno == errno.ENOSPC


def not_in_kernel(*_: object) -> int:
    raise OSError(errno.ENOSYS, "not in this kernel")


class TestPreallocate:
    @pytest.fixture
    def file(self, ext4_pool: Path) -> Iterator[int]:
        (ext4_pool / "file").write_bytes(b"content")
        with opened(ext4_pool / "file", os.O_RDWR) as fd:
            yield fd

    def test_gives_real_blocks_and_keeps_what_is_there(self, file: int) -> None:
        copying.preallocate(file, 10 * MIB)
        assert copying.allocated_bytes(file) >= 10 * MIB
        assert os.fstat(file).st_size == 10 * MIB
        assert os.pread(file, 8, 0) == b"content\0"

    def test_too_much_is_an_error(self, file: int) -> None:
        with pytest.raises(OSError, match="fallocate") as caught:
            copying.preallocate(file, 1024 * MIB)
        assert caught.value.errno == errno.ENOSPC
