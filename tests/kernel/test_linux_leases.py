"""csi.linux.leases against the kernel."""

import os
import threading
import time
from pathlib import Path

import pytest

from csi.linux import loop
from csi.linux.leases import is_open_elsewhere
from tests.disks import opened

pytestmark = pytest.mark.kernel
MIB = 1 << 20


@pytest.fixture(params=["xfs_pool", "ext4_pool", "btrfs_pool"])
def file(request: pytest.FixtureRequest) -> Path:
    pool: Path = request.getfixturevalue(request.param)
    path = pool / "disk.img"
    with path.open("xb") as new:
        new.truncate(16 * MIB)
    return path


def asked(path: Path) -> bool:
    with opened(path, os.O_RDONLY) as fd:
        return is_open_elsewhere(fd)


def test_nobody_has_it_open(file: Path) -> None:
    assert not asked(file)
    with opened(file, os.O_PATH):
        assert not asked(file)


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR])
def test_somebody_has(file: Path, flags: int) -> None:
    with opened(file, flags):
        assert asked(file)
    assert not asked(file)


@pytest.mark.parametrize("read_only", [False, True])
def test_a_loop_device_has(file: Path, read_only: bool) -> None:
    with opened(file, os.O_RDONLY if read_only else os.O_RDWR) as fd:
        attached = loop.attach(fd, autoclear=True, read_only=read_only)
    assert asked(file)
    os.link(file, file.parent / "other")
    assert asked(file.parent / "other")
    attached.close()
    deadline = time.monotonic() + 5
    while asked(file) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not asked(file)


def test_the_kernel_cannot_tell() -> None:
    reader, writer = os.pipe()
    try:
        assert is_open_elsewhere(reader)
    finally:
        os.close(reader)
        os.close(writer)


def test_who_opens_it_meanwhile_only_waits(file: Path) -> None:
    """No signal ends this process, and no opening fails."""
    done = threading.Event()
    failures: list[OSError] = []

    def open_often() -> None:
        while not done.is_set():
            try:
                with opened(file, os.O_RDWR):
                    pass
            except OSError as error:
                failures.append(error)

    threads = [threading.Thread(target=open_often) for _ in range(2)]
    for thread in threads:
        thread.start()
    answers = [asked(file) for _ in range(3000)]
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert True in answers
    assert not asked(file)
