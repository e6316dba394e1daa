"""What the tests with a model share: the ground, and their figures at the end."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.model import figures
from tests.model.ground import Ground, ground_in


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    """A driver over pools of its own."""
    if os.geteuid() != 0:
        pytest.fail("needs root, for mounts and loop devices; -m 'not kernel' leaves it out")
    with ground_in(tmp_path) as ground:
        yield ground


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints what was done."""
    if figures.LINES:
        terminalreporter.section("model and soak")
        for line in figures.LINES:
            terminalreporter.write_line(line)
