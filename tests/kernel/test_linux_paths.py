"""csi.linux.paths against the kernel."""

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from csi.linux import paths
from tests.disks import opened

pytestmark = pytest.mark.kernel


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    """A directory with something in it, beside a secret."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "root" / "inner").mkdir(parents=True)
    (tmp_path / "root" / "inner" / "file").write_text("content")
    with opened(tmp_path / "root", os.O_RDONLY) as fd:
        yield fd


class TestOpenBeneath:
    def test_opens_below_and_closes_on_exec(self, root: int) -> None:
        fd = paths.open_beneath(root, "inner/../inner/file", os.O_RDONLY)
        with open(fd, encoding="utf-8") as file:
            assert file.read() == "content"
            assert not os.get_inheritable(fd)

    def test_creates_with_the_mode(self, root: int) -> None:
        os.close(paths.open_beneath(root, "new", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        assert os.stat("new", dir_fd=root).st_mode & 0o777 == 0o600

    def test_a_mode_counts_only_for_what_is_created(self, root: int) -> None:
        os.close(paths.open_beneath(root, "inner/file", os.O_RDONLY, 0o600))

    def test_makes_a_file_without_a_name(self, root: int) -> None:
        os.close(paths.open_beneath(root, "inner", os.O_TMPFILE | os.O_RDWR, 0o600))
        assert os.listdir(paths_of(root) + "/inner") == ["file"]

    @pytest.mark.parametrize("path", ["../secret", "inner/../../secret", "..", "/etc/passwd"])
    def test_nothing_leads_out(self, root: int, path: str) -> None:
        with pytest.raises(OSError, match="openat2") as caught:
            paths.open_beneath(root, path, os.O_RDONLY)
        assert caught.value.errno == errno.EXDEV
        assert caught.value.filename == path

    @pytest.mark.parametrize(
        ("target", "path"),
        [
            ("../secret", "link"),
            ("inner/file", "link"),
            ("inner", "link/file"),
            ("/", "link/etc/passwd"),
            ("/proc/self/root", "link"),
        ],
    )
    def test_no_symlink_is_followed(self, root: int, target: str, path: str) -> None:
        os.symlink(target, "link", dir_fd=root)
        with pytest.raises(OSError, match="openat2") as caught:
            paths.open_beneath(root, path, os.O_RDONLY)
        assert caught.value.errno == errno.ELOOP

    def test_magic_links_of_proc_are_not_followed(self) -> None:
        with (
            opened(Path("/proc/self"), os.O_RDONLY) as proc,
            pytest.raises(OSError, match=r"(umount2|openat2): ") as caught,
        ):
            paths.open_beneath(proc, "exe", os.O_RDONLY)
        assert caught.value.errno == errno.ELOOP

    def test_no_mount_is_crossed(self, xfs_pool: Path) -> None:
        with (
            opened(xfs_pool.parent, os.O_RDONLY) as above,
            pytest.raises(OSError, match=r"(umount2|openat2): ") as caught,
        ):
            paths.open_beneath(above, xfs_pool.name, os.O_RDONLY)
        assert caught.value.errno == errno.EXDEV

    def test_a_null_byte_does_not_end_the_path(self, root: int) -> None:
        with pytest.raises(ValueError, match="null byte"):
            paths.open_beneath(root, "inner/file\0.json", os.O_RDONLY)

    def test_renames_elsewhere_do_not_make_it_fail(self, root: int, tmp_path: Path) -> None:
        """With `..` in the path the kernel answers EAGAIN when it races with any rename."""
        stop = threading.Event()

        def rename_on() -> None:
            (tmp_path / "a").mkdir()
            while not stop.is_set():
                os.rename(tmp_path / "a", tmp_path / "b")
                os.rename(tmp_path / "b", tmp_path / "a")

        renaming = threading.Thread(target=rename_on)
        renaming.start()
        try:
            for _ in range(2000):
                os.close(paths.open_beneath(root, "inner/../inner/file", os.O_RDONLY))
        finally:
            stop.set()
            renaming.join()


class TestMountRoots:
    def test_a_directory_is_one_only_where_something_is_mounted(self, ext4_pool: Path) -> None:
        assert paths.is_mount_root(str(ext4_pool))
        assert not paths.is_mount_root(str(ext4_pool / "lost+found"))
        assert not paths.is_mount_root(str(ext4_pool.parent))

    def test_a_symlink_to_one_is_none(self, ext4_pool: Path, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(ext4_pool)
        assert not paths.is_mount_root(str(tmp_path / "link"))

    def test_a_path_that_is_not_there_raises(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError) as caught:
            paths.is_mount_root(str(tmp_path / "nothing"))
        assert caught.value.filename == str(tmp_path / "nothing")

    @pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_PATH])
    def test_a_descriptor_tells_too(self, ext4_pool: Path, flags: int) -> None:
        with opened(ext4_pool, flags) as mounted, opened(ext4_pool.parent, flags) as plain:
            assert paths.is_mount_root_fd(mounted)
            assert not paths.is_mount_root_fd(plain)


class TestNames:
    def test_rename_moves_between_directories(self, root: int, tmp_path: Path) -> None:
        with opened(tmp_path, os.O_RDONLY) as other:
            paths.rename_noreplace(root, "inner", other, "moved")
        assert (tmp_path / "moved" / "file").read_text() == "content"

    def test_rename_replaces_nothing(self, root: int, tmp_path: Path) -> None:
        (tmp_path / "root" / "other").write_text("other")
        with pytest.raises(FileExistsError) as caught:
            paths.rename_noreplace(root, "other", root, "inner")
        assert caught.value.filename == "inner"
        assert (tmp_path / "root" / "other").read_text() == "other"

    def test_syncing_takes_directories(self, root: int) -> None:
        paths.sync_directory(root)

    def test_a_failed_sync_names_the_call(self) -> None:
        with pytest.raises(OSError, match="fsync") as caught:
            paths.sync_directory(-1)
        assert (caught.value.errno, caught.value.filename) == (errno.EBADF, "fsync")


def paths_of(fd: int) -> str:
    return os.readlink(f"/proc/self/fd/{fd}")
