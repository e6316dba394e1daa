"""The part of the kubelet and the sidecars: the calls they make, in their order."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import grpc

from csi.v1 import csi_pb2 as pb
from demo.ground import NODE_ID, Services

GIB = 1 << 30
_MULTI = pb.VolumeCapability.AccessMode.SINGLE_NODE_MULTI_WRITER


def filesystem(fs_type: str) -> pb.VolumeCapability:
    """Returns the capability that a ReadWriteOnce claim of a filesystem asks for."""
    return pb.VolumeCapability(
        mount=pb.VolumeCapability.MountVolume(fs_type=fs_type),
        access_mode=pb.VolumeCapability.AccessMode(mode=_MULTI),
    )


def raw_block() -> pb.VolumeCapability:
    """Returns the capability that a claim with volumeMode Block asks for."""
    return pb.VolumeCapability(
        block=pb.VolumeCapability.BlockVolume(),
        access_mode=pb.VolumeCapability.AccessMode(mode=_MULTI),
    )


class Kubelet:
    """Makes the calls; paths are laid out below one folder."""

    def __init__(self, services: Services, folder: Path) -> None:
        self._services = services
        self._folder = folder
        self._volumes: dict[str, str] = {}
        self._targets: dict[Path, str] = {}
        self._snapshots: set[str] = set()

    def create(
        self,
        name: str,
        size_bytes: int,
        capability: pb.VolumeCapability,
        source: pb.VolumeContentSource | None = None,
    ) -> pb.Volume:
        """Creates a volume."""
        request = pb.CreateVolumeRequest(
            name=name,
            capacity_range=pb.CapacityRange(required_bytes=size_bytes),
            volume_capabilities=[capability],
            volume_content_source=source,
        )
        volume = self._services.controller.CreateVolume(request).volume
        self._volumes[volume.volume_id] = ""
        return volume

    def attach(self, volume_id: str, capability: pb.VolumeCapability) -> None:
        """Gives a volume to this node."""
        self._services.controller.ControllerPublishVolume(
            pb.ControllerPublishVolumeRequest(
                volume_id=volume_id, node_id=NODE_ID, volume_capability=capability
            )
        )

    def stage(self, name: str, volume_id: str, capability: pb.VolumeCapability) -> None:
        """Makes a volume ready on the node."""
        path = self._folder / name / "staging"
        path.mkdir(parents=True, exist_ok=True)
        self._volumes[volume_id] = name
        self._services.node.NodeStageVolume(
            pb.NodeStageVolumeRequest(
                volume_id=volume_id, staging_target_path=str(path), volume_capability=capability
            )
        )

    def publish(self, name: str, volume_id: str, capability: pb.VolumeCapability) -> Path:
        """Shows a volume to a pod; returns where."""
        target = self._folder / name / "target"
        self._targets[target] = volume_id
        self._services.node.NodePublishVolume(
            pb.NodePublishVolumeRequest(
                volume_id=volume_id,
                staging_target_path=str(self._folder / name / "staging"),
                target_path=str(target),
                volume_capability=capability,
            )
        )
        return target

    def start_pod(self, name: str, volume_id: str, capability: pb.VolumeCapability) -> Path:
        """Does all that brings a volume to a pod; returns where it is."""
        self.attach(volume_id, capability)
        self.stage(name, volume_id, capability)
        return self.publish(name, volume_id, capability)

    def publish_inline(self, name: str, volume_id: str, size: str) -> Path:
        """Makes and shows an inline ephemeral volume, as for a pod that names one."""
        target = self._folder / "pods" / "uid-1" / "volumes" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        self._targets[target] = volume_id
        self._services.node.NodePublishVolume(
            pb.NodePublishVolumeRequest(
                volume_id=volume_id,
                target_path=str(target),
                volume_capability=filesystem(""),
                volume_context={
                    "csi.storage.k8s.io/ephemeral": "true",
                    "csi.storage.k8s.io/pod.name": "web-0",
                    "csi.storage.k8s.io/pod.namespace": "default",
                    "csi.storage.k8s.io/pod.uid": "uid-1",
                    "size": size,
                },
            )
        )
        return target

    def unpublish(self, volume_id: str, target: Path) -> None:
        """Takes a volume away from a pod."""
        self._services.node.NodeUnpublishVolume(
            pb.NodeUnpublishVolumeRequest(volume_id=volume_id, target_path=str(target))
        )
        self._targets.pop(target, None)

    def stop_pod(self, name: str, volume_id: str) -> None:
        """Does all that takes a volume away from a pod and from the node."""
        self.unpublish(volume_id, self._folder / name / "target")
        path = self._folder / name / "staging"
        self._services.node.NodeUnstageVolume(
            pb.NodeUnstageVolumeRequest(volume_id=volume_id, staging_target_path=str(path))
        )
        os.rmdir(path)
        self._services.controller.ControllerUnpublishVolume(
            pb.ControllerUnpublishVolumeRequest(volume_id=volume_id, node_id=NODE_ID)
        )

    def delete(self, volume_id: str) -> None:
        """Deletes a volume."""
        self._services.controller.DeleteVolume(pb.DeleteVolumeRequest(volume_id=volume_id))
        self._volumes.pop(volume_id, None)

    def snapshot(self, name: str, volume_id: str) -> pb.Snapshot:
        """Takes a snapshot."""
        request = pb.CreateSnapshotRequest(name=name, source_volume_id=volume_id)
        snapshot = self._services.controller.CreateSnapshot(request).snapshot
        self._snapshots.add(snapshot.snapshot_id)
        return snapshot

    def delete_snapshot(self, snapshot_id: str) -> None:
        """Deletes a snapshot."""
        self._services.controller.DeleteSnapshot(pb.DeleteSnapshotRequest(snapshot_id=snapshot_id))
        self._snapshots.discard(snapshot_id)

    def clean_up(self) -> None:
        """Takes away whatever is still there, after a tour that ended early."""
        for target, volume_id in list(self._targets.items()):
            with contextlib.suppress(grpc.RpcError):
                self.unpublish(volume_id, target)
        for volume_id, name in list(self._volumes.items()):
            with contextlib.suppress(grpc.RpcError, OSError):
                self.stop_pod(name or volume_id, volume_id)
            with contextlib.suppress(grpc.RpcError):
                self.delete(volume_id)
        for snapshot_id in list(self._snapshots):
            with contextlib.suppress(grpc.RpcError):
                self.delete_snapshot(snapshot_id)

    def expand(
        self, name: str, volume_id: str, size_bytes: int, capability: pb.VolumeCapability
    ) -> None:
        """Grows a volume and what is in it, while it is in use."""
        wanted = pb.CapacityRange(required_bytes=size_bytes)
        self._services.controller.ControllerExpandVolume(
            pb.ControllerExpandVolumeRequest(
                volume_id=volume_id, capacity_range=wanted, volume_capability=capability
            )
        )
        self._services.node.NodeExpandVolume(
            pb.NodeExpandVolumeRequest(
                volume_id=volume_id,
                volume_path=str(self._folder / name / "target"),
                staging_target_path=str(self._folder / name / "staging"),
                capacity_range=wanted,
                volume_capability=capability,
            )
        )

    def stats(self, volume_id: str, path: Path) -> dict[int, pb.VolumeUsage]:
        """Returns how full a volume is, by unit."""
        answer = self._services.node.NodeGetVolumeStats(
            pb.NodeGetVolumeStatsRequest(volume_id=volume_id, volume_path=str(path))
        )
        return {usage.unit: usage for usage in answer.usage}

    def capacity(self) -> int:
        """Returns the bytes that one more volume could have."""
        answer = self._services.controller.GetCapacity(pb.GetCapacityRequest())
        return answer.available_capacity
