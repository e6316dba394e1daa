"""What the options of a mount tell of its filesystem; what the kernel does, the kernel's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from csi.linux.faults import find_fault
from csi.linux.mounts import Mount


def mount_of(
    target: Path, fs_type: str, options: str, super_options: str, source: str = "/dev/nothing"
) -> Mount:
    return Mount(
        mount_id=1,
        parent_id=0,
        device="0:0",
        root="/",
        target=str(target),
        options=frozenset(options.split(",")),
        fs_type=fs_type,
        source=source,
        super_options=frozenset(super_options.split(",")),
    )


@pytest.mark.parametrize(
    ("fs_type", "options", "super_options", "expected"),
    [
        ("ext4", "rw,nosuid", "rw,discard", ""),
        ("ext4", "ro,nosuid", "ro", ""),  # mounted so
        ("ext4", "ro,nosuid", "rw", ""),  # published read-only
        ("ext4", "rw,nosuid", "ro", "read-only"),
        ("btrfs", "rw", "ro,space_cache=v2", "read-only"),
        ("ext4", "rw", "rw,errors=remount-ro,emergency_ro", "read-only"),
        ("ext4", "rw", "rw,shutdown", "shut down"),
        ("xfs", "rw", "rw,inode64,noquota", ""),
    ],
)
def test_options_tell(
    tmp_path: Path, fs_type: str, options: str, super_options: str, expected: str
) -> None:
    found = find_fault(mount_of(tmp_path, fs_type, options, super_options))

    assert bool(found) == bool(expected)
    assert expected in found
    assert not found or fs_type in found


def test_a_mount_that_is_gone_meanwhile_is_not_at_fault(tmp_path: Path) -> None:
    assert find_fault(mount_of(tmp_path / "gone", "xfs", "rw", "rw")) == ""
