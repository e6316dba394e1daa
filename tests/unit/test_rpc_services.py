"""The other services, and snapshots, over a real socket: what reaches the verbs and comes back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import grpc
import pytest
from google.protobuf.message import Message

from csi import __version__
from csi.model import (
    Access,
    AccessMode,
    Capability,
    InlineVolume,
    PublishRequest,
    SizeRange,
    SnapshotParameters,
)
from csi.v1 import csi_pb2
from tests.unit.test_rpc_fake import (
    GIB,
    Client,
    FakeDriver,
    mount_capability,
    served,
)

WRITER = Capability(access=Access.FILESYSTEM, mode=AccessMode.SINGLE_NODE_WRITER)
TOPOLOGY = {"local-path.csi.dev/node": "node-1"}


class Running(NamedTuple):
    driver: FakeDriver
    client: Client


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    driver = FakeDriver()
    with served(driver, tmp_path) as client:
        yield Running(driver, client)


def test_identity(running: Running) -> None:
    identity = running.client.identity
    info = identity.GetPluginInfo(csi_pb2.GetPluginInfoRequest())
    assert (info.name, info.vendor_version) == ("local-path.csi.dev", __version__)
    offered = identity.GetPluginCapabilities(csi_pb2.GetPluginCapabilitiesRequest()).capabilities
    service = csi_pb2.PluginCapability.Service
    assert {one.service.type for one in offered if one.HasField("service")} == {
        service.CONTROLLER_SERVICE,
        service.VOLUME_ACCESSIBILITY_CONSTRAINTS,
        service.GROUP_CONTROLLER_SERVICE,
        service.SNAPSHOT_METADATA_SERVICE,
    }
    expansions = [one.volume_expansion.type for one in offered if not one.HasField("service")]
    assert expansions == [csi_pb2.PluginCapability.VolumeExpansion.ONLINE]
    assert identity.Probe(csi_pb2.ProbeRequest()).ready.value


def test_capabilities(running: Running) -> None:
    client = running.client
    rpc = csi_pb2.ControllerServiceCapability.RPC.Type
    answer = client.controller.ControllerGetCapabilities(csi_pb2.ControllerGetCapabilitiesRequest())
    assert {rpc.Name(one.rpc.type) for one in answer.capabilities} == set(rpc.keys()) - {"UNKNOWN"}
    node_rpc = csi_pb2.NodeServiceCapability.RPC.Type
    node = client.node.NodeGetCapabilities(csi_pb2.NodeGetCapabilitiesRequest())
    assert {node_rpc.Name(one.rpc.type) for one in node.capabilities} == {
        "STAGE_UNSTAGE_VOLUME",
        "GET_VOLUME_STATS",
        "EXPAND_VOLUME",
        "VOLUME_CONDITION",
        "SINGLE_NODE_MULTI_WRITER",
    }
    group = client.group.GroupControllerGetCapabilities(
        csi_pb2.GroupControllerGetCapabilitiesRequest()
    )
    assert [one.rpc.type for one in group.capabilities] == [
        csi_pb2.GroupControllerServiceCapability.RPC.CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT
    ]


def test_snapshots(running: Running) -> None:
    driver, client = running
    cut = client.controller.CreateSnapshot(
        csi_pb2.CreateSnapshotRequest(
            name="snapshot-1", source_volume_id="vol-1", parameters={"frozenCopySeconds": "2.5"}
        )
    ).snapshot
    assert (cut.snapshot_id, cut.source_volume_id, cut.size_bytes) == ("snap-1", "vol-1", GIB)
    assert (cut.creation_time.seconds, cut.creation_time.nanos) == (1_700_000_001, 2)
    assert cut.ready_to_use
    assert cut.group_snapshot_id == "group-1"
    found = client.controller.GetSnapshot(csi_pb2.GetSnapshotRequest(snapshot_id="snap-1"))
    assert found.snapshot == cut
    listed = client.controller.ListSnapshots(
        csi_pb2.ListSnapshotsRequest(
            max_entries=2, starting_token="t", snapshot_id="snap-1", source_volume_id="vol-1"
        )
    )
    assert [entry.snapshot for entry in listed.entries] == [cut]
    client.controller.DeleteSnapshot(csi_pb2.DeleteSnapshotRequest(snapshot_id="snap-1"))
    assert driver.calls == [
        ("cut", ("snapshot-1", "vol-1", SnapshotParameters(frozen_copy_s=2.5))),
        ("get_snapshot", ("snap-1",)),
        ("page_snapshots", ("t", 2, "snap-1", "vol-1")),
        ("delete_snapshot", ("snap-1",)),
    ]


def test_groups(running: Running) -> None:
    driver, client = running
    cut = client.group.CreateVolumeGroupSnapshot(
        csi_pb2.CreateVolumeGroupSnapshotRequest(name="group-1", source_volume_ids=["vol-1"])
    ).group_snapshot
    assert cut.group_snapshot_id == "group-1"
    assert [one.snapshot_id for one in cut.snapshots] == ["snap-1"]
    assert cut.ready_to_use
    assert (cut.creation_time.seconds, cut.creation_time.nanos) == (1_700_000_001, 2)
    found = client.group.GetVolumeGroupSnapshot(
        csi_pb2.GetVolumeGroupSnapshotRequest(group_snapshot_id="group-1", snapshot_ids=["snap-1"])
    )
    assert found.group_snapshot == cut
    client.group.DeleteVolumeGroupSnapshot(
        csi_pb2.DeleteVolumeGroupSnapshotRequest(group_snapshot_id="unknown")
    )
    assert driver.calls == [
        ("cut_group", ("group-1", ("vol-1",), SnapshotParameters())),
        ("get_group", ("group-1", ("snap-1",))),
        ("delete_group", ("unknown", ())),
    ]


def test_node_info(running: Running) -> None:
    info = running.client.node.NodeGetInfo(csi_pb2.NodeGetInfoRequest())
    assert (info.node_id, info.max_volumes_per_node) == ("node-1", 7)
    assert dict(info.accessible_topology.segments) == TOPOLOGY


def test_a_volume_on_the_node(running: Running) -> None:
    driver, client = running
    capability = mount_capability(fs_type="xfs")
    capability.mount.mount_flags.append("noatime")
    client.node.NodeStageVolume(
        csi_pb2.NodeStageVolumeRequest(
            volume_id="vol-1", staging_target_path="/stage", volume_capability=capability
        )
    )
    client.node.NodePublishVolume(
        csi_pb2.NodePublishVolumeRequest(
            volume_id="vol-1",
            staging_target_path="/stage",
            target_path="/target",
            volume_capability=capability,
            readonly=True,
            volume_context={"kind": "image", "csi.storage.k8s.io/ephemeral": "false"},
        )
    )
    stats = client.node.NodeGetVolumeStats(
        csi_pb2.NodeGetVolumeStatsRequest(volume_id="vol-1", volume_path="some/path")
    )
    assert list(stats.usage) == [
        csi_pb2.VolumeUsage(total=100, used=40, available=60, unit=csi_pb2.VolumeUsage.BYTES),
        csi_pb2.VolumeUsage(total=10, used=4, available=6, unit=csi_pb2.VolumeUsage.INODES),
    ]
    grown = client.node.NodeExpandVolume(
        csi_pb2.NodeExpandVolumeRequest(volume_id="vol-1", volume_path="/target")
    )
    assert grown.capacity_bytes == 2 * GIB
    client.node.NodeUnpublishVolume(
        csi_pb2.NodeUnpublishVolumeRequest(volume_id="vol-1", target_path="/target")
    )
    client.node.NodeUnstageVolume(
        csi_pb2.NodeUnstageVolumeRequest(volume_id="vol-1", staging_target_path="/stage")
    )
    used = WRITER.replace(fs_type="xfs", mount_flags=("noatime",))
    asked = PublishRequest(
        volume_id="vol-1",
        target_path="/target",
        capability=used,
        read_only=True,
        staging_path="/stage",
    )
    assert driver.calls == [
        ("stage", ("vol-1", "/stage", used)),
        ("publish", (asked,)),
        ("stats", ("vol-1", "some/path")),
        ("expand_node", ("vol-1", "/target", SizeRange())),
        ("unpublish", ("vol-1", "/target")),
        ("unstage", ("vol-1", "/stage")),
    ]


def test_an_inline_volume_is_not_staged(running: Running) -> None:
    driver, client = running
    client.node.NodePublishVolume(
        csi_pb2.NodePublishVolumeRequest(
            volume_id="csi-" + "0" * 64,
            target_path="/target",
            volume_capability=mount_capability(),
            volume_context={
                "csi.storage.k8s.io/ephemeral": "true",
                "csi.storage.k8s.io/pod.uid": "uid",
                "size": "1Gi",
            },
        )
    )
    (call,) = driver.calls
    (asked,) = call.arguments
    assert isinstance(asked, PublishRequest)
    assert asked.inline == InlineVolume(pod_uid="uid", size_bytes=GIB)
    assert asked.staging_path == ""


def test_what_is_not_served_is_unimplemented(running: Running) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        running.client.raw("SnapshotMetadata/Nothing", b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert caught.value.details()


def test_fields_of_a_later_version_are_passed_over(running: Running) -> None:
    request: Message = csi_pb2.DeleteVolumeRequest(volume_id="vol-1")
    unknown = bytes([0xFA, 0x3E, 3]) + b"new"  # field 1007, length-delimited
    running.client.raw("Controller/DeleteVolume", request.SerializeToString() + unknown)
    assert running.driver.calls == [("delete", ("vol-1",))]
