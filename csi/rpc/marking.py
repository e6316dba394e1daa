"""The services of the role that leaves growth to the nodes.

external-resizer has no per-node mode: one of it serves the cluster, and no node could answer for
the volumes of all. It stands beside a driver that offers growth on the node and none in the
controller, so it marks what has to grow and the kubelet has it grown where it is. That driver has
no pool, mounts nothing and needs no privilege.

The kubelet changes no limits, so nobody can here. To change them is offered all the same: the
resizer would pass over a claim's new VolumeAttributesClass without a word, and so it says why.
"""

from __future__ import annotations

from csi.errors import UnsupportedRequest
from csi.rpc import requests, responses
from csi.rpc.verbs import Driver
from csi.v1 import csi_pb2

_CONTROLLER = csi_pb2.ControllerServiceCapability.RPC
_NODE = csi_pb2.NodeServiceCapability.RPC


class MarkingController:
    """Says why limits cannot be changed; what it does not have, gRPC answers as UNIMPLEMENTED."""

    def __init__(self, driver: Driver) -> None:
        del driver
        self._capabilities = responses.controller_capabilities((_CONTROLLER.MODIFY_VOLUME,))

    def controller_get_capabilities(
        self, _request: csi_pb2.ControllerGetCapabilitiesRequest
    ) -> csi_pb2.ControllerGetCapabilitiesResponse:
        """Answers ControllerGetCapabilities."""
        return self._capabilities

    def controller_modify_volume(
        self, request: csi_pb2.ControllerModifyVolumeRequest
    ) -> csi_pb2.ControllerModifyVolumeResponse:
        """Refuses ControllerModifyVolume, so that the claim gets an event.

        Raises:
            UnsupportedRequest: Always.
        """
        wanted = requests.controller_modify(request)
        raise UnsupportedRequest(
            f"the limits of volume {wanted.volume_id} cannot be changed here: the cluster's "
            "resizer reaches no node's driver. A claim keeps the VolumeAttributesClass that it is "
            "made with; only the overlay single-node-attach can change it"
        )


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
