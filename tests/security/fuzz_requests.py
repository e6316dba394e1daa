"""Right requests for what there is while requests are fuzzed: what each spoiled one begins as."""

import random
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from google.protobuf.message import Message

from csi.v1 import csi_pb2 as pb
from tests.contract import requests
from tests.contract.requests import (
    MIB,
    UNKNOWN_GROUP,
    UNKNOWN_SNAPSHOT,
    UNKNOWN_VOLUME,
    on_node,
)
from tests.security.fuzz_world import BLOCK, EXT4, GROUPED, INLINE, VOLUMES, World

SECRET = "s3cr3t-of-the-caller"
DELETED = 0.25
T = TypeVar("T")
M = TypeVar("M", bound=Message)


class RightRequests:
    """Builds requests from one source of chance."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self._world = world
        self._rng = rng
        self._builders = self._all_builders()

    def draw_from(self, rng: random.Random) -> None:
        """Takes another source of chance."""
        self._rng = rng

    def request(self, rpc: str) -> Message:
        """Returns a right request for a call, with secrets where it may have some."""
        request = self._builders[rpc]()
        if "secrets" in request.DESCRIPTOR.fields_by_name:
            held: Any = request
            held.secrets["password"] = SECRET
        return request

    def _all_builders(self) -> Mapping[str, Callable[[], Message]]:
        volume, snapshot = self._volume, self._snapshot_id
        return {
            "GetPluginInfo": pb.GetPluginInfoRequest,
            "GetPluginCapabilities": pb.GetPluginCapabilitiesRequest,
            "Probe": pb.ProbeRequest,
            "CreateVolume": self._create_volume,
            "DeleteVolume": lambda: requests.delete_volume(self._rarely(volume, UNKNOWN_VOLUME)),
            "ControllerPublishVolume": lambda: requests.controller_publish(
                *self._volume_for_use(), read_only=False
            ),
            "ControllerUnpublishVolume": lambda: requests.controller_unpublish(volume()),
            "ValidateVolumeCapabilities": lambda: self._with_capabilities(
                lambda volume_id, capability: requests.validate(volume_id, [capability])
            ),
            "ListVolumes": lambda: requests.list_volumes(max_entries=self._rng.randrange(4)),
            "GetCapacity": lambda: requests.get_capacity(
                parameters={"pool": "dirs"}, topology=on_node(), capabilities=[EXT4]
            ),
            "ControllerGetCapabilities": pb.ControllerGetCapabilitiesRequest,
            "CreateSnapshot": lambda: requests.create_snapshot(
                f"s{self._rng.randrange(2)}",
                self._world.volumes["block"],
                {"frozenCopySeconds": "1"},
            ),
            "DeleteSnapshot": lambda: requests.delete_snapshot(
                self._rarely(snapshot, UNKNOWN_SNAPSHOT)
            ),
            "ListSnapshots": lambda: requests.list_snapshots(max_entries=self._rng.randrange(3)),
            "GetSnapshot": lambda: requests.get_snapshot(snapshot()),
            "ControllerExpandVolume": lambda: requests.controller_expand(volume(), 64 * MIB),
            "ControllerGetVolume": lambda: requests.get_volume(volume()),
            "ControllerModifyVolume": lambda: requests.modify(
                self._world.volumes["block"], {"readIOPS": "100"}
            ),
            "GroupControllerGetCapabilities": pb.GroupControllerGetCapabilitiesRequest,
            "CreateVolumeGroupSnapshot": lambda: requests.create_group(
                "g", [self._world.volumes[name] for name in GROUPED]
            ),
            "DeleteVolumeGroupSnapshot": lambda: requests.delete_group(
                *self._rarely(self._world.group_and_members, (UNKNOWN_GROUP, [UNKNOWN_SNAPSHOT]))
            ),
            "GetVolumeGroupSnapshot": lambda: requests.get_group(*self._world.group_and_members()),
            "GetMetadataAllocated": lambda: requests.allocated(snapshot(), 0, 5),
            "GetMetadataDelta": lambda: requests.delta(snapshot(), snapshot(), 0, 5),
            "NodeStageVolume": self._stage,
            "NodeUnstageVolume": lambda: requests.unstage(*self._used()[:2]),
            "NodePublishVolume": self._publish,
            "NodeUnpublishVolume": lambda: requests.unpublish(*self._used()[::2]),
            "NodeGetVolumeStats": lambda: requests.stats(*self._used()[::2]),
            "NodeExpandVolume": lambda: requests.node_expand(*self._used()[::2], 4 * MIB),
            "NodeGetCapabilities": pb.NodeGetCapabilitiesRequest,
            "NodeGetInfo": pb.NodeGetInfoRequest,
        }

    def _rarely(self, build: Callable[[], T], otherwise: T) -> T:
        """What is deleted has to be made again, which takes longer than all the rest."""
        return build() if self._rng.random() < DELETED else otherwise

    def _volume(self) -> str:
        return self._rng.choice(list(self._world.volumes.values()))

    def _snapshot_id(self) -> str:
        return self._rng.choice(self._world.snapshots)

    def _volume_for_use(self) -> tuple[str, pb.VolumeCapability]:
        name = self._rng.choice(list(self._world.volumes))
        return self._world.volumes[name], VOLUMES[name][0]

    def _with_capabilities(self, build: Callable[[str, pb.VolumeCapability], M]) -> M:
        return build(*self._volume_for_use())

    def _create_volume(self) -> pb.CreateVolumeRequest:
        name = self._rng.choice(("block", "block", "block", "idle ext4", "used directory"))
        request = self._world.creation(name)
        if self._rng.random() < 0.2:
            request.volume_content_source.snapshot.snapshot_id = self._rng.choice(
                self._world.snapshots
            )
            request.name = "restored"
            request.ClearField("volume_capabilities")
            request.volume_capabilities.append(BLOCK)
        return request

    def _used(self) -> tuple[str, str, str]:
        name = self._rng.choice(list(self._world.paths))
        return self._world.volumes[name], *self._world.paths[name]

    def _stage(self) -> pb.NodeStageVolumeRequest:
        name = self._rng.choice(list(self._world.paths))
        return requests.stage(
            self._world.volumes[name], self._world.paths[name][0], VOLUMES[name][0]
        )

    def _publish(self) -> pb.NodePublishVolumeRequest:
        if self._rng.random() < 0.1:
            return self._publish_inline()
        name = self._rng.choice(list(self._world.paths))
        return requests.publish(
            self._world.volumes[name], *self._world.paths[name], VOLUMES[name][0]
        )

    def _publish_inline(self) -> pb.NodePublishVolumeRequest:
        target = self._world.kubelet.target_path("inline", "uid")
        context = {
            "csi.storage.k8s.io/ephemeral": "true",
            "csi.storage.k8s.io/pod.uid": "uid",
            "size": "64Mi",
        }
        request = requests.publish(INLINE, "", target, EXT4)
        request.volume_context.update(context)
        return request
