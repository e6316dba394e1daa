"""What the crash tests share: their folder, and their figures at the end."""

import os
from pathlib import Path

import pytest

from tests.crash import sweep


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of pools and logs."""
    if os.geteuid() != 0:
        pytest.fail("needs root, for mounts and loop devices; -m 'not kernel' leaves it out")
    return tmp_path_factory.mktemp("crash")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints what was tried."""
    if sweep.FIGURES:
        terminalreporter.section("crash tests")
        for line in sweep.lines():
            terminalreporter.write_line(line)
