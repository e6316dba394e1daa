"""csi.linux.projects and csi.linux.project_quota where the filesystem has no project quotas.

What they do where it has is tried in a kernel of its own: tests/quota.
"""

import os
from pathlib import Path

import pytest

from csi.linux import project_quota, projects
from tests.disks import opened

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("pool", ["ext4_pool", "xfs_pool", "btrfs_pool"])
def test_a_filesystem_mounted_without_them_enforces_nothing(
    pool: str, request: pytest.FixtureRequest
) -> None:
    with opened(request.getfixturevalue(pool), os.O_RDONLY) as fd:
        assert not project_quota.is_enforced(fd)
        assert projects.membership(fd) == (projects.NO_PROJECT, False)
        with pytest.raises(OSError, match="quotactl_fd"):
            project_quota.usage(fd, 1)
        with pytest.raises(OSError, match="quotactl_fd"):
            project_quota.limit(fd, 1, 1 << 20)


@pytest.mark.parametrize("path", ["/proc", "/dev/shm"])
def test_a_filesystem_that_knows_nothing_of_them(path: str) -> None:
    with opened(Path(path), os.O_RDONLY) as fd:
        assert not project_quota.is_enforced(fd)
        assert projects.membership(fd) == (projects.NO_PROJECT, False)
        with pytest.raises(OSError, match="FS_IOC_FS"):
            projects.join(fd, 7)


def test_xfs_keeps_the_number_also_without_quotas(xfs_pool: Path) -> None:
    """So a pool that was mounted without them for a while has lost nothing."""
    (xfs_pool / "folder").mkdir()
    with opened(xfs_pool / "folder", os.O_RDONLY) as fd:
        projects.join(fd, 1 << 30)
        (xfs_pool / "folder" / "inside").mkdir()
        assert projects.membership(fd) == (1 << 30, True)
    with opened(xfs_pool / "folder" / "inside", os.O_RDONLY) as fd:
        assert projects.membership(fd) == (1 << 30, True)
