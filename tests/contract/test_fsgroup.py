"""Files of a pod's group: the kubelet gives them to it, and a volume keeps what it was given.

That is `fsGroupPolicy: File` of the CSIDriver object, and why VOLUME_MOUNT_GROUP is not advertised:
no filesystem here takes a group at mount, and a driver that said so would keep the kubelet from
doing it. `make bench ARGS='--parts ownership --files 1000000'` measures a million files.
"""

import os
import stat
from pathlib import Path

import pytest
import yaml

from bench.ownership import give, is_given
from csi.v1 import csi_pb2 as pb
from tests.contract import requests
from tests.contract.bench import Bench
from tests.contract.refusals import Code, refused
from tests.contract.requests import LEAST_BYTES, filesystem

pytestmark = pytest.mark.kernel

GROUP, OTHER = 123_456, 123_457
CSI_DRIVER = Path(__file__).resolve().parents[2] / "deploy" / "sidecars" / "csidriver.yaml"


def given(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_gid, stat.S_IMODE(status.st_mode)


def use_for_group(bench: Bench, volume_id: str, fs_type: str, group: int) -> bool:
    """Uses a volume for a pod with OnRootMismatch; returns whether files were given anew."""
    with bench.used(volume_id, filesystem(fs_type)) as target:
        if is_given(str(target), group):
            return False
        give(str(target), group)
        return True


@pytest.mark.parametrize("fs_type", ["ext4", "xfs", "btrfs"])
def test_a_volume_keeps_the_group_it_was_given_to(bench: Bench, fs_type: str) -> None:
    volume_id = bench.create(size=LEAST_BYTES[fs_type], capability=filesystem(fs_type)).volume_id
    with bench.used(volume_id, filesystem(fs_type)) as target:
        (target / "folder").mkdir(0o700)
        (target / "folder" / "file").write_text("data", encoding="ascii")
        (target / "folder" / "file").chmod(0o640)
        (target / "link").symlink_to("/nowhere")

    assert use_for_group(bench, volume_id, fs_type, GROUP)
    assert not use_for_group(bench, volume_id, fs_type, GROUP)  # what OnRootMismatch spares
    bench.driver.restart()
    assert not use_for_group(bench, volume_id, fs_type, GROUP)
    with bench.used(volume_id, filesystem(fs_type)) as target:
        assert given(target / "folder") == (GROUP, 0o2770)
        assert given(target / "folder" / "file") == (GROUP, 0o660)
        assert given(target / "link")[0] == GROUP
        (target / "newer").write_text("data", encoding="ascii")
        assert given(target / "newer")[0] == GROUP  # the folder hands its group on

    assert use_for_group(bench, volume_id, fs_type, OTHER)


def test_a_copy_has_the_group_of_its_source(bench: Bench) -> None:
    """So a restored volume of a million files starts as quickly as its source did."""
    volume_id = bench.create().volume_id
    assert use_for_group(bench, volume_id, "ext4", GROUP)
    snapshot_id = bench.snapshot(volume_id).snapshot_id

    copy_id = bench.create(source=requests.from_snapshot(snapshot_id)).volume_id

    assert not use_for_group(bench, copy_id, "ext4", GROUP)


def test_a_directory_keeps_it_too(btrfs_bench: Bench) -> None:
    parameters = {"kind": "directory"}
    volume_id = btrfs_bench.create(capability=filesystem(""), parameters=parameters).volume_id

    assert use_for_group(btrfs_bench, volume_id, "", GROUP)
    assert not use_for_group(btrfs_bench, volume_id, "", GROUP)


def test_the_kubelet_is_left_to_do_it(bench: Bench) -> None:
    answer = bench.driver.node.NodeGetCapabilities(pb.NodeGetCapabilitiesRequest())
    offered = {capability.rpc.type for capability in answer.capabilities}
    assert pb.NodeServiceCapability.RPC.VOLUME_MOUNT_GROUP not in offered
    manifest = yaml.safe_load(CSI_DRIVER.read_text(encoding="utf-8"))
    assert manifest["spec"]["fsGroupPolicy"] == "File"

    volume_id = bench.create().volume_id
    capability = filesystem()
    capability.mount.volume_mount_group = str(GROUP)
    with refused(Code.INVALID_ARGUMENT, "volume_mount_group", "fsGroup"):
        bench.driver.node.NodeStageVolume(
            requests.stage(volume_id, bench.kubelet.staging_path(volume_id), capability)
        )


def test_what_a_link_names_is_not_touched(tmp_path: Path) -> None:
    """Of the measure itself: it does as the kubelet does."""
    outside = tmp_path / "outside"
    outside.write_text("data", encoding="ascii")
    outside.chmod(0o600)
    (inside := tmp_path / "volume").mkdir()
    (inside / "link").symlink_to(outside)

    give(str(inside), GROUP)

    assert given(outside) == (os.getegid(), 0o600)
    assert given(inside / "link")[0] == GROUP
