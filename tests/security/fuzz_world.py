"""What there is while requests are fuzzed: volumes of each kind, in use, with snapshots.

What a spoiled request makes is taken away after it, and what one takes away is made again.
"""

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message

from csi.v1 import csi_pb2 as pb
from csi.volumes.targets import is_mounted
from tests.contract import requests
from tests.contract.requests import (
    MIB,
    filesystem,
    on_node,
    raw_block,
    required_topology,
)
from tests.disks import release
from tests.kubelet import Kubelet
from tests.security.inside import Answer, Inside
from tests.security.mutations import REQUESTS

LARGEST_BYTES = 1 << 30
"""A volume that a spoiled request has grown further is made again, or the pool would be full."""

BLOCK, EXT4, _ANY = raw_block(), filesystem("ext4"), filesystem("")
VOLUMES: Mapping[str, tuple[pb.VolumeCapability, int, Mapping[str, str]]] = {
    "block": (BLOCK, 4 * MIB, {}),
    "used block": (BLOCK, 4 * MIB, {}),
    "used ext4": (EXT4, 64 * MIB, {}),
    "idle ext4": (EXT4, 64 * MIB, {}),
    "used directory": (_ANY, 16 * MIB, {"kind": "directory", "pool": "dirs"}),
}
GROUPED = ("block", "idle ext4")
INLINE = "csi-" + "5" * 64


