"""Every INVALID_ARGUMENT that a request alone gives cause for, and the words for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, cast

import pytest
from google.protobuf.message import Message

from csi.errors import InvalidRequest, NotNow
from csi.model import Claim
from csi.rpc import node_requests, requests
from csi.v1 import csi_pb2
from tests.unit.test_rpc_fake import block_capability, mount_capability

MODE = csi_pb2.VolumeCapability.AccessMode
SOURCE = csi_pb2.VolumeContentSource

Change = Callable[[Any], object]
Read = Callable[[Any], object]


def good_create() -> csi_pb2.CreateVolumeRequest:
    return csi_pb2.CreateVolumeRequest(name="pvc-1", volume_capabilities=[mount_capability()])


def good_publish() -> csi_pb2.NodePublishVolumeRequest:
    return csi_pb2.NodePublishVolumeRequest(
        volume_id="vol-1",
        staging_target_path="/stage",
        target_path="/target",
        volume_capability=mount_capability(),
    )


GOOD: dict[str, tuple[Read, Message]] = {
    "create": (requests.create_volume, good_create()),
    "delete": (requests.delete_volume, csi_pb2.DeleteVolumeRequest(volume_id="vol-1")),
    "attach": (
        requests.controller_publish,
        csi_pb2.ControllerPublishVolumeRequest(
            volume_id="vol-1", node_id="node-1", volume_capability=mount_capability()
        ),
    ),
    "detach": (
        requests.controller_unpublish,
        csi_pb2.ControllerUnpublishVolumeRequest(volume_id="vol-1"),
    ),
    "validate": (
        requests.validate,
        csi_pb2.ValidateVolumeCapabilitiesRequest(
            volume_id="vol-1", volume_capabilities=[mount_capability()]
        ),
    ),
    "list": (requests.list_volumes, csi_pb2.ListVolumesRequest()),
    "capacity": (requests.get_capacity, csi_pb2.GetCapacityRequest()),
    "cut": (
        requests.create_snapshot,
        csi_pb2.CreateSnapshotRequest(name="s", source_volume_id="vol-1"),
    ),
    "delete snapshot": (
        requests.delete_snapshot,
        csi_pb2.DeleteSnapshotRequest(snapshot_id="snap-1"),
    ),
    "list snapshots": (requests.list_snapshots, csi_pb2.ListSnapshotsRequest()),
    "get snapshot": (requests.get_snapshot, csi_pb2.GetSnapshotRequest(snapshot_id="snap-1")),
    "expand": (
        requests.controller_expand,
        csi_pb2.ControllerExpandVolumeRequest(
            volume_id="vol-1", capacity_range=csi_pb2.CapacityRange(required_bytes=1)
        ),
    ),
    "get": (
        requests.controller_get_volume,
        csi_pb2.ControllerGetVolumeRequest(volume_id="vol-1"),
    ),
    "modify": (
        requests.controller_modify,
        csi_pb2.ControllerModifyVolumeRequest(volume_id="vol-1"),
    ),
    "cut group": (
        requests.create_group,
        csi_pb2.CreateVolumeGroupSnapshotRequest(name="g", source_volume_ids=["vol-1"]),
    ),
    "delete group": (
        requests.delete_group,
        csi_pb2.DeleteVolumeGroupSnapshotRequest(group_snapshot_id="group-1"),
    ),
    "get group": (
        requests.get_group,
        csi_pb2.GetVolumeGroupSnapshotRequest(group_snapshot_id="group-1"),
    ),
    "stage": (
        node_requests.stage,
        csi_pb2.NodeStageVolumeRequest(
            volume_id="vol-1", staging_target_path="/stage", volume_capability=mount_capability()
        ),
    ),
    "unstage": (
        node_requests.unstage,
        csi_pb2.NodeUnstageVolumeRequest(volume_id="vol-1", staging_target_path="/stage"),
    ),
    "publish": (node_requests.publish, good_publish()),
    "unpublish": (
        node_requests.unpublish,
        csi_pb2.NodeUnpublishVolumeRequest(volume_id="vol-1", target_path="/target"),
    ),
    "stats": (
        node_requests.stats,
        csi_pb2.NodeGetVolumeStatsRequest(volume_id="vol-1", volume_path="/target"),
    ),
    "expand node": (
        node_requests.expand,
        csi_pb2.NodeExpandVolumeRequest(volume_id="vol-1", volume_path="/target"),
    ),
}

REQUIRED = [
    ("create", "name"),
    ("create", "volume_capabilities"),
    ("delete", "volume_id"),
    ("attach", "volume_id"),
    ("attach", "node_id"),
    ("attach", "volume_capability"),
    ("detach", "volume_id"),
    ("validate", "volume_id"),
    ("validate", "volume_capabilities"),
    ("cut", "name"),
    ("cut", "source_volume_id"),
    ("delete snapshot", "snapshot_id"),
    ("get snapshot", "snapshot_id"),
    ("expand", "volume_id"),
    ("expand", "capacity_range"),
    ("get", "volume_id"),
    ("modify", "volume_id"),
    ("cut group", "name"),
    ("cut group", "source_volume_ids"),
    ("delete group", "group_snapshot_id"),
    ("get group", "group_snapshot_id"),
    ("stage", "volume_id"),
    ("stage", "staging_target_path"),
    ("stage", "volume_capability"),
    ("unstage", "volume_id"),
    ("unstage", "staging_target_path"),
    ("publish", "volume_id"),
    ("publish", "target_path"),
    ("publish", "volume_capability"),
    ("unpublish", "volume_id"),
    ("unpublish", "target_path"),
    ("stats", "volume_id"),
    ("stats", "volume_path"),
    ("expand node", "volume_id"),
    ("expand node", "volume_path"),
]


def read(name: str, change: Change = lambda _message: None) -> object:
    """Reads the good request of that name after it was changed."""
    reader, good = GOOD[name]
    message = type(good).FromString(good.SerializeToString())
    change(message)
    return reader(message)


@pytest.mark.parametrize("name", GOOD)
def test_the_good_requests_are_good(name: str) -> None:
    assert read(name)


@pytest.mark.parametrize(("name", "field"), REQUIRED)
def test_a_missing_field_is_named(name: str, field: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"^{field} is missing$"):
        read(name, lambda message: message.ClearField(field))


@pytest.mark.parametrize("name", GOOD)
def test_an_empty_request_never_breaks(name: str) -> None:
    reader, good = GOOD[name]
    with contextlib.suppress(InvalidRequest):
        reader(type(good)())


def add_source(source: csi_pb2.VolumeContentSource) -> Change:
    return lambda message: message.volume_content_source.CopyFrom(source)


BAD_CREATES: list[tuple[Change, str]] = [
    (lambda m: m.volume_capabilities.append(block_capability()), "mixes block and mount"),
    (add_source(SOURCE()), "volume_content_source must be a snapshot or a volume"),
    (
        add_source(SOURCE(snapshot=SOURCE.SnapshotSource())),
        r"volume_content_source\.snapshot\.snapshot_id is missing",
    ),
    (
        add_source(SOURCE(volume=SOURCE.VolumeSource())),
        r"volume_content_source\.volume\.volume_id is missing",
    ),
    (
        lambda m: m.accessibility_requirements.SetInParent(),
        "accessibility_requirements needs requisite or preferred",
    ),
    (lambda m: m.parameters.update(Kind="image"), "parameter 'Kind' is not known; known are"),
    (lambda m: m.parameters.update(kind="tape"), "kind is 'tape'; it must be image or directory"),
    (lambda m: m.mutable_parameters.update(iops="1"), "mutable parameter 'iops' is not known"),
]


@pytest.mark.parametrize(("change", "match"), BAD_CREATES)
def test_create_refuses(change: Change, match: str) -> None:
    with pytest.raises(InvalidRequest, match=match):
        read("create", change)


def test_create_reads_the_claim_and_places() -> None:
    def change(message: csi_pb2.CreateVolumeRequest) -> None:
        message.parameters["csi.storage.k8s.io/pvc/name"] = "claim"
        message.parameters["csi.storage.k8s.io/pvc/namespace"] = "space"
        message.parameters["csi.storage.k8s.io/pv/name"] = "pv"
        message.accessibility_requirements.preferred.add().segments["a/b"] = "c"

    asked = cast("Any", read("create", change))
    assert asked.claim == Claim(namespace="space", name="claim", volume="pv")
    # A place that is only preferred rules no other out.
    assert asked.requisite == ()


@pytest.mark.parametrize("name", ["list", "list snapshots"])
def test_a_negative_page(name: str) -> None:
    with pytest.raises(InvalidRequest, match="max_entries is negative: -1"):
        read(name, lambda message: setattr(message, "max_entries", -1))


@pytest.mark.parametrize(
    ("more", "match"),
    [("vol-1", "source_volume_ids names one of its entries twice"), ("", "has an empty entry")],
)
def test_a_list_of_sources(more: str, match: str) -> None:
    with pytest.raises(InvalidRequest, match=match):
        read("cut group", lambda message: message.source_volume_ids.append(more))


@pytest.mark.parametrize("name", ["cut", "cut group"])
def test_snapshot_parameters_are_read(name: str) -> None:
    with pytest.raises(InvalidRequest, match="'frozen' is not known; known are frozenCopySeconds"):
        read(name, lambda message: message.parameters.update(frozen="1"))


def test_modify_refuses_what_it_cannot_change() -> None:
    with pytest.raises(InvalidRequest, match="mutable parameter 'iops' is not known"):
        read("modify", lambda message: message.mutable_parameters.update(iops="1"))


def test_publish_without_staging_is_a_matter_of_state() -> None:
    with pytest.raises(NotNow, match="staging_target_path is missing; stage the volume"):
        read("publish", lambda message: message.ClearField("staging_target_path"))


def test_an_inline_volume_is_no_block_device() -> None:
    def change(message: csi_pb2.NodePublishVolumeRequest) -> None:
        message.volume_capability.CopyFrom(block_capability())
        message.volume_context["csi.storage.k8s.io/ephemeral"] = "true"
        message.volume_context["csi.storage.k8s.io/pod.uid"] = "uid"

    with pytest.raises(InvalidRequest, match="inline volume is a filesystem"):
        read("publish", change)


def test_context_of_other_volumes_is_not_judged() -> None:
    context = {"somebody/else": "x", "size": "not a size"}
    assert read("publish", lambda message: message.volume_context.update(context))
