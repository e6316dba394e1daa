"""csi.linux.filesystems, with its growth and superblock, against the kernel and the programs."""

import dataclasses
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from csi.errors import ProgramFailed
from csi.linux import copying, filesystems, growth, loop, mounts, superblock
from csi.linux.usage import filesystem_usage
from tests.disks import mount_image, opened, release

pytestmark = pytest.mark.kernel

MIB = 1 << 20
SMALL, LARGE = 320 * MIB, 640 * MIB

every_type = pytest.mark.parametrize("fs_type", ["ext4", "xfs", "btrfs"])


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A file of 320 MiB without anything in it."""
    path = tmp_path / "disk.img"
    with path.open("xb") as file:
        file.truncate(SMALL)
    return path


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory to mount at."""
    path = tmp_path / "place"
    path.mkdir()
    yield path
    release(path)


class TestMake:
    @every_type
    def test_the_smallest(self, fs_type: str, image: Path, place: Path) -> None:
        os.truncate(image, filesystems.FILESYSTEMS[fs_type].minimum_bytes)
        filesystems.make_filesystem(fs_type, str(image))
        mount_image(image, place, fs_type)
        (place / "file").write_bytes(os.urandom(MIB))
        assert filesystem_usage(str(place)).available_bytes > 8 * MIB

    @pytest.mark.parametrize(("fs_type", "size"), [("xfs", 299 * MIB), ("btrfs", 108 * MIB)])
    def test_a_smaller_one_is_refused(self, fs_type: str, size: int, image: Path) -> None:
        os.truncate(image, size)
        with pytest.raises(ProgramFailed) as caught:
            filesystems.make_filesystem(fs_type, str(image))
        assert caught.value.program == f"mkfs.{fs_type}"

    @every_type
    def test_a_program_that_makes_nothing_and_says_that_all_is_well(
        self, fs_type: str, image: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As mkfs.btrfs does when it cannot write its superblock."""
        kind = dataclasses.replace(filesystems.FILESYSTEMS[fs_type], make=("true",))
        monkeypatch.setattr(filesystems, "FILESYSTEMS", {fs_type: kind})
        with pytest.raises(ProgramFailed, match="left no filesystem"):
            filesystems.make_filesystem(fs_type, str(image))

    @every_type
    def test_takes_a_descriptor_a_label_and_options(
        self, fs_type: str, image: Path, place: Path
    ) -> None:
        options = {
            "ext4": ("-m", "5"),
            "xfs": ("-i", "maxpct=10"),
            "btrfs": ("-m", "single"),
        }[fs_type]
        with opened(image, os.O_RDWR) as fd:
            filesystems.make_filesystem(
                fs_type, f"/proc/self/fd/{fd}", label="a-label", options=options, pass_fds=(fd,)
            )
        assert filesystems.probe(str(image)) == fs_type
        command = ["blkid", "-p", "-s", "LABEL", "-o", "value", str(image)]
        assert subprocess.check_output(command, text=True).strip() == "a-label"
        mount_image(image, place, fs_type)

    def test_the_image_stays_sparse(self, image: Path, place: Path) -> None:
        filesystems.make_filesystem("ext4", str(image))
        mount_image(image, place, "ext4")
        assert image.stat().st_blocks * 512 < 2 * MIB

    def test_ext4_reserves_nothing_for_root(self, image: Path, place: Path) -> None:
        filesystems.make_filesystem("ext4", str(image))
        mount_image(image, place, "ext4")
        found = os.statvfs(place)
        # What is left is the kernel's own reserve for delayed allocation, which never shows.
        assert found.f_bfree - found.f_bavail <= found.f_blocks * 0.025

    @every_type
    def test_what_is_in_use_is_not_formatted(self, fs_type: str, image: Path) -> None:
        filesystems.make_filesystem("ext4", str(image))
        before = start_of(image)
        with pytest.raises(FileExistsError, match="ext4"):
            filesystems.make_filesystem(fs_type, str(image))
        assert start_of(image) == before

    @every_type
    def test_a_preallocated_image_is_formatted(self, fs_type: str, image: Path) -> None:
        with opened(image, os.O_RDWR) as fd:
            copying.preallocate(fd, SMALL)
        filesystems.make_filesystem(fs_type, str(image))
        assert filesystems.probe(str(image)) == fs_type
        assert image.stat().st_blocks * 512 >= SMALL

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            filesystems.make_filesystem("ext4", str(tmp_path / "nothing"))
        assert not (tmp_path / "nothing").exists()


class TestProbe:
    def test_finds_nothing(self, image: Path) -> None:
        assert filesystems.probe(str(image)) is None

    def test_finds_a_partition_table(self, image: Path) -> None:
        with opened(image, os.O_RDWR) as fd:
            os.pwrite(fd, b"\x83", 446 + 4)
            os.pwrite(fd, (2048).to_bytes(4, "little") + (4096).to_bytes(4, "little"), 446 + 8)
            os.pwrite(fd, b"\x55\xaa", 510)
        assert filesystems.probe(str(image)) == "dos"

    def test_takes_a_descriptor(self, image: Path) -> None:
        filesystems.make_filesystem("xfs", str(image))
        with opened(image, os.O_RDONLY) as fd:
            assert filesystems.probe(f"/proc/self/fd/{fd}", pass_fds=(fd,)) == "xfs"

    def test_what_cannot_be_read_is_not_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            filesystems.probe(str(tmp_path / "nothing"))
        with pytest.raises(IsADirectoryError):
            filesystems.probe(str(tmp_path))


class TestSize:
    @every_type
    def test_is_the_superblocks(self, fs_type: str, image: Path) -> None:
        filesystems.make_filesystem(fs_type, str(image))
        os.truncate(image, LARGE)
        assert filesystems.filesystem_bytes(fs_type, str(image)) == SMALL
        with (
            opened(image, os.O_RDWR) as fd,
            loop.attach(fd, autoclear=True) as attached,
        ):
            assert filesystems.filesystem_bytes(fs_type, attached.device.path) == SMALL
            assert filesystems.filesystem_bytes(fs_type, attached.fd) == SMALL

    @pytest.mark.parametrize(("feature", "expected"), [("64bit", 16 << 40), ("^64bit", 0)])
    def test_of_a_large_ext4(self, image: Path, feature: str, expected: int) -> None:
        """From 16 TiB on the count of blocks takes two fields, the second at 0x150."""
        filesystems.make_filesystem("ext4", str(image), options=("-O", feature))
        with opened(image, os.O_RDWR) as fd:
            os.pwrite(fd, b"\1", 1024 + 0x150)
        assert filesystems.filesystem_bytes("ext4", str(image)) == SMALL + expected

    @every_type
    def test_of_nothing(self, fs_type: str, image: Path) -> None:
        with pytest.raises(OSError, match="superblock") as caught:
            filesystems.filesystem_bytes(fs_type, str(image))
        assert caught.value.errno == errno.EINVAL
        os.truncate(image, 100)
        with pytest.raises(OSError, match="superblock"):
            filesystems.filesystem_bytes(fs_type, str(image))


def grow_under(image: Path, target: Path, fs_type: str) -> None:
    """Grows the image, its device and the filesystem mounted at `target`."""
    os.truncate(image, LARGE)
    with opened(target, os.O_RDONLY) as fd:
        device = mounts.mount_containing(fd).source
        loop.refresh_size(device)
        filesystems.grow_mounted(fs_type, fd, loop.device_size(device))


class TestGrowth:
    @pytest.mark.parametrize("fs_type", ["xfs", "btrfs"])
    def test_mounted(self, fs_type: str, image: Path, place: Path) -> None:
        filesystems.make_filesystem(fs_type, str(image))
        mount_image(image, place, fs_type)
        before = filesystem_usage(str(place))
        grow_under(image, place, fs_type)
        after = filesystem_usage(str(place))
        assert after.total_bytes - before.total_bytes == LARGE - SMALL
        mounts.unmount(str(place))
        assert filesystems.filesystem_bytes(fs_type, str(image)) == LARGE

    def test_mounted_ext4_where_the_kernel_lets_us(self, image: Path, place: Path) -> None:
        """It asks for CAP_SYS_RESOURCE, which root in a container or a sandbox may lack."""
        filesystems.make_filesystem("ext4", str(image))
        mount_image(image, place, "ext4")
        refusal: OSError | None = None
        try:
            grow_under(image, place, "ext4")
        except OSError as error:
            refusal = error
        mounts.unmount(str(place))
        size = filesystems.filesystem_bytes("ext4", str(image))
        if refusal is None:
            assert size == LARGE
        else:
            assert (refusal.errno, refusal.filename) == (errno.EPERM, "EXT4_IOC_RESIZE_FS")
            assert size == SMALL

    @every_type
    @pytest.mark.parametrize("rest_bytes", [0, 4095])
    def test_one_that_fills_its_device_is_left_alone(
        self, fs_type: str, rest_bytes: int, image: Path, place: Path
    ) -> None:
        """ext4 included, where the kernel would say EPERM although there is nothing to do."""
        filesystems.make_filesystem(fs_type, str(image))
        mount_image(image, place, fs_type)
        before = filesystem_usage(str(place)).total_bytes
        with opened(place, os.O_RDONLY) as fd:
            filesystems.grow_mounted(fs_type, fd, SMALL + rest_bytes)
        assert filesystem_usage(str(place)).total_bytes == before

    def test_a_btrfs_that_is_a_copy(self, image: Path, tmp_path: Path, place: Path) -> None:
        clone = tmp_path / "clone.img"
        filesystems.make_filesystem("btrfs", str(image))
        clone.touch()
        with opened(image, os.O_RDONLY) as source_fd, opened(clone, os.O_WRONLY) as clone_fd:
            copying.copy_sparse(source_fd, clone_fd, keep_going=lambda: True)
        mount_image(clone, place, "btrfs")
        grow_under(clone, place, "btrfs")
        assert filesystem_usage(str(place)).total_bytes == LARGE

    def test_a_btrfs_below_what_the_kernel_resizes_to_stays_as_it_is(
        self, image: Path, place: Path
    ) -> None:
        os.truncate(image, 128 * MIB)
        filesystems.make_filesystem("btrfs", str(image))
        os.truncate(image, 192 * MIB)
        mount_image(image, place, "btrfs")

        with opened(place, os.O_RDONLY) as fd:
            filesystems.grow_mounted("btrfs", fd, 192 * MIB)

        assert filesystem_usage(str(place)).total_bytes == 128 * MIB

    @every_type
    def test_the_smallest_grows(self, fs_type: str, image: Path, place: Path) -> None:
        least = filesystems.FILESYSTEMS[fs_type].minimum_bytes
        os.truncate(image, least)
        filesystems.make_filesystem(fs_type, str(image))
        os.truncate(image, least + 256 * MIB)
        if fs_type == "ext4":
            filesystems.resize_ext4(str(image))
        mount_image(image, place, fs_type)
        with opened(place, os.O_RDONLY) as fd:
            filesystems.grow_mounted(fs_type, fd, least + 256 * MIB)
        assert filesystem_usage(str(place)).total_bytes > least + 150 * MIB

    def test_what_xfs_says_passes_through(self, image: Path, place: Path) -> None:
        filesystems.make_filesystem("xfs", str(image))
        mount_image(image, place, "xfs")
        with (
            opened(place, os.O_RDONLY) as fd,
            pytest.raises(OSError, match="XFS_IOC_FSGROWFSDATA"),
        ):
            filesystems.grow_mounted("xfs", fd, LARGE)

    def test_unmounted_ext4(self, image: Path, place: Path) -> None:
        filesystems.make_filesystem("ext4", str(image))
        mount_image(image, place, "ext4")
        (place / "file").write_text("content")
        mounts.unmount(str(place))
        os.truncate(image, LARGE)
        with opened(image, os.O_RDWR) as fd:
            filesystems.check_ext4(f"/proc/self/fd/{fd}", pass_fds=(fd,))
            filesystems.resize_ext4(f"/proc/self/fd/{fd}", pass_fds=(fd,))
        assert filesystems.filesystem_bytes("ext4", str(image)) == LARGE
        mount_image(image, place, "ext4")
        assert (place / "file").read_text() == "content"

    @pytest.mark.parametrize(
        ("options", "size", "in_place"),
        [
            ((), 96 * MIB, True),
            ((), 1024 * SMALL, True),
            ((), 4096 * SMALL, False),
            (("-E", "resize=131072"), 512 * MIB, True),
            (("-O", "^resize_inode"), 16 << 30, False),
        ],
    )
    def test_whether_an_ext4_grows_without_moving_data(
        self, image: Path, options: tuple[str, ...], size: int, in_place: bool
    ) -> None:
        filesystems.make_filesystem("ext4", str(image), options=options)
        with opened(image, os.O_RDONLY) as fd:
            assert superblock.ext4_keeps_data_in_place(fd, size) is in_place

    def test_a_copy_of_the_tables_grows_like_the_whole(self, image: Path, tmp_path: Path) -> None:
        """Written over the image it makes the same filesystem, the data in it untouched."""
        filesystems.make_filesystem("ext4", str(image))
        content = os.urandom(MIB)
        (tmp_path / "content").write_bytes(content)
        subprocess.run(
            ["debugfs", "-w", "-R", f"write {tmp_path}/content file", str(image)],
            check=True,
            capture_output=True,
        )
        tables = tmp_path / "tables"
        growth.copy_ext4_metadata(str(image), str(tables))
        os.truncate(tables, LARGE)
        filesystems.check_ext4(str(tables))
        filesystems.resize_ext4(str(tables))
        growth.expect_whole_ext4(str(tables))

        with opened(tables, os.O_RDONLY) as source, opened(image, os.O_RDWR) as target:
            copying.copy_sparse(source, target, keep_going=lambda: True)

        growth.expect_whole_ext4(str(image))
        assert filesystems.filesystem_bytes("ext4", str(image)) == LARGE
        subprocess.run(
            ["debugfs", "-R", f"dump file {tmp_path}/found", str(image)],
            check=True,
            capture_output=True,
        )
        assert (tmp_path / "found").read_bytes() == content

    def test_an_ext4_beyond_repair_is_not_grown(self, image: Path) -> None:
        filesystems.make_filesystem("ext4", str(image))
        with opened(image, os.O_RDWR) as fd:
            os.pwrite(fd, bytes(64 * 1024), 4096)
        os.truncate(image, LARGE)
        with pytest.raises(ProgramFailed) as caught:
            filesystems.check_ext4(str(image))
        assert caught.value.program == "e2fsck"
        assert "UNEXPECTED INCONSISTENCY" in caught.value.output


class TestIdentity:
    def test_a_copied_btrfs_mounts_beside_its_source(
        self, image: Path, tmp_path: Path, place: Path
    ) -> None:
        clone, beside = tmp_path / "clone.img", tmp_path / "beside"
        clone.touch()
        beside.mkdir()
        filesystems.make_filesystem("btrfs", str(image))
        with opened(image, os.O_RDONLY) as source_fd, opened(clone, os.O_RDWR) as clone_fd:
            copying.copy_sparse(source_fd, clone_fd, keep_going=lambda: True)
            filesystems.new_btrfs_identity(f"/proc/self/fd/{clone_fd}", pass_fds=(clone_fd,))
        assert identity(clone) != identity(image)
        try:
            mount_image(image, place, "btrfs")
            mount_image(clone, beside, "btrfs")
            (place / "file").touch()
            assert list(beside.iterdir()) == []
        finally:
            release(beside)

    def test_of_what_is_no_btrfs(self, image: Path) -> None:
        with pytest.raises(ProgramFailed, match="btrfstune"):
            filesystems.new_btrfs_identity(str(image))


def identity(image: Path) -> bytes:
    """The fsid of a btrfs."""
    with opened(image, os.O_RDONLY) as fd:
        return os.pread(fd, 16, 65536 + 32)


def start_of(image: Path) -> bytes:
    with image.open("rb") as file:
        return file.read(4 * MIB)
