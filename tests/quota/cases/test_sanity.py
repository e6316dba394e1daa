"""csi-sanity for directory volumes that project quotas hold to their size.

Directories can be copied on btrfs alone. csi-sanity cannot be told so: it asks a driver that takes
snapshots for some of whatever volumes there are. Those cases have to be refused, each with the
words that say why, and all others have to pass.
"""

import os
from pathlib import Path

import pytest

from tests.disks import release
from tests.driver import create_pool, running_driver
from tests.quota.cases.conftest import FILESYSTEMS, make, mount
from tests.sanity.report import DISABLED, FAILED, PASSED, SKIPPED
from tests.sanity.test_sanity import CONFIGURATION, LEAST_CASES_RUN, Row, run_csi_sanity

DISK = "/dev/ubdd"
REFUSAL = "directories can be snapshotted and cloned on a btrfs pool only"
OF_COPIES = (
    "CreateSnapshot: ",
    "DeleteSnapshot: ",
    "GetSnapshot: ",
    "ListSnapshots: ",
    "CreateVolume: should create volume from an existing source ",
)
LEAST_PASSED = LEAST_CASES_RUN - 11


@pytest.mark.parametrize("pool_type", FILESYSTEMS)
@pytest.mark.timeout(600)
def test_directories_conform(pool_type: str, tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    pool.mkdir()
    make(pool_type, DISK, projects=True)
    mount(DISK, pool, pool_type, "prjquota")
    program = Path(os.environ["CSI_SANITY"])
    try:
        create_pool(pool)
        with running_driver(pool, tmp_path, config=CONFIGURATION) as driver:
            row = Row("directory", "mount", pool_type)
            report = run_csi_sanity(program, row, driver.endpoint, "", tmp_path)
    finally:
        release(pool)

    assert {case.reason for case in report.having(SKIPPED)} == {DISABLED}
    wrong = [
        case
        for case in report.having(FAILED)
        if REFUSAL not in case.reason or not case.name.startswith(OF_COPIES)
    ]
    assert not wrong, report.describe_failures()
    assert not report.troubles
    assert len(report.having(PASSED)) >= LEAST_PASSED
