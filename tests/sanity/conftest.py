"""What the rows of csi-sanity share: the program, and the table at the end of the run."""

from pathlib import Path

import pytest

from tests.sanity import build
from tests.sanity.report import Report, format_table

REPORTS: pytest.StashKey[dict[str, Report | None]] = pytest.StashKey()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[REPORTS] = {}


@pytest.fixture(scope="session")
def csi_sanity() -> Path:
    """The program, built where it is not there yet."""
    try:
        return build.build()
    except build.BuildError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture
def reports(pytestconfig: pytest.Config) -> dict[str, Report | None]:
    """What each row came to, in the order of the rows."""
    return pytestconfig.stash[REPORTS]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = terminalreporter.config.stash[REPORTS]
    if reports:
        terminalreporter.section(f"csi-sanity {build.pinned_version()}")
        for line in format_table(reports):
            terminalreporter.write_line(line)
