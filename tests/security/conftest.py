"""Pools, drivers and benches as the contract tests have them, and the figures at the end."""

from pathlib import Path

import pytest

from tests.contract.conftest import (
    bench,
    btrfs_bench,
    btrfs_driver,
    btrfs_pool,
    ext4_bench,
    ext4_driver,
    ext4_pool,
    folder,
    xfs_driver,
    xfs_pool,
)
from tests.security import scale

__all__ = [
    "bench",
    "btrfs_bench",
    "btrfs_driver",
    "btrfs_pool",
    "ext4_bench",
    "ext4_driver",
    "ext4_pool",
    "folder",
    "xfs_driver",
    "xfs_pool",
]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The folder that programs of these tests are run from."""
    return Path(__file__).resolve().parents[2]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints what was tried."""
    if scale.FIGURES:
        terminalreporter.section("security tests")
        extent = "everything" if scale.WHOLE else "a sample"
        terminalreporter.write_line(f"seed {scale.SEED}, {extent}")
        for what, number in scale.FIGURES.items():
            terminalreporter.write_line(f"  {number:9,}  {what}")
