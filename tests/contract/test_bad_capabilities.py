"""Capabilities and parameters that nobody can serve, in every call that takes them."""

from collections.abc import Callable

import pytest
from google.protobuf.message import Message

from csi.v1 import csi_pb2 as pb
from tests.contract import requests
from tests.contract.bench import Bench
from tests.contract.every_rpc import nothing_changes, send
from tests.contract.refusals import Code, refused
from tests.contract.requests import FS_TYPE, MIB, Mode, filesystem, raw_block
from tests.driver import NODE_ID

pytestmark = pytest.mark.kernel

Capable = Callable[[str, pb.VolumeCapability], Message]

CALLS: dict[str, Capable] = {
    "CreateVolume": lambda _, capability: requests.create_volume(
        "refused", capabilities=[capability]
    ),
    "ControllerPublishVolume": requests.controller_publish,
    "ValidateVolumeCapabilities": lambda volume_id, capability: requests.validate(
        volume_id, [capability]
    ),
    "ControllerExpandVolume": lambda volume_id, capability: requests.controller_expand(
        volume_id, 128 * MIB, capability=capability
    ),
    "NodeStageVolume": lambda volume_id, capability: requests.stage(
        volume_id, "/nowhere/staging", capability
    ),
    "NodePublishVolume": lambda volume_id, capability: requests.publish(
        volume_id, "/nowhere/staging", "/nowhere/target", capability
    ),
    "NodeExpandVolume": lambda volume_id, capability: requests.node_expand(
        volume_id, "/nowhere/target", 128 * MIB, capability
    ),
}
SHARED = [Mode.MULTI_NODE_READER_ONLY, Mode.MULTI_NODE_SINGLE_WRITER, Mode.MULTI_NODE_MULTI_WRITER]


def _no_access() -> pb.VolumeCapability:
    return pb.VolumeCapability(access_mode=Mode(mode=requests.MULTI_WRITER))


def _no_mode() -> pb.VolumeCapability:
    return pb.VolumeCapability(mount=pb.VolumeCapability.MountVolume())


def _unknown_mode() -> pb.VolumeCapability:
    capability = filesystem()
    # Whatever a later specification may add: on the wire it is a number like any other.
    capability.access_mode.MergeFromString(b"\x08\x63")
    return capability


def _group() -> pb.VolumeCapability:
    capability = filesystem()
    capability.mount.volume_mount_group = "1000"
    return capability


@pytest.mark.parametrize("rpc", CALLS)
@pytest.mark.parametrize(
    ("capability", "names"),
    [
        (_no_access(), ["access type", "volume_capabilit"]),
        (_no_mode(), ["access_mode", "volume_capabilit"]),
        (_unknown_mode(), ["access_mode", "volume_capabilit"]),
    ],
    ids=["no access", "no mode", "unknown mode"],
)
def test_an_incomplete_capability_is_refused(
    bench: Bench, rpc: str, capability: pb.VolumeCapability, names: list[str]
) -> None:
    volume_id = bench.create().volume_id

    with nothing_changes(bench.pool), refused(Code.INVALID_ARGUMENT, *names):
        send(bench.driver, rpc, CALLS[rpc](volume_id, capability))


@pytest.mark.parametrize("rpc", sorted(set(CALLS) - {"ValidateVolumeCapabilities"}))
def test_a_mount_group_is_refused(bench: Bench, rpc: str) -> None:
    volume_id = bench.create().volume_id

    with nothing_changes(bench.pool), refused(Code.INVALID_ARGUMENT, "volume_mount_group"):
        send(bench.driver, rpc, CALLS[rpc](volume_id, _group()))


@pytest.mark.parametrize("mode", SHARED, ids=Mode.Mode.Name)
@pytest.mark.parametrize(
    ("rpc", "code"),
    [
        ("CreateVolume", Code.INVALID_ARGUMENT),
        ("ControllerPublishVolume", Code.INVALID_ARGUMENT),
        ("NodeStageVolume", Code.FAILED_PRECONDITION),
        ("NodePublishVolume", Code.FAILED_PRECONDITION),
    ],
)
def test_a_mode_for_several_nodes_is_refused(
    bench: Bench, rpc: str, code: Code, mode: Mode.Mode.ValueType
) -> None:
    volume_id = bench.create().volume_id

    with nothing_changes(bench.pool), refused(code, Mode.Mode.Name(mode), "ReadWriteOnce"):
        send(bench.driver, rpc, CALLS[rpc](volume_id, filesystem(mode=mode)))


