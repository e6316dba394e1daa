"""The Controller calls on volumes over a real socket: what reaches the verbs, what comes back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from csi.model import (
    Access,
    AccessMode,
    Capability,
    Kind,
    Parameters,
    SizeRange,
    Source,
    SourceType,
    VolumeRequest,
)
from csi.rpc.controller import PAGE_ENTRIES
from csi.v1 import csi_pb2
from tests.unit.test_rpc_fake import (
    GIB,
    VOLUME,
    Client,
    FakeDriver,
    block_capability,
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


def test_create_volume(running: Running) -> None:
    driver, client = running
    request = csi_pb2.CreateVolumeRequest(
        name="pvc-1",
        capacity_range=csi_pb2.CapacityRange(required_bytes=GIB, limit_bytes=2 * GIB),
        volume_capabilities=[mount_capability(fs_type="xfs")],
        parameters={"kind": "image", "csi.storage.k8s.io/pvc/name": "claim"},
        mutable_parameters={"csi.storage.k8s.io/pvc/name": "claim", "writeBandwidth": "20Mi"},
        volume_content_source=csi_pb2.VolumeContentSource(
            snapshot=csi_pb2.VolumeContentSource.SnapshotSource(snapshot_id="snap-0")
        ),
        accessibility_requirements=csi_pb2.TopologyRequirement(
            requisite=[csi_pb2.Topology(segments=TOPOLOGY)]
        ),
    )
    volume = client.controller.CreateVolume(request).volume
    (call,) = driver.calls
    (asked,) = call.arguments
    assert isinstance(asked, VolumeRequest)
    assert asked.name == "pvc-1"
    assert asked.size == SizeRange(required_bytes=GIB, limit_bytes=2 * GIB)
    assert asked.capabilities == (WRITER.replace(fs_type="xfs"),)
    assert asked.claim.name == "claim"
    assert asked.limits == {"write_bandwidth_bytes": 20 << 20}
    assert asked.source == Source(type=SourceType.SNAPSHOT, id="snap-0")
    assert asked.requisite == (TOPOLOGY,)

    assert volume == csi_pb2.Volume(
        capacity_bytes=GIB,
        volume_id="vol-1",
        volume_context={"kind": "image"},
        content_source=request.volume_content_source,
        accessible_topology=[csi_pb2.Topology(segments=TOPOLOGY)],
    )


def test_a_clone_echoes_its_source(running: Running) -> None:
    driver, client = running
    source = csi_pb2.VolumeContentSource(
        volume=csi_pb2.VolumeContentSource.VolumeSource(volume_id="vol-0")
    )
    driver.script.volume = VOLUME.replace(source=Source(type=SourceType.VOLUME, id="vol-0"))
    request = csi_pb2.CreateVolumeRequest(
        name="pvc-1", volume_capabilities=[block_capability()], volume_content_source=source
    )
    assert client.controller.CreateVolume(request).volume.content_source == source
    (call,) = driver.calls
    (asked,) = call.arguments
    assert isinstance(asked, VolumeRequest)
    assert asked.source == Source(type=SourceType.VOLUME, id="vol-0")
    assert asked.size == SizeRange()
    assert asked.capabilities[0].access is Access.BLOCK


def test_an_empty_volume_has_no_source(running: Running) -> None:
    driver, client = running
    driver.script.volume = VOLUME.replace(source=None)
    request = csi_pb2.CreateVolumeRequest(
        name="pvc-1", volume_capabilities=[mount_capability()], parameters={"kind": "directory"}
    )
    assert not client.controller.CreateVolume(request).volume.HasField("content_source")


def test_controller_publish_and_unpublish(running: Running) -> None:
    driver, client = running
    client.controller.ControllerPublishVolume(
        csi_pb2.ControllerPublishVolumeRequest(
            volume_id="vol-1",
            node_id="node-1",
            volume_capability=mount_capability(),
            readonly=True,
            volume_context={"kind": "image", "storage.kubernetes.io/provisioner": "1"},
        )
    )
    client.controller.ControllerUnpublishVolume(
        csi_pb2.ControllerUnpublishVolumeRequest(volume_id="vol-1")
    )
    assert driver.calls == [
        ("attach", ("vol-1", "node-1", WRITER, True)),
        ("detach", ("vol-1", "")),
    ]


def test_expand_tells_whether_the_node_has_to_follow(running: Running) -> None:
    driver, client = running
    request = csi_pb2.ControllerExpandVolumeRequest(
        volume_id="vol-1", capacity_range=csi_pb2.CapacityRange(required_bytes=GIB)
    )
    answer = client.controller.ControllerExpandVolume(request)
    assert (answer.capacity_bytes, answer.node_expansion_required) == (GIB, True)
    driver.script.volume = VOLUME.replace(kind=Kind.DIRECTORY)
    assert not client.controller.ControllerExpandVolume(request).node_expansion_required
    assert driver.calls[0] == ("expand", ("vol-1", SizeRange(required_bytes=GIB)))


def test_get_and_list_volumes_tell_state(running: Running) -> None:
    driver, client = running
    found = client.controller.ControllerGetVolume(
        csi_pb2.ControllerGetVolumeRequest(volume_id="vol-1")
    )
    assert found.volume.volume_id == "vol-1"
    assert list(found.status.published_node_ids) == ["node-1", "node-2"]
    assert not found.status.volume_condition.abnormal
    assert found.status.volume_condition.message

    driver.script.problem = "the data is gone: " + "é" * 100
    listed = client.controller.ListVolumes(
        csi_pb2.ListVolumesRequest(max_entries=5, starting_token="here")
    )
    assert listed.next_token == "next"
    (entry,) = listed.entries
    assert entry.volume == found.volume
    assert list(entry.status.published_node_ids) == ["node-1", "node-2"]
    assert entry.status.volume_condition.abnormal
    assert entry.status.volume_condition.message.startswith("the data is gone: é")
    assert len(entry.status.volume_condition.message.encode()) <= 128
    assert driver.calls[-1] == ("page", ("here", 5))


@pytest.mark.parametrize(("asked", "given"), [(0, PAGE_ENTRIES), (3, 3), (1 << 30, PAGE_ENTRIES)])
def test_pages_are_bounded(running: Running, asked: int, given: int) -> None:
    driver, client = running
    client.controller.ListVolumes(csi_pb2.ListVolumesRequest(max_entries=asked))
    client.controller.ListSnapshots(csi_pb2.ListSnapshotsRequest(max_entries=asked))
    assert driver.calls == [("page", ("", given)), ("page_snapshots", ("", given, "", ""))]


def test_validate_confirms_what_was_asked(running: Running) -> None:
    driver, client = running
    request = csi_pb2.ValidateVolumeCapabilitiesRequest(
        volume_id="vol-1",
        volume_capabilities=[mount_capability()],
        volume_context={"kind": "image", "somebody/else": "x"},
        parameters={"kind": "image"},
        mutable_parameters={"csi.storage.k8s.io/pvc/name": "claim", "readIOPS": "max"},
    )
    confirmed = client.controller.ValidateVolumeCapabilities(request).confirmed
    assert confirmed.volume_capabilities == request.volume_capabilities
    assert confirmed.volume_context == request.volume_context
    assert confirmed.parameters == request.parameters
    assert confirmed.mutable_parameters == request.mutable_parameters
    assert driver.calls[-1] == ("unconfirmed", ("vol-1", (WRITER,), Parameters()))


def test_validate_without_parameters_asks_for_none(running: Running) -> None:
    driver, client = running
    client.controller.ValidateVolumeCapabilities(
        csi_pb2.ValidateVolumeCapabilitiesRequest(
            volume_id="vol-1", volume_capabilities=[mount_capability()]
        )
    )
    assert driver.calls[-1] == ("unconfirmed", ("vol-1", (WRITER,), None))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"volume_capabilities": [mount_capability(volume_mount_group="7")]}, "volume_mount_group"),
        ({"parameters": {"colour": "red"}}, "'colour'"),
        ({"parameters": {"kind": "tape"}}, "'tape'"),
        ({"mutable_parameters": {"iops": "1"}}, "'iops'"),
        ({"mutable_parameters": {"readIOPS": "100"}}, "other limits"),
        ({"volume_context": {"kind": "directory"}}, "another kind"),
    ],
)
def test_validate_says_no_with_a_reason(
    running: Running, fields: dict[str, object], message: str
) -> None:
    request = csi_pb2.ValidateVolumeCapabilitiesRequest(volume_id="vol-1")
    for name, value in {"volume_capabilities": [mount_capability()], **fields}.items():
        held = getattr(request, name)
        held.update(value) if isinstance(value, dict) else held.extend(value)
    answer = running.client.controller.ValidateVolumeCapabilities(request)
    assert not answer.HasField("confirmed")
    assert message in answer.message
    assert len(answer.message.encode()) <= 128


def test_validate_passes_on_what_the_verb_says(running: Running) -> None:
    driver, client = running
    driver.script.problem = "the volume is a block device, not a filesystem"
    answer = client.controller.ValidateVolumeCapabilities(
        csi_pb2.ValidateVolumeCapabilitiesRequest(
            volume_id="vol-1", volume_capabilities=[mount_capability()]
        )
    )
    assert not answer.HasField("confirmed")
    assert answer.message == driver.script.problem


def test_capacity(running: Running) -> None:
    driver, client = running
    answer = client.controller.GetCapacity(
        csi_pb2.GetCapacityRequest(
            parameters={
                "kind": "directory",
                "csi.storage.k8s.io/fstype": "xfs",
                "csi.storage.k8s.io/provisioner-secret-name": "unread",
            },
            accessible_topology=csi_pb2.Topology(segments=TOPOLOGY),
        )
    )
    assert answer.available_capacity == 9 * GIB
    assert answer.maximum_volume_size.value == 8 * GIB
    assert answer.minimum_volume_size.value == 4096
    client.controller.GetCapacity(csi_pb2.GetCapacityRequest())
    assert driver.calls == [
        ("capacity", (Parameters(kind=Kind.DIRECTORY, fs_type="xfs"), TOPOLOGY)),
        ("capacity", (Parameters(), None)),
    ]


def test_there_is_no_capacity_for_what_cannot_be(running: Running) -> None:
    driver, client = running
    shared = mount_capability()
    shared.access_mode.mode = csi_pb2.VolumeCapability.AccessMode.MULTI_NODE_MULTI_WRITER
    for request in (
        csi_pb2.GetCapacityRequest(volume_capabilities=[shared]),
        csi_pb2.GetCapacityRequest(volume_capabilities=[mount_capability(), block_capability()]),
        csi_pb2.GetCapacityRequest(
            volume_capabilities=[block_capability()], parameters={"kind": "directory"}
        ),
    ):
        answer = client.controller.GetCapacity(request)
        assert answer.available_capacity == 0
        assert answer.maximum_volume_size.value == 0
    assert driver.calls == []


def test_modify(running: Running) -> None:
    driver, client = running
    client.controller.ControllerModifyVolume(
        csi_pb2.ControllerModifyVolumeRequest(
            volume_id="vol-1",
            mutable_parameters={"csi.storage.k8s.io/pvc/name": "claim", "readIOPS": "500"},
        )
    )
    assert driver.calls == [("modify", ("vol-1", {"read_iops": 500}))]
