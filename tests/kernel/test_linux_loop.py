"""csi.linux.loop against the kernel."""

import contextlib
import dataclasses
import errno
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from csi.linux import copying, loop
from csi.linux.loop_status import LoopDevice
from tests.contract.node_fixtures import run
from tests.disks import mounted_filesystem, opened

pytestmark = pytest.mark.kernel

MIB = 1 << 20


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A file of 8 MiB."""
    return new_image(tmp_path / "disk.img")


@pytest.fixture
def attached(image: Path) -> Iterator[loop.Attached]:
    """That file on a loop device that does not go by itself."""
    with opened(image, os.O_RDWR) as file:
        device = loop.attach(file, autoclear=False)
    try:
        yield device
    finally:
        device.close()
        loop.detach(device.device.path)


def new_image(path: Path) -> Path:
    with path.open("xb") as file:
        file.truncate(8 * MIB)
    return path


def loops_over(path: Path) -> list[LoopDevice]:
    status = path.stat()
    return loop.find(status.st_dev, status.st_ino)


class TestAttach:
    def test_says_what_there_is(self, image: Path, attached: loop.Attached) -> None:
        status = image.stat()
        device = attached.device
        assert device == LoopDevice(
            path=f"/dev/loop{device.number}",
            number=device.number,
            backing_device=status.st_dev,
            backing_inode=status.st_ino,
            size_limit=0,
            autoclear=False,
            direct_io=True,
            read_only=False,
        )
        assert os.fstat(attached.fd).st_rdev == os.stat(device.path).st_rdev
        assert not os.get_inheritable(attached.fd)

    def test_autoclear_goes_when_it_is_closed(self, image: Path) -> None:
        with opened(image, os.O_RDWR) as file, loop.attach(file, autoclear=True) as attached:
            assert attached.device.autoclear
            assert loops_over(image) == [attached.device]
        assert loops_over(image) == []
        assert attached.fd == -1
        attached.close()

    def test_it_stays_without_autoclear(self, image: Path, attached: loop.Attached) -> None:
        attached.close()
        assert loops_over(image) == [attached.device]

    def test_blocks_are_as_large_as_asked(self, attached: loop.Attached) -> None:
        queue = Path(f"/sys/block/loop{attached.device.number}/queue")
        assert (queue / "logical_block_size").read_text().strip() == "4096"

    def test_a_reflinked_file_takes_direct_io(self, xfs_pool: Path) -> None:
        image = new_image(xfs_pool / "disk.img")
        image.write_bytes(b"x" * 8 * MIB)
        with opened(image, os.O_RDWR) as file, opened_new(xfs_pool / "clone") as clone:
            copying.clone_file(file, clone)
            for fd in file, clone:
                with loop.attach(fd, autoclear=True) as attached:
                    assert attached.device.direct_io

    def test_direct_io_that_cannot_be_had_is_an_error(self, xfs_pool: Path) -> None:
        """The pool's own sectors are of 4,096 bytes; the kernel would fall back in silence."""
        image = new_image(xfs_pool / "disk.img")
        with opened(image, os.O_RDWR) as file:
            with pytest.raises(OSError, match="direct I/O") as caught:
                loop.attach(file, autoclear=False, block_size=512)
            assert caught.value.errno == errno.EINVAL
            assert loops_over(image) == []
            with loop.attach(file, autoclear=True, block_size=512, direct_io=False) as attached:
                assert not attached.device.direct_io

    def test_read_only(self, image: Path) -> None:
        with (
            opened(image, os.O_RDONLY) as file,
            loop.attach(file, autoclear=True, read_only=True) as attached,
        ):
            assert attached.device.read_only
            assert Path(f"/sys/block/loop{attached.device.number}/ro").read_text() == "1\n"

    @pytest.mark.parametrize("autoclear", [True, False])
    def test_a_file_that_cannot_be_written_is_an_error(self, image: Path, autoclear: bool) -> None:
        with (
            opened(image, os.O_RDONLY) as file,
            pytest.raises(OSError, match="read-only") as caught,
        ):
            loop.attach(file, autoclear=autoclear)
        assert caught.value.errno == errno.EROFS
        assert loops_over(image) == []

    def test_what_is_no_file_is_an_error(self, tmp_path: Path) -> None:
        with (
            opened(tmp_path, os.O_RDONLY) as directory,
            pytest.raises(OSError, match="LOOP_CONFIG"),
        ):
            loop.attach(directory, autoclear=True)

    def test_many_at_once_get_devices_of_their_own(self, tmp_path: Path) -> None:
        """They race for the same free number, and all but one have to try again."""
        images = [new_image(tmp_path / f"disk-{number}.img") for number in range(16)]
        barrier = threading.Barrier(len(images))
        got: list[loop.Attached] = []

        def attach(image: Path) -> None:
            with opened(image, os.O_RDWR) as file:
                barrier.wait()
                got.append(loop.attach(file, autoclear=True))

        threads = [threading.Thread(target=attach, args=(image,)) for image in images]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        try:
            assert len({attached.device.number for attached in got}) == len(images)
        finally:
            for attached in got:
                attached.close()


