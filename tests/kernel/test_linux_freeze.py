"""csi.linux.freeze against the kernel."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from csi.errors import Unavailable
from csi.linux import copying, freeze, freezer, syscalls
from tests.disks import opened

pytestmark = pytest.mark.kernel

FIFREEZE = 0xC0045877

DRIVER = """
import os, sys, time
from csi.linux.freeze import frozen
with frozen([os.open(sys.argv[1], os.O_RDONLY)], bound_s=30):
    print("frozen", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def pool(xfs_pool: Path) -> Iterator[int]:
    """A descriptor on an XFS, which is thawed at the end in any case."""
    with opened(xfs_pool, os.O_RDONLY) as fd:
        try:
            yield fd
        finally:
            freeze.thaw(fd)


def is_frozen(fd: int) -> bool:
    """Whether it is frozen: asks by freezing it, which only one can."""
    try:
        syscalls.ioctl(fd, FIFREEZE, name="FIFREEZE")
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return True
    freeze.thaw(fd)
    return False


def freezer_of(held: freeze.Freeze) -> int:
    """The process that owns the freeze."""
    return held._process.pid


def freeze_for(fd: int, body: Callable[[freeze.Freeze], None], bound_s: float = 5) -> None:
    with freeze.frozen([fd], bound_s=bound_s) as held:
        body(held)


def wait_until_ended(held: freeze.Freeze) -> None:
    """Waits until the process that owns the freeze is gone."""
    held._process.wait(10)


def wait_until_thawed(path: Path) -> None:
    """Waits until something can be written to a filesystem again."""
    done = threading.Event()

    def write() -> None:
        path.write_text("thawed")
        done.set()

    # A thread of its own, for nothing can interrupt a writer that waits for a thaw.
    threading.Thread(target=write, daemon=True).start()
    assert done.wait(10), "the filesystem is still frozen"


class TestFrozen:
    def test_nothing_is_written_within(self, pool: int, xfs_pool: Path) -> None:
        done = threading.Event()

        def write() -> None:
            (xfs_pool / "file").write_text("content")
            done.set()

        writer = threading.Thread(target=write)
        with freeze.frozen([pool]) as held:
            assert is_frozen(pool)
            writer.start()
            assert not done.wait(0.2)
            assert not held.expired
        writer.join(10)
        assert done.is_set()
        assert not is_frozen(pool)

    def test_what_was_written_before_is_in_the_clone(
        self, pool: int, xfs_pool: Path, tmp_path: Path
    ) -> None:
        """The image is on the disk of the tests, so that it can be read beside the mount."""
        (xfs_pool / "file").write_bytes(b"find-me-" * 4096)
        image = xfs_pool.parent / "disk.img"
        (tmp_path / "copy").touch()
        with (
            opened(image, os.O_RDONLY) as source,
            opened(tmp_path / "copy", os.O_WRONLY) as target,
            freeze.frozen([pool]) as held,
        ):
            copying.copy_sparse(source, target, keep_going=lambda: not held.expired)
        assert b"find-me-" * 512 in (tmp_path / "copy").read_bytes()

    def test_what_the_body_raises_comes_after_the_thaw(self, pool: int) -> None:
        with pytest.raises(ZeroDivisionError), freeze.frozen([pool]):
            raise ZeroDivisionError
        assert not is_frozen(pool)

    def test_several_at_once(self, pool: int, ext4_pool: Path, btrfs_pool: Path) -> None:
        with opened(ext4_pool, os.O_RDONLY) as second, opened(btrfs_pool, os.O_RDONLY) as third:
            fds = [pool, second, third]
            with freeze.frozen(fds):
                assert [is_frozen(fd) for fd in fds] == [True] * 3
            assert [is_frozen(fd) for fd in fds] == [False] * 3

    def test_all_or_none(self, pool: int) -> None:
        """The second one, proc, cannot be frozen."""
        with opened(Path("/proc"), os.O_RDONLY) as proc:
            with (
                pytest.raises(OSError, match="FIFREEZE") as caught,
                freeze.frozen([pool, proc]),
            ):
                pytest.fail("the body must not run")
            assert caught.value.errno == errno.EOPNOTSUPP
            assert caught.value.filename == f"descriptor {proc}"
        assert not is_frozen(pool)

    def test_a_bad_descriptor_is_an_error(self, pool: int, xfs_pool: Path) -> None:
        with (
            opened(xfs_pool, os.O_PATH) as path,
            pytest.raises(OSError, match="FIFREEZE") as caught,
            freeze.frozen([pool, path]),
        ):
            pytest.fail("the body must not run")
        assert caught.value.errno == errno.EBADF
        assert not is_frozen(pool)

    def test_anothers_freeze_is_left_to_him(self, pool: int, ext4_pool: Path) -> None:
        syscalls.ioctl(pool, FIFREEZE, name="FIFREEZE")
        with opened(ext4_pool, os.O_RDONLY) as own:
            with freeze.frozen([pool, own]):
                assert is_frozen(own)
            assert is_frozen(pool)
            assert not is_frozen(own)

    def test_the_child_gets_no_other_descriptors(self, pool: int, tmp_path: Path) -> None:
        with opened(tmp_path, os.O_RDONLY) as other, freeze.frozen([pool]) as held:
            links = os.listdir(f"/proc/{freezer_of(held)}/fd")
            assert str(pool) in links
            assert str(other) not in links


class TestBound:
    def test_thaws_and_says_so(self, pool: int, xfs_pool: Path) -> None:
        def body(held: freeze.Freeze) -> None:
            wait_until_thawed(xfs_pool / "file")
            wait_until_ended(held)
            assert held.expired

        with pytest.raises(freeze.FreezeExpired, match=r"0\.3 s") as caught:
            freeze_for(pool, body, bound_s=0.3)
        assert isinstance(caught.value, Unavailable)

    def test_anothers_freeze_stays(self, pool: int) -> None:
        """Also one that began after the bound had run out."""

        def body(held: freeze.Freeze) -> None:
            wait_until_ended(held)
            syscalls.ioctl(pool, FIFREEZE, name="FIFREEZE")

        with pytest.raises(freeze.FreezeExpired):
            freeze_for(pool, body, bound_s=0.3)
        assert is_frozen(pool)

    def test_what_the_body_raises_is_not_hidden(self, pool: int) -> None:
        def body(held: freeze.Freeze) -> None:
            wait_until_ended(held)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            freeze_for(pool, body, bound_s=0.3)

    def test_a_bound_too_short_to_freeze_in(self, pool: int) -> None:
        with pytest.raises(freeze.FreezeExpired):
            freeze_for(pool, lambda _: pytest.fail("the body must not run"), bound_s=0)
        assert not is_frozen(pool)


class TestDeath:
    def test_a_killed_driver_leaves_nothing_frozen(self, pool: int, xfs_pool: Path) -> None:
        with driver(xfs_pool) as process:
            assert is_frozen(pool)
            process.kill()
            process.wait(10)
            wait_until_thawed(xfs_pool / "file")
        assert not is_frozen(pool)

    def test_a_killed_freezer_leaves_nothing_frozen(self, pool: int) -> None:
        with freeze.frozen([pool]) as held:
            os.kill(freezer_of(held), signal.SIGKILL)
            wait_until_ended(held)
            assert held.expired
            assert is_frozen(pool), "until this process thaws"
        assert not is_frozen(pool)

    def test_a_killed_freezer_whose_filesystem_was_thawed(self, pool: int) -> None:
        """Then the body was not covered, and that has to be said."""

        def body(held: freeze.Freeze) -> None:
            os.kill(freezer_of(held), signal.SIGKILL)
            wait_until_ended(held)
            freeze.thaw(pool)

        with pytest.raises(freeze.FreezeExpired):
            freeze_for(pool, body)

    def test_a_freezer_killed_before_it_spoke(
        self, pool: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        script = tmp_path / "freezer.py"
        script.write_text(
            "import fcntl, os, signal, sys\n"
            f"fcntl.ioctl(int(sys.argv[2]), {FIFREEZE}, 0)\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        monkeypatch.setattr(freezer, "__file__", str(script))
        with pytest.raises(Unavailable, match="ended before"), freeze.frozen([pool]):
            pytest.fail("the body must not run")
        assert not is_frozen(pool)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
    def test_a_polite_signal_does_not_end_a_freeze(self, pool: int, number: signal.Signals) -> None:
        with freeze.frozen([pool]) as held:
            os.kill(freezer_of(held), number)
            time.sleep(0.05)
            assert is_frozen(pool)
            assert not held.expired

    def test_what_ends_the_drivers_process_group_does_not_end_the_freezer(
        self, pool: int, xfs_pool: Path
    ) -> None:
        with driver(xfs_pool) as process:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
            wait_until_thawed(xfs_pool / "file")


@contextlib.contextmanager
def driver(pool: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds a freeze."""
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(pool)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=Path(__file__).parents[2],
    )
    with process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "frozen\n"
            yield process
        finally:
            process.kill()


class TestThaw:
    def test_thaws_and_may_be_repeated(self, pool: int) -> None:
        syscalls.ioctl(pool, FIFREEZE, name="FIFREEZE")
        freeze.thaw(pool)
        assert not is_frozen(pool)
        freeze.thaw(pool)

    def test_a_bad_descriptor_is_an_error(self) -> None:
        with pytest.raises(OSError, match="FITHAW"):
            freeze.thaw(-1)
