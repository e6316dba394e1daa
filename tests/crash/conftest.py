"""What the crash tests share: their folder, and their figures at the end."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash import sweep
from tests.crash.sweep import Grounds
from tests.crash.trial import Ground, ground_on


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of pools and logs."""
    if os.geteuid() != 0:
        pytest.fail("needs root, for mounts and loop devices; -m 'not kernel' leaves it out")
    return tmp_path_factory.mktemp("crash")


@pytest.fixture(scope="package")
def grounds(folder: Path) -> Iterator[Grounds[Ground]]:
    """The pools, each with a driver and bystanders."""
    grounds = Grounds(ground_on, folder)
    yield grounds
    grounds.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints what was tried."""
    if sweep.FIGURES:
        terminalreporter.section("crash tests")
        for line in sweep.lines():
            terminalreporter.write_line(line)