class TestFind:
    def test_knows_the_file_and_not_its_path(self, image: Path, attached: loop.Attached) -> None:
        status = image.stat()
        moved = image.with_name("moved")
        image.rename(moved)
        new_image(image)
        assert loops_over(moved) == [attached.device]
        assert loops_over(image) == []
        with opened(moved, os.O_RDONLY):
            moved.unlink()
            assert loop.find(status.st_dev, status.st_ino) == [attached.device]

    def test_finds_all_and_the_hint_first(self, image: Path, attached: loop.Attached) -> None:
        status = image.stat()
        with opened(image, os.O_RDWR) as file, loop.attach(file, autoclear=True) as second:
            both = [attached.device, second.device]
            for hint in both:
                found = loop.find(status.st_dev, status.st_ino, hint=hint.number)
                assert found[0] == hint
                assert sorted(found, key=lambda device: device.number) == sorted(
                    both, key=lambda device: device.number
                )
        assert loop.find(status.st_dev, status.st_ino, hint=12345) == [attached.device]

    def test_does_not_keep_an_autoclear_one(self, image: Path) -> None:
        with opened(image, os.O_RDWR) as file, loop.attach(file, autoclear=True) as attached:
            loops_over(image)
            path = attached.device.path
        assert loop.status(path) is None

    def test_makes_the_node_that_dev_lacks(self, image: Path, attached: loop.Attached) -> None:
        """As /dev in a container does that was started before the device was made."""
        path = attached.device.path
        node = os.stat(path)
        os.unlink(path)
        try:
            assert loop.status(path) is None
            assert loops_over(image) == [attached.device]
            assert os.stat(path).st_rdev == node.st_rdev
        finally:
            with contextlib.suppress(FileExistsError):
                os.mknod(path, 0o660 | stat.S_IFBLK, node.st_rdev)


class TestStatus:
    def test_of_one_that_is_bound(self, attached: loop.Attached) -> None:
        assert loop.status(attached.device.path) == attached.device

    def test_of_one_that_is_not(self, image: Path) -> None:
        with opened(image, os.O_RDWR) as file, loop.attach(file, autoclear=True) as attached:
            path = attached.device.path
        assert loop.status(path) is None

    def test_of_none_at_all(self) -> None:
        assert loop.status("/dev/loop999999") is None
        assert not Path("/sys/block/loop999999").exists()

    def test_of_something_else(self, image: Path) -> None:
        with pytest.raises(OSError, match="LOOP_GET_STATUS64") as caught:
            loop.status(str(image))
        assert caught.value.errno == errno.ENOTTY


class TestDetach:
    def test_unbinds_and_may_be_repeated(self, image: Path, attached: loop.Attached) -> None:
        attached.close()
        loop.detach(attached.device.path)
        assert loops_over(image) == []
        loop.detach(attached.device.path)
        loop.detach("/dev/loop999999")

    def test_waits_for_the_last_that_has_it_open(
        self, image: Path, attached: loop.Attached
    ) -> None:
        loop.detach(attached.device.path)
        assert [device.autoclear for device in loops_over(image)] == [True]
        attached.close()
        assert loops_over(image) == []


class TestSize:
    def test_grows_with_the_file_when_told(self, image: Path, attached: loop.Attached) -> None:
        assert loop.device_size(attached.device.path) == 8 * MIB
        os.truncate(image, 16 * MIB)
        assert loop.device_size(attached.fd) == 8 * MIB
        loop.refresh_size(attached.device.path)
        assert loop.device_size(attached.fd) == 16 * MIB

    def test_of_what_is_no_device(self, image: Path) -> None:
        with pytest.raises(OSError, match="BLKGETSIZE64") as caught:
            loop.device_size(str(image))
        assert caught.value.errno == errno.ENOTTY


def test_a_disk_that_is_gone_hides_no_device_on_another(
    image: Path, attached: loop.Attached, tmp_path: Path
) -> None:
    status = image.stat()
    with mounted_filesystem("xfs", tmp_path, 0) as disk:
        lost = new_image(disk / "disk.img")
        with opened(lost, os.O_RDWR) as file:
            device = loop.attach(file, autoclear=True)
        run("xfs_io", "-x", "-c", "shutdown", str(disk))
        try:
            found = loop.find(status.st_dev, status.st_ino)
            bound = loop.bound()
        finally:
            device.close()
    assert [one.path for one in found] == [attached.device.path]
    assert attached.device.path in [one.path for one in bound]


def test_flush_brings_to_the_file_what_was_written(image: Path, attached: loop.Attached) -> None:
    os.pwrite(attached.fd, b"written", 4096)
    assert image.read_bytes()[4096:4103] == bytes(7)
    loop.flush(attached.device.path)
    assert image.read_bytes()[4096:4103] == b"written"


@contextlib.contextmanager
def opened_new(path: Path) -> Iterator[int]:
    path.touch()
    with opened(path, os.O_RDWR) as fd:
        yield fd


class TestWhenTheFileIsGone:
    def test_it_is_found_by_its_path(self, image: Path, attached: loop.Attached) -> None:
        part = f"/{image.parent.name}/"
        assert loop.find_by_path(part) == [attached.device]

        image.unlink()

        assert loop.find_by_path(part) == [attached.device]
        assert loop.find_by_path(f"{part}other") == []

    def test_a_filesystem_that_has_failed_does_not_hide_it(self, xfs_pool: Path) -> None:
        """The kernel asks the file for its inode then, and gets an error."""
        image = new_image(xfs_pool / "disk.img")
        with opened(image, os.O_RDWR) as file:
            attached = loop.attach(file, autoclear=False)
        try:
            run("xfs_io", "-x", "-c", "shutdown", str(xfs_pool))

            (found,) = loop.find_by_path(f"{xfs_pool}/")

            assert found == dataclasses.replace(attached.device, backing_device=0, backing_inode=0)
            assert found in loop.bound()
            assert loop.status(found.path) == found
        finally:
            attached.close()
            loop.detach(attached.device.path)
