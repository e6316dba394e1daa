"""A pool whose disk fails while the driver serves."""

from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

import tests.driver
from csi.v1 import csi_pb2 as pb
from tests.contract import requests
from tests.contract.bench import wait_until
from tests.contract.command import hurried
from tests.contract.node_fixtures import run, the_mount_at
from tests.contract.refusals import Code, refused
from tests.contract.requests import GIB, MIB, raw_block
from tests.disks import mounted_filesystem
from tests.driver import Driver, create_pool, running_driver

pytestmark = pytest.mark.kernel


def _shut_down_xfs(pool: Path) -> None:
    run("xfs_io", "-x", "-c", "shutdown", str(pool))


def _break_ext4(pool: Path) -> None:
    """As after a bad sector: ext4 goes read-only by itself, which the mount's options hide."""
    run("mount", "-o", "remount,errors=remount-ro", str(pool))
    device = Path(the_mount_at(pool).source).name
    Path(f"/sys/fs/ext4/{device}/trigger_fs_error").write_text("1", encoding="ascii")


@pytest.mark.parametrize(("fs_type", "fail"), [("xfs", _shut_down_xfs), ("ext4", _break_ext4)])
def test_a_disk_that_fails_is_told_by_probe(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fs_type: str,
    fail: Callable[[Path], None],
) -> None:
    monkeypatch.setattr(tests.driver, "COMMAND", hurried("_TRY_WRITING_EVERY_S", 0.2))
    with mounted_filesystem(fs_type, tmp_path, GIB) as pool:
        create_pool(pool)
        with running_driver(pool, tmp_path) as driver:
            request = requests.create_volume("v", size=MIB, capabilities=[raw_block()])
            volume_id = driver.controller.CreateVolume(request).volume.volume_id
            assert driver.identity.Probe(pb.ProbeRequest()).ready.value

            fail(pool)

            # Retried until the disk is back: nothing is known to be lost, nothing to be gone.
            with refused(Code.UNAVAILABLE):
                driver.controller.CreateVolume(
                    requests.create_volume("later", size=MIB, capabilities=[raw_block()])
                )
            with refused(Code.UNAVAILABLE):
                driver.controller.DeleteVolume(requests.delete_volume(volume_id))
            # The disk is tried now and then, not by Probe itself: that must not hang with it.
            wait_until(lambda: not _is_healthy(driver), "that Probe fails")
            with refused(Code.FAILED_PRECONDITION, "default", str(pool)):
                driver.identity.Probe(pb.ProbeRequest())


def _is_healthy(driver: Driver) -> bool:
    try:
        driver.identity.Probe(pb.ProbeRequest())
    except grpc.RpcError:
        return False
    return True
