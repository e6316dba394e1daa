"""A CSI endpoint, seen by a client: its services, what it can do, and who serves it."""

from __future__ import annotations

import socket
import struct
from typing import Self

import grpc

from csi.v1 import csi_pb2 as pb
from csi.v1 import csi_pb2_grpc

_MESSAGE_BYTES = 256 << 20
_CALL_S = 600.0
_CONTROLLER = pb.ControllerServiceCapability.RPC
_NODE = pb.NodeServiceCapability.RPC


class Client:
    """The services behind one Unix socket.

    Attributes:
        name: The plugin's name and version.
        node_id: The node that it says it runs on.
        stages, attaches, snapshots, clones, lists: What it can do.
    """

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._channel = grpc.insecure_channel(
            endpoint,
            options=[
                ("grpc.max_receive_message_length", _MESSAGE_BYTES),
                ("grpc.use_local_subchannel_pool", 1),
                # A driver that was started again is found at once.
                ("grpc.initial_reconnect_backoff_ms", 50),
                ("grpc.min_reconnect_backoff_ms", 50),
                ("grpc.max_reconnect_backoff_ms", 200),
                ("grpc.enable_http_proxy", 0),
            ],
        )
        self.identity = csi_pb2_grpc.IdentityStub(self._channel)
        self.controller = csi_pb2_grpc.ControllerStub(self._channel)
        self.node = csi_pb2_grpc.NodeStub(self._channel)
        info = self.identity.GetPluginInfo(pb.GetPluginInfoRequest(), timeout=_CALL_S)
        self.name = f"{info.name} {info.vendor_version}"
        self.node_id = self.node.NodeGetInfo(pb.NodeGetInfoRequest()).node_id
        node = self.node.NodeGetCapabilities(pb.NodeGetCapabilitiesRequest()).capabilities
        controller = self.controller.ControllerGetCapabilities(
            pb.ControllerGetCapabilitiesRequest()
        ).capabilities
        can = {capability.rpc.type for capability in controller}
        self.stages = _NODE.STAGE_UNSTAGE_VOLUME in {one.rpc.type for one in node}
        self.attaches = _CONTROLLER.PUBLISH_UNPUBLISH_VOLUME in can
        self.snapshots = _CONTROLLER.CREATE_DELETE_SNAPSHOT in can
        self.clones = _CONTROLLER.CLONE_VOLUME in can
        self.lists = _CONTROLLER.LIST_VOLUMES in can

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def find_pid(self) -> int | None:
        """Returns the process that serves the socket, where the kernel knows it: unix(7)."""
        path = self.endpoint.removeprefix("unix:")
        path = path.removeprefix("//") if path.startswith("//") else path
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
            size = struct.calcsize("3i")
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        pid = int(struct.unpack("3i", credentials)[0])
        return pid or None

    def delete(self, volume_id: str) -> None:
        """Deletes a volume."""
        self.controller.DeleteVolume(pb.DeleteVolumeRequest(volume_id=volume_id), timeout=_CALL_S)

    def delete_snapshot(self, snapshot_id: str) -> None:
        """Deletes a snapshot."""
        self.controller.DeleteSnapshot(
            pb.DeleteSnapshotRequest(snapshot_id=snapshot_id), timeout=_CALL_S
        )


def resident_mib(pid: int) -> float:
    """Returns the memory that a process has in RAM: proc_pid_status(5)."""
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    raise ProcessLookupError(f"process {pid} has ended")


def in_words(error: grpc.RpcError) -> str:
    """Returns what a call was answered, short enough for a line."""
    return f"{error.code().name}: {error.details()}"[:200]
