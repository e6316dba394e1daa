"""Builders of requests: what a sidecar or the kubelet would send, unless a test says otherwise.

The defaults are those of a ReadWriteOnce claim of an ext4 filesystem of 64 MiB. A builder takes
what differs; what a test wants to leave out or spoil, it changes in the message itself.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from csi.v1 import csi_pb2 as pb
from tests.driver import NODE_ID
from tests.kubelet import DRIVER_NAME

MIB = 1 << 20
GIB = 1 << 30
TIB = 1 << 40
TOPOLOGY_KEY = f"{DRIVER_NAME}/node"
FS_TYPE = "csi.storage.k8s.io/fstype"

UNKNOWN_VOLUME = "vol-0123456789ab-0123456789abcdef0123456789abcdef-0123456789"
UNKNOWN_SNAPSHOT = "snap-0123456789ab-0123456789abcdef0123456789abcdef-0123456789"
UNKNOWN_GROUP = "group-0123456789ab-0123456789abcdef0123456789abcdef-0123456789"
"""Ids of the right shape that were never given out."""

LEAST_BYTES = {"ext4": 64 * MIB, "xfs": 300 * MIB, "btrfs": 128 * MIB}
"""Sizes for tests: the smallest round ones that each filesystem can have."""

Mode = pb.VolumeCapability.AccessMode
MULTI_WRITER = Mode.SINGLE_NODE_MULTI_WRITER
SINGLE_WRITER = Mode.SINGLE_NODE_SINGLE_WRITER
OLD_WRITER = Mode.SINGLE_NODE_WRITER
READER = Mode.SINGLE_NODE_READER_ONLY


def filesystem(
    fs_type: str = "ext4",
    mode: Mode.Mode.ValueType = MULTI_WRITER,
    flags: Sequence[str] = (),
) -> pb.VolumeCapability:
    """What a claim with `volumeMode: Filesystem` asks for."""
    return pb.VolumeCapability(
        mount=pb.VolumeCapability.MountVolume(fs_type=fs_type, mount_flags=flags),
        access_mode=Mode(mode=mode),
    )


def raw_block(mode: Mode.Mode.ValueType = MULTI_WRITER) -> pb.VolumeCapability:
    """What a claim with `volumeMode: Block` asks for."""
    return pb.VolumeCapability(block=pb.VolumeCapability.BlockVolume(), access_mode=Mode(mode=mode))


def from_volume(volume_id: str) -> pb.VolumeContentSource:
    """The source of a clone."""
    return pb.VolumeContentSource(volume=pb.VolumeContentSource.VolumeSource(volume_id=volume_id))


def from_snapshot(snapshot_id: str) -> pb.VolumeContentSource:
    """The source of a restore."""
    return pb.VolumeContentSource(
        snapshot=pb.VolumeContentSource.SnapshotSource(snapshot_id=snapshot_id)
    )


def on_node(node_id: str = NODE_ID) -> pb.Topology:
    """The topology of a node."""
    return pb.Topology(segments={TOPOLOGY_KEY: node_id})


def required_topology(*requisite: pb.Topology) -> pb.TopologyRequirement:
    """What the provisioner sends once the scheduler has chosen a node."""
    return pb.TopologyRequirement(requisite=requisite, preferred=requisite)


def size_range(required: int = 0, limit: int = 0) -> pb.CapacityRange:
    """A range of sizes in bytes; 0 is left out."""
    return pb.CapacityRange(required_bytes=required, limit_bytes=limit)


def create_volume(
    name: str,
    *,
    size: int = 64 * MIB,
    limit: int = 0,
    capabilities: Iterable[pb.VolumeCapability] = (filesystem(),),
    parameters: Mapping[str, str] | None = None,
    source: pb.VolumeContentSource | None = None,
    topology: pb.TopologyRequirement | None = None,
) -> pb.CreateVolumeRequest:
    """CreateVolume; without size and limit it has no capacity_range."""
    return pb.CreateVolumeRequest(
        name=name,
        capacity_range=size_range(size, limit) if size or limit else None,
        volume_capabilities=capabilities,
        parameters=parameters,
        volume_content_source=source,
        accessibility_requirements=topology,
    )


def delete_volume(volume_id: str) -> pb.DeleteVolumeRequest:
    """DeleteVolume."""
    return pb.DeleteVolumeRequest(volume_id=volume_id)


def get_volume(volume_id: str) -> pb.ControllerGetVolumeRequest:
    """ControllerGetVolume."""
    return pb.ControllerGetVolumeRequest(volume_id=volume_id)


def list_volumes(token: str = "", max_entries: int = 0) -> pb.ListVolumesRequest:
    """ListVolumes."""
    return pb.ListVolumesRequest(starting_token=token, max_entries=max_entries)


def validate(
    volume_id: str,
    capabilities: Iterable[pb.VolumeCapability] = (filesystem(),),
    *,
    context: Mapping[str, str] | None = None,
    parameters: Mapping[str, str] | None = None,
) -> pb.ValidateVolumeCapabilitiesRequest:
    """ValidateVolumeCapabilities."""
    return pb.ValidateVolumeCapabilitiesRequest(
        volume_id=volume_id,
        volume_capabilities=capabilities,
        volume_context=context,
        parameters=parameters,
    )


def get_capacity(
    *,
    parameters: Mapping[str, str] | None = None,
    topology: pb.Topology | None = None,
    capabilities: Iterable[pb.VolumeCapability] = (),
) -> pb.GetCapacityRequest:
    """GetCapacity."""
    return pb.GetCapacityRequest(
        parameters=parameters, accessible_topology=topology, volume_capabilities=capabilities
    )


def controller_publish(
    volume_id: str,
    capability: pb.VolumeCapability | None = None,
    *,
    node_id: str = NODE_ID,
    read_only: bool = False,
) -> pb.ControllerPublishVolumeRequest:
    """ControllerPublishVolume."""
    return pb.ControllerPublishVolumeRequest(
        volume_id=volume_id,
        node_id=node_id,
        volume_capability=capability or filesystem(),
        readonly=read_only,
    )


def controller_unpublish(
    volume_id: str, node_id: str = NODE_ID
) -> pb.ControllerUnpublishVolumeRequest:
    """ControllerUnpublishVolume."""
    return pb.ControllerUnpublishVolumeRequest(volume_id=volume_id, node_id=node_id)


def controller_expand(
    volume_id: str,
    size: int,
    limit: int = 0,
    capability: pb.VolumeCapability | None = None,
) -> pb.ControllerExpandVolumeRequest:
    """ControllerExpandVolume."""
    return pb.ControllerExpandVolumeRequest(
        volume_id=volume_id,
        capacity_range=size_range(size, limit),
        volume_capability=capability,
    )


def modify(volume_id: str, limits: Mapping[str, str]) -> pb.ControllerModifyVolumeRequest:
    """ControllerModifyVolume."""
    return pb.ControllerModifyVolumeRequest(volume_id=volume_id, mutable_parameters=limits)


def create_snapshot(
    name: str, volume_id: str, parameters: Mapping[str, str] | None = None
) -> pb.CreateSnapshotRequest:
    """CreateSnapshot."""
    return pb.CreateSnapshotRequest(name=name, source_volume_id=volume_id, parameters=parameters)


def delete_snapshot(snapshot_id: str) -> pb.DeleteSnapshotRequest:
    """DeleteSnapshot."""
    return pb.DeleteSnapshotRequest(snapshot_id=snapshot_id)


def get_snapshot(snapshot_id: str) -> pb.GetSnapshotRequest:
    """GetSnapshot."""
    return pb.GetSnapshotRequest(snapshot_id=snapshot_id)


def list_snapshots(
    *, snapshot_id: str = "", volume_id: str = "", token: str = "", max_entries: int = 0
) -> pb.ListSnapshotsRequest:
    """ListSnapshots."""
    return pb.ListSnapshotsRequest(
        snapshot_id=snapshot_id,
        source_volume_id=volume_id,
        starting_token=token,
        max_entries=max_entries,
    )


def create_group(
    name: str, volume_ids: Iterable[str], parameters: Mapping[str, str] | None = None
) -> pb.CreateVolumeGroupSnapshotRequest:
    """CreateVolumeGroupSnapshot."""
    return pb.CreateVolumeGroupSnapshotRequest(
        name=name, source_volume_ids=volume_ids, parameters=parameters
    )


def get_group(group_id: str, snapshot_ids: Iterable[str] = ()) -> pb.GetVolumeGroupSnapshotRequest:
    """GetVolumeGroupSnapshot."""
    return pb.GetVolumeGroupSnapshotRequest(group_snapshot_id=group_id, snapshot_ids=snapshot_ids)


def delete_group(
    group_id: str, snapshot_ids: Iterable[str] = ()
) -> pb.DeleteVolumeGroupSnapshotRequest:
    """DeleteVolumeGroupSnapshot."""
    return pb.DeleteVolumeGroupSnapshotRequest(
        group_snapshot_id=group_id, snapshot_ids=snapshot_ids
    )


def allocated(
    snapshot_id: str, start: int = 0, max_results: int = 0
) -> pb.GetMetadataAllocatedRequest:
    """GetMetadataAllocated."""
    return pb.GetMetadataAllocatedRequest(
        snapshot_id=snapshot_id, starting_offset=start, max_results=max_results
    )


def delta(
    base_id: str, target_id: str, start: int = 0, max_results: int = 0
) -> pb.GetMetadataDeltaRequest:
    """GetMetadataDelta."""
    return pb.GetMetadataDeltaRequest(
        base_snapshot_id=base_id,
        target_snapshot_id=target_id,
        starting_offset=start,
        max_results=max_results,
    )


def stage(
    volume_id: str,
    staging_path: Path | str,
    capability: pb.VolumeCapability | None = None,
    context: Mapping[str, str] | None = None,
) -> pb.NodeStageVolumeRequest:
    """NodeStageVolume."""
    return pb.NodeStageVolumeRequest(
        volume_id=volume_id,
        staging_target_path=str(staging_path),
        volume_capability=capability or filesystem(),
        volume_context=context,
    )


def unstage(volume_id: str, staging_path: Path | str) -> pb.NodeUnstageVolumeRequest:
    """NodeUnstageVolume."""
    return pb.NodeUnstageVolumeRequest(volume_id=volume_id, staging_target_path=str(staging_path))


def publish(
    volume_id: str,
    staging_path: Path | str,
    target_path: Path | str,
    capability: pb.VolumeCapability | None = None,
    *,
    read_only: bool = False,
    context: Mapping[str, str] | None = None,
) -> pb.NodePublishVolumeRequest:
    """NodePublishVolume."""
    return pb.NodePublishVolumeRequest(
        volume_id=volume_id,
        staging_target_path=str(staging_path),
        target_path=str(target_path),
        volume_capability=capability or filesystem(),
        readonly=read_only,
        volume_context=context,
    )


def unpublish(volume_id: str, target_path: Path | str) -> pb.NodeUnpublishVolumeRequest:
    """NodeUnpublishVolume."""
    return pb.NodeUnpublishVolumeRequest(volume_id=volume_id, target_path=str(target_path))


def stats(volume_id: str, volume_path: Path | str) -> pb.NodeGetVolumeStatsRequest:
    """NodeGetVolumeStats, without staging path, as the kubelet asks."""
    return pb.NodeGetVolumeStatsRequest(volume_id=volume_id, volume_path=str(volume_path))


def node_expand(
    volume_id: str,
    volume_path: Path | str,
    size: int = 0,
    capability: pb.VolumeCapability | None = None,
) -> pb.NodeExpandVolumeRequest:
    """NodeExpandVolume; without a size it means as large as the volume is."""
    return pb.NodeExpandVolumeRequest(
        volume_id=volume_id,
        volume_path=str(volume_path),
        capacity_range=size_range(size) if size else None,
        volume_capability=capability,
    )