class World:
    """The objects.

    Attributes:
        kubelet: The paths of the kubelet.
        volumes: The id of each volume, by its name in `VOLUMES`.
        paths: Staging path and target of those in use.
        snapshots: Ids of snapshots of the volume "block".
        ids: Everything that names something now, paths included.
    """

    def __init__(self, inside: Inside, folder: Path) -> None:
        self._inside = inside
        self._folder = folder
        self.kubelet = Kubelet(folder / "kubelet")
        self.volumes: dict[str, str] = {}
        self.paths: dict[str, tuple[str, str]] = {}
        self.snapshots: list[str] = []
        self._group = pb.VolumeGroupSnapshot()
        self.ids: list[str] = []
        self.mend()

    def creation(self, name: str) -> pb.CreateVolumeRequest:
        """The request that makes a volume, or finds it."""
        capability, size, parameters = VOLUMES[name]
        return requests.create_volume(
            f"v {name}",
            size=size,
            capabilities=[capability],
            parameters=parameters,
            topology=required_topology(on_node()),
        )

    def group_and_members(self) -> tuple[str, list[str]]:
        """The group snapshot, and its members."""
        members = [snapshot.snapshot_id for snapshot in self._group.snapshots]
        return self._group.group_snapshot_id, members

    # --- taking away what came of a spoiled one ----------------------------------------------

    def tidy(self, rpc: str, data: bytes, answer: Answer) -> None:
        """Undoes what a call that succeeded has done."""
        undo = getattr(self, f"_undo_{rpc}", None)
        if answer.code is grpc.StatusCode.OK and undo is not None:
            undo(REQUESTS[rpc].FromString(data), answer.data)

    def _undo_CreateVolume(self, _request: Message, data: bytes) -> None:
        volume_id = pb.CreateVolumeResponse.FromString(data).volume.volume_id
        if volume_id not in self.volumes.values():
            self._must("DeleteVolume", requests.delete_volume(volume_id))

    def _undo_CreateSnapshot(self, _request: Message, data: bytes) -> None:
        snapshot_id = pb.CreateSnapshotResponse.FromString(data).snapshot.snapshot_id
        if snapshot_id not in self.snapshots:
            self._must("DeleteSnapshot", requests.delete_snapshot(snapshot_id))

    def _undo_CreateVolumeGroupSnapshot(self, _request: Message, data: bytes) -> None:
        group = pb.CreateVolumeGroupSnapshotResponse.FromString(data).group_snapshot
        if group.group_snapshot_id != self._group.group_snapshot_id:
            members = [snapshot.snapshot_id for snapshot in group.snapshots]
            request = requests.delete_group(group.group_snapshot_id, members)
            self._must("DeleteVolumeGroupSnapshot", request)

    def _undo_ControllerPublishVolume(self, request: Any, _data: bytes) -> None:
        undo = requests.controller_unpublish(request.volume_id, "")
        self._must("ControllerUnpublishVolume", undo)

    def _undo_NodeStageVolume(self, request: Any, _data: bytes) -> None:
        known = (request.volume_id, request.staging_target_path)
        if known not in [(self.volumes[name], paths[0]) for name, paths in self.paths.items()]:
            self._must("NodeUnstageVolume", requests.unstage(*known))

    def _undo_NodePublishVolume(self, request: Any, _data: bytes) -> None:
        known = (request.volume_id, request.target_path)
        if known not in [(self.volumes[name], paths[1]) for name, paths in self.paths.items()]:
            self._take_away(requests.unpublish(*known))

    def _take_away(self, request: pb.NodeUnpublishVolumeRequest) -> None:
        """Unpublishes; a folder that had something in it before has to stay."""
        answer = self._call("NodeUnpublishVolume", request)
        stays = answer.code is grpc.StatusCode.FAILED_PRECONDITION
        unmounted = not is_mounted(request.target_path)
        assert answer.code is grpc.StatusCode.OK or (stays and unmounted), f"{request}: {answer}"

    def _undo_DeleteVolume(self, request: Any, _data: bytes) -> None:
        for name, volume_id in self.volumes.items():
            if volume_id == request.volume_id:
                self._mend_volume(name)

    def _undo_DeleteSnapshot(self, request: Any, _data: bytes) -> None:
        if request.snapshot_id in self.snapshots:
            self._mend_snapshots()

    def _undo_DeleteVolumeGroupSnapshot(self, request: Any, _data: bytes) -> None:
        if request.group_snapshot_id == self._group.group_snapshot_id:
            self._mend_group()

    def _undo_NodeUnstageVolume(self, request: Any, _data: bytes) -> None:
        for name in self.paths:
            if self.volumes[name] == request.volume_id:
                self._use(name)

    _undo_NodeUnpublishVolume = _undo_NodeUnstageVolume

    def _undo_ControllerExpandVolume(self, request: Any, data: bytes) -> None:
        if pb.ControllerExpandVolumeResponse.FromString(data).capacity_bytes <= LARGEST_BYTES:
            return
        for name, volume_id in self.volumes.items():
            if volume_id == request.volume_id:
                self._let_go(name)
                self._must("DeleteVolume", requests.delete_volume(volume_id))
                self._mend_volume(name)

    _undo_NodeExpandVolume = _undo_ControllerExpandVolume

    # --- making it again -------------------------------------------------------------------

    def mend(self) -> None:
        """Makes what is missing, and mounts what should be mounted."""
        for name in VOLUMES:
            self._make(name)
        self._mend_snapshots()
        self._mend_group()

    def _make(self, name: str) -> None:
        created = self._must("CreateVolume", self.creation(name))
        self.volumes[name] = pb.CreateVolumeResponse.FromString(created).volume.volume_id
        if name.startswith("used"):
            self._use(name)

    def _mend_volume(self, name: str) -> None:
        self._make(name)
        if name == "block":
            self._mend_snapshots()
        if name in GROUPED:
            self._mend_group()
        self._gather()

    def _mend_snapshots(self) -> None:
        self.snapshots = [self._snapshot(number) for number in range(2)]
        self._gather()

    def _mend_group(self) -> None:
        self._group = self._group_snapshot()
        self._gather()

    def _gather(self) -> None:
        self.ids = [
            *self.volumes.values(),
            *self.snapshots,
            *self.group_and_members()[1],
            self._group.group_snapshot_id,
            INLINE,
            *itertools.chain.from_iterable(self.paths.values()),
            str(self._folder / "canary"),
            str(self._folder / "canary" / "file"),
            str(self._folder / "link-to-canary"),
            str(self._folder / "link-to-canary" / "sub"),
            str(self._folder / "kubelet" / ".." / "canary"),
            str(self._folder / "kubelet" / "new"),
        ]

    def _snapshot(self, number: int) -> str:
        request = requests.create_snapshot(f"s{number}", self.volumes["block"])
        made = self._remade("CreateSnapshot", request, self._forget_snapshots)
        return pb.CreateSnapshotResponse.FromString(made).snapshot.snapshot_id

    def _group_snapshot(self) -> pb.VolumeGroupSnapshot:
        sources = [self.volumes[name] for name in GROUPED]
        request = requests.create_group("g", sources)
        made = self._remade("CreateVolumeGroupSnapshot", request, self._forget_group)
        return pb.CreateVolumeGroupSnapshotResponse.FromString(made).group_snapshot

    def _remade(self, rpc: str, request: Message, forget: Callable[[], None]) -> bytes:
        """Makes something whose name may still be that of one of a volume that is gone."""
        answer = self._call(rpc, request)
        if answer.code is grpc.StatusCode.ALREADY_EXISTS:
            forget()
            return self._must(rpc, request)
        assert answer.code is grpc.StatusCode.OK, f"{rpc} {request}: {answer}"
        return answer.data

    def _forget_snapshots(self) -> None:
        for snapshot_id in self.snapshots:
            self._must("DeleteSnapshot", requests.delete_snapshot(snapshot_id))

    def _forget_group(self) -> None:
        request = requests.delete_group(*self.group_and_members())
        self._must("DeleteVolumeGroupSnapshot", request)

    def _use(self, name: str) -> None:
        volume_id, capability = self.volumes[name], VOLUMES[name][0]
        if name not in self.paths:
            block = capability.HasField("block")
            staged = self.kubelet.block_staging_path if block else self.kubelet.staging_path
            target = self.kubelet.block_target_path if block else self.kubelet.target_path
            plain = name.replace(" ", "-")
            self.paths[name] = (str(staged(plain)), str(target(plain, f"pod-{plain}")))
        staging = requests.stage(volume_id, self.paths[name][0], capability)
        publication = requests.publish(volume_id, *self.paths[name], capability)
        for rpc, request in (("NodeStageVolume", staging), ("NodePublishVolume", publication)):
            if self._call(rpc, request).code is grpc.StatusCode.ALREADY_EXISTS:
                self._let_go(name)  # a spoilt request has put it there in another way
                self._must("NodeStageVolume", staging)
            self._must(rpc, request)

    def _let_go(self, name: str) -> None:
        if name in self.paths:
            staging, target = self.paths[name]
            self._must("NodeUnpublishVolume", requests.unpublish(self.volumes[name], target))
            self._must("NodeUnstageVolume", requests.unstage(self.volumes[name], staging))

    def start_over(self) -> None:
        """Unmounts everything by force and makes it again."""
        release(self._folder / "kubelet")
        self.mend()

    def close(self) -> None:
        """Takes everything away."""
        for name, volume_id in self.volumes.items():
            self._let_go(name)
            self._must("DeleteVolume", requests.delete_volume(volume_id))
        self._forget_group()
        self._forget_snapshots()

    def _must(self, rpc: str, request: Message) -> bytes:
        answer = self._call(rpc, request)
        assert answer.code is grpc.StatusCode.OK, f"{rpc} {request}: {answer}"
        return answer.data

    def _call(self, rpc: str, request: Message) -> Answer:
        return self._inside.call(rpc, request.SerializeToString())