@pytest.mark.parametrize("fs_type", ["zfs", "ext3", "EXT4", "../ext4", "ext4 -O evil"])
def test_a_filesystem_that_is_not_made_here_is_refused(bench: Bench, fs_type: str) -> None:
    with nothing_changes(bench.pool):
        with refused(Code.INVALID_ARGUMENT, fs_type, "btrfs, ext4, xfs"):
            bench.create(capability=filesystem(fs_type))
        with refused(Code.INVALID_ARGUMENT, fs_type, "btrfs, ext4, xfs"):
            bench.create(capability=filesystem(""), parameters={FS_TYPE: fs_type})


def test_block_and_mount_together_are_refused(bench: Bench) -> None:
    request = requests.create_volume("refused", capabilities=[filesystem(), raw_block()])

    with nothing_changes(bench.pool), refused(Code.INVALID_ARGUMENT, "block", "mount"):
        bench.send_create(request)


def test_two_filesystems_are_refused(bench: Bench) -> None:
    request = requests.create_volume("refused", capabilities=[filesystem(), filesystem("xfs")])

    with nothing_changes(bench.pool), refused(Code.INVALID_ARGUMENT, "ext4", "xfs"):
        bench.send_create(request)


@pytest.mark.parametrize(
    ("parameters", "names"),
    [
        ({"kinds": "image"}, ["kinds", "kind"]),
        ({"Kind": "image"}, ["Kind"]),
        ({"": ""}, ["''"]),
        ({"kind": "file"}, ["kind", "file", "image", "directory"]),
        ({"kind": ""}, ["kind"]),
        ({"enforceSize": "yes"}, ["enforceSize", "yes", "true", "false"]),
        ({"allocation": "thin "}, ["allocation", "thin "]),
        ({"path": "/etc"}, ["path"]),
    ],
    ids=str,
)
def test_unknown_parameters_are_refused_by_name(
    bench: Bench, parameters: dict[str, str], names: list[str]
) -> None:
    """A misspelt one would go unnoticed for the life of the volume."""
    with nothing_changes(bench.pool), refused(Code.INVALID_ARGUMENT, *names):
        bench.create(parameters=parameters)


@pytest.mark.parametrize(
    ("parameters", "names"),
    [
        ({"frozenCopySecond": "5"}, ["frozenCopySecond", "frozenCopySeconds"]),
        ({"frozenCopySeconds": "soon"}, ["frozenCopySeconds", "soon"]),
        ({"frozenCopySeconds": "0"}, ["frozenCopySeconds", "0"]),
        ({"frozenCopySeconds": "-1"}, ["frozenCopySeconds", "-1"]),
        ({"frozenCopySeconds": "1e9"}, ["frozenCopySeconds", "1e9"]),
        ({"frozenCopySeconds": "61"}, ["frozenCopySeconds", "60"]),
        ({"kind": "image"}, ["kind"]),
    ],
    ids=str,
)
def test_unknown_parameters_of_snapshots_are_refused_by_name(
    bench: Bench, parameters: dict[str, str], names: list[str]
) -> None:
    volume_id = bench.create().volume_id

    with nothing_changes(bench.pool):
        with refused(Code.INVALID_ARGUMENT, *names):
            bench.snapshot(volume_id, parameters=parameters)
        with refused(Code.INVALID_ARGUMENT, *names):
            bench.driver.group.CreateVolumeGroupSnapshot(
                requests.create_group("refused", [volume_id], parameters)
            )


def test_unknown_mutable_parameters_are_refused_by_name(bench: Bench) -> None:
    request = requests.create_volume("refused")
    request.mutable_parameters["iops"] = "100"

    with nothing_changes(bench.pool), refused(Code.INVALID_ARGUMENT, "iops"):
        bench.send_create(request)


def test_what_the_sidecars_add_is_no_unknown_parameter(bench: Bench) -> None:
    parameters = {f"csi.storage.k8s.io/{key}": "x" for key in ("pvc/name", "pv/name", "later")}

    assert bench.create(parameters=parameters).volume_id


@pytest.mark.parametrize("node_id", ["node-2", "NODE-1", f"{NODE_ID} ", "../node-1"])
def test_a_foreign_node_is_not_found(bench: Bench, node_id: str) -> None:
    volume_id = bench.create().volume_id

    with nothing_changes(bench.pool), refused(Code.NOT_FOUND, node_id, NODE_ID):
        bench.driver.controller.ControllerPublishVolume(
            requests.controller_publish(volume_id, node_id=node_id)
        )
