"""csi.linux.usage against the kernel."""

import os
from pathlib import Path

import pytest

from csi.linux.usage import filesystem_usage
from tests.disks import opened

pytestmark = pytest.mark.kernel

MIB = 1 << 20


@pytest.mark.parametrize("pool", ["ext4_pool", "xfs_pool", "btrfs_pool"])
def test_tells_bytes_and_inodes(pool: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(pool)
    with opened(path, os.O_RDONLY) as fd:
        before = filesystem_usage(fd)
        (path / "file").write_bytes(os.urandom(20 * MIB))
        os.sync()
        after = filesystem_usage(fd)
        assert after == filesystem_usage(str(path))
    assert after.total_bytes == before.total_bytes
    assert 20 * MIB <= after.used_bytes - before.used_bytes < 22 * MIB
    assert 20 * MIB <= before.available_bytes - after.available_bytes < 22 * MIB
    assert after.used_inodes - before.used_inodes == (0 if pool == "btrfs_pool" else 1)
    assert after.total_inodes == after.used_inodes + after.free_inodes


def test_a_path_that_is_not_there_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        filesystem_usage(str(tmp_path / "nothing"))
