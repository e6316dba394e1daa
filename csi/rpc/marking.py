"""The services of the role that leaves growth to the nodes.

external-resizer has no per-node mode: one of it serves the cluster, and no node could answer for
the volumes of all. It stands beside a driver that offers growth on the node and none in the
controller, so it marks what has to grow and the kubelet has it grown where it is. That driver has
no pool, mounts nothing and needs no privilege.
"""

from __future__ import annotations

from csi.rpc import responses
from csi.rpc.verbs import Driver
from csi.v1 import csi_pb2

_NODE = csi_pb2.NodeServiceCapability.RPC


class MarkingController:
    """Offers nothing; what it does not have, gRPC answers as UNIMPLEMENTED."""

    def __init__(self, driver: Driver) -> None:
        del driver

    def controller_get_capabilities(
        self, _request: csi_pb2.ControllerGetCapabilitiesRequest
    ) -> csi_pb2.ControllerGetCapabilitiesResponse:
        """Answers ControllerGetCapabilities."""
        return csi_pb2.ControllerGetCapabilitiesResponse()


class MarkingNode:
    """Says that nodes grow their volumes."""

    def __init__(self, driver: Driver) -> None:
        del driver
        self._capabilities = responses.node_capabilities((_NODE.EXPAND_VOLUME,))

    def node_get_capabilities(
        self, _request: csi_pb2.NodeGetCapabilitiesRequest
    ) -> csi_pb2.NodeGetCapabilitiesResponse:
        """Answers NodeGetCapabilities."""
        return self._capabilities
