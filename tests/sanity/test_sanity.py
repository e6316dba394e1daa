"""csi-sanity, the conformance test of CSI drivers, against every kind of volume and pool.

csi-sanity says neither which filesystem it wants nor which kind of volume: its mount capability
names no filesystem. Both travel as parameters of the StorageClass, the filesystem under the key
that external-provisioner uses for it.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.disks import mounted_filesystem
from tests.driver import create_pool, running_driver
from tests.sanity.report import EXPECTED_SKIPS, SKIPPED, Report, read_report

GIB = 1 << 30
POOL_BYTES = 40 * GIB
VOLUME_BYTES = 1 * GIB
EXPANDED_BYTES = 2 * GIB
RUN_TIMEOUT_S = 540

# Of the 96 cases of this version its authors have disabled one. Fewer would mean that a row tried
# less than it says.
LEAST_CASES_RUN = 95

# A limit that csi-sanity can reach; without one it skips that case.
CONFIGURATION = """\
apiVersion: local-path.csi.dev/v1
kind: DriverConfiguration
maxVolumesPerNode: 4
"""

SECRET = "only-csi-sanity-knows-this"
SECRETS = {
    f"{call}Secret": {"password": SECRET}
    for call in (
        "CreateVolume",
        "DeleteVolume",
        "ControllerPublishVolume",
        "ControllerUnpublishVolume",
        "ControllerValidateVolumeCapabilities",
        "NodeStageVolume",
        "NodePublishVolume",
        "CreateSnapshot",
        "DeleteSnapshot",
        "ControllerExpandVolume",
        "ControllerModifyVolume",
        "ListSnapshots",
        "GetSnapshot",
    )
}
# What a VolumeAttributesClass has. A directory cannot be limited; no limits are what it has anyway.
LIMITS = {"readIOPS": "5000", "writeIOPS": "5k", "readBandwidth": "200Mi", "writeBandwidth": "1G"}
MUTABLE_PARAMETERS = {"image": LIMITS, "directory": dict.fromkeys(LIMITS, "max")}
# What external-provisioner and external-snapshotter add when they are told to name the claim.
VOLUME_METADATA = {
    "csi.storage.k8s.io/pvc/name": "claim",
    "csi.storage.k8s.io/pvc/namespace": "default",
    "csi.storage.k8s.io/pv/name": "pvc-sanity",
}
SNAPSHOT_METADATA = {
    "csi.storage.k8s.io/volumesnapshot/name": "snapshot",
    "csi.storage.k8s.io/volumesnapshot/namespace": "default",
    "csi.storage.k8s.io/volumesnapshotcontent/name": "snapcontent-sanity",
}


@dataclass(frozen=True)
class Row:
    """One run of csi-sanity.

    Attributes:
        kind: The kind of its volumes.
        access: How they are used, `mount` or `block`.
        pool: The filesystem that holds the pool: xfs and btrfs can share blocks between files,
            ext4 cannot.
        filesystem: What is made inside an image; empty where nothing is.
        split: Whether the controller has a socket of its own.
    """

    kind: str
    access: str
    pool: str
    filesystem: str = ""
    split: bool = False

    @property
    def name(self) -> str:
        """The name in the table and of the test."""
        what = self.filesystem or self.access
        sockets = ", two sockets" if self.split else ""
        return f"{self.kind}, {what} on {self.pool}{sockets}"

    @property
    def parameters(self) -> dict[str, str]:
        """The parameters of the StorageClass."""
        chosen = {"kind": self.kind, **VOLUME_METADATA}
        return chosen | ({"csi.storage.k8s.io/fstype": self.filesystem} if self.filesystem else {})


ROWS = [
    *(
        Row("image", "mount", pool, filesystem)
        for pool in ("xfs", "ext4")
        for filesystem in ("ext4", "xfs", "btrfs")
    ),
    Row("image", "block", "xfs"),
    Row("image", "block", "ext4"),
    Row("directory", "mount", "btrfs"),
    Row("image", "mount", "xfs", "ext4", split=True),
]


@pytest.mark.kernel
@pytest.mark.timeout(RUN_TIMEOUT_S + 60)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name.replace(",", "").replace(" ", "-"))
def test_row(row: Row, csi_sanity: Path, reports: dict[str, Report | None], tmp_path: Path) -> None:
    reports[row.name] = None
    with mounted_filesystem(row.pool, tmp_path, POOL_BYTES) as pool:
        create_pool(pool)
        with running_driver(pool, tmp_path, config=CONFIGURATION, split=row.split) as driver:
            controller = driver.controller_endpoint if row.split else ""
            report = run_csi_sanity(csi_sanity, row, driver.endpoint, controller, tmp_path)
            reports[row.name] = report
            judge(report, driver.log_tail())
            assert SECRET not in driver.log_text(), "a secret has reached the log"


def run_csi_sanity(
    program: Path, row: Row, endpoint: str, controller_endpoint: str, directory: Path
) -> Report:
    """Runs csi-sanity once and reads its report."""
    report = directory / "report.json"
    arguments = {
        "csi.endpoint": endpoint,
        # It makes and removes these two itself, for each case.
        "csi.mountdir": directory / "targets",
        "csi.stagingdir": directory / "staging",
        "csi.testvolumeaccesstype": row.access,
        "csi.testvolumesize": VOLUME_BYTES,
        "csi.testvolumeexpandsize": EXPANDED_BYTES,
        "csi.testnodevolumeattachlimit": "true",
        "csi.secrets": _yaml(directory / "secrets.yaml", SECRETS),
        "csi.testvolumeparameters": _yaml(directory / "class.yaml", row.parameters),
        "csi.testvolumemutableparameters": _yaml(
            directory / "attributes.yaml", MUTABLE_PARAMETERS[row.kind] | VOLUME_METADATA
        ),
        "csi.testsnapshotparameters": _yaml(directory / "snapshots.yaml", SNAPSHOT_METADATA),
        "ginkgo.json-report": report,
        "ginkgo.timeout": f"{RUN_TIMEOUT_S - 60}s",
        "ginkgo.no-color": "true",
    }
    if controller_endpoint:
        arguments["csi.controllerendpoint"] = controller_endpoint
    done = subprocess.run(
        [program, *(f"--{name}={value}" for name, value in arguments.items())],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=RUN_TIMEOUT_S,
        check=False,
    )
    (directory / "csi-sanity.log").write_text(done.stdout, encoding="utf-8")
    if not report.exists():
        pytest.fail(f"csi-sanity wrote no report:\n{done.stdout[-4000:]}", pytrace=False)
    return read_report(report)


def judge(report: Report, log_tail: str) -> None:
    """Fails the row unless every case passed that the driver can be asked for."""
    if failures := report.describe_failures():
        pytest.fail(f"{failures}\n\nThe driver: {log_tail}", pytrace=False)
    unexpected = [
        f"{case.name} ({case.reason})"
        for case in report.having(SKIPPED)
        if case.reason not in EXPECTED_SKIPS
    ]
    if unexpected:
        listed = "\n  ".join(unexpected)
        pytest.fail(f"Skipped, though the driver should do it:\n  {listed}", pytrace=False)
    assert report.number_run >= LEAST_CASES_RUN


def _yaml(path: Path, values: object) -> Path:
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path
