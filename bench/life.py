"""The life of one volume, call by call, as sidecars and kubelet make them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, Self

import grpc

from bench.client import Client
from csi.v1 import csi_pb2 as pb

MIB = 1 << 20
_TIMEOUT_S, _UNDO_S = 600.0, 10.0
Step = tuple[str, Callable[[], None]]
"""A call and what it is called."""

_MODE = pb.VolumeCapability.AccessMode.SINGLE_NODE_WRITER


class Kind(NamedTuple):
    """A kind of volume, as a StorageClass and a claim ask for it."""

    name: str
    size_bytes: int
    fs_type: str = ""
    block: bool = False
    parameters: Mapping[str, str] = {}

    def capability(self) -> pb.VolumeCapability:
        """Returns what a claim of this kind asks for."""
        mode = pb.VolumeCapability.AccessMode(mode=_MODE)
        if self.block:
            return pb.VolumeCapability(block=pb.VolumeCapability.BlockVolume(), access_mode=mode)
        mount = pb.VolumeCapability.MountVolume(fs_type=self.fs_type)
        return pb.VolumeCapability(mount=mount, access_mode=mode)


class Life:
    """One volume; each method is one call."""

    def __init__(self, client: Client, kind: Kind, name: str, folder: Path) -> None:
        self._client = client
        self._kind = kind
        self._name = name
        self._capability = kind.capability()
        self._folder = folder / name
        self._staging = self._folder / "staging"
        self.target = self._folder / "target"
        self._context: Mapping[str, str] = {}
        self._published: Mapping[str, str] = {}
        self.volume_id = ""

    def beginning(self, *, attach: bool) -> list[Step]:
        """Returns the calls that bring a volume to a pod, by name."""
        steps: list[Step] = [("create", self.create)]
        steps += [("attach", self.attach)] if attach and self._client.attaches else []
        steps += [("stage", self.stage)] if self._client.stages else []
        return [*steps, ("publish", self.publish)]

    def end(self, *, attach: bool) -> list[Step]:
        """Returns the calls that end it."""
        steps: list[Step] = [("unpublish", self.unpublish)]
        steps += [("unstage", self.unstage)] if self._client.stages else []
        steps += [("detach", self.detach)] if attach and self._client.attaches else []
        return [*steps, ("delete", self.delete)]

    def undo(self) -> None:
        """Ends it whatever state it is in; what fails is tried again for a while."""
        deadline = time.monotonic() + _UNDO_S
        for _, call in self.end(attach=True) if self.volume_id else ():
            while True:
                try:
                    call()
                    break
                except grpc.RpcError:
                    if time.monotonic() > deadline:
                        break
                    time.sleep(0.1)

    def create(self, source: pb.VolumeContentSource | None = None) -> None:
        """Makes the volume, or finds it again."""
        request = pb.CreateVolumeRequest(
            name=self._name,
            capacity_range=pb.CapacityRange(required_bytes=self._kind.size_bytes),
            volume_capabilities=[self._capability],
            parameters=self._kind.parameters,
            volume_content_source=source,
        )
        volume = self._client.controller.CreateVolume(request, timeout=_TIMEOUT_S).volume
        self.volume_id, self._context = volume.volume_id, dict(volume.volume_context)

    def attach(self) -> None:
        """Gives the volume to the node."""
        answer = self._client.controller.ControllerPublishVolume(
            pb.ControllerPublishVolumeRequest(
                volume_id=self.volume_id,
                node_id=self._client.node_id,
                volume_capability=self._capability,
                volume_context=self._context,
            ),
            timeout=_TIMEOUT_S,
        )
        self._published = dict(answer.publish_context)

    def stage(self) -> None:
        """Makes the volume ready on the node."""
        self._client.node.NodeStageVolume(
            pb.NodeStageVolumeRequest(
                volume_id=self.volume_id,
                staging_target_path=str(self._staging),
                volume_capability=self._capability,
                volume_context=self._context,
                publish_context=self._published,
            ),
            timeout=_TIMEOUT_S,
        )

    def publish(self) -> None:
        """Shows the volume to a pod."""
        self._client.node.NodePublishVolume(
            pb.NodePublishVolumeRequest(
                volume_id=self.volume_id,
                staging_target_path=str(self._staging) if self._client.stages else "",
                target_path=str(self.target),
                volume_capability=self._capability,
                volume_context=self._context,
                publish_context=self._published,
            ),
            timeout=_TIMEOUT_S,
        )

    def unpublish(self) -> None:
        """Takes the volume away from the pod."""
        self._client.node.NodeUnpublishVolume(
            pb.NodeUnpublishVolumeRequest(volume_id=self.volume_id, target_path=str(self.target)),
            timeout=_TIMEOUT_S,
        )

    def unstage(self) -> None:
        """Takes the volume away from the node."""
        self._client.node.NodeUnstageVolume(
            pb.NodeUnstageVolumeRequest(
                volume_id=self.volume_id, staging_target_path=str(self._staging)
            ),
            timeout=_TIMEOUT_S,
        )

    def detach(self) -> None:
        """Takes back what `attach` gave."""
        self._client.controller.ControllerUnpublishVolume(
            pb.ControllerUnpublishVolumeRequest(
                volume_id=self.volume_id, node_id=self._client.node_id
            ),
            timeout=_TIMEOUT_S,
        )

    def delete(self) -> None:
        """Deletes the volume."""
        self._client.delete(self.volume_id)

    def __enter__(self) -> Self:
        """Makes the folders that the kubelet makes."""
        self._staging.mkdir(parents=True)
        return self

    def __exit__(self, *_: object) -> None:
        """Removes the empty folders; never what may still be mounted."""
        for folder in (self.target, self._staging, self._folder):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
