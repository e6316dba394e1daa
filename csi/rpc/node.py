"""The Node service: volumes of this node, brought to workloads and taken away again."""

from __future__ import annotations

from csi.rpc import node_requests, responses
from csi.rpc.verbs import Driver, check_capability
from csi.v1 import csi_pb2

_RPC = csi_pb2.NodeServiceCapability.RPC
CAPABILITIES = (
    _RPC.STAGE_UNSTAGE_VOLUME,
    _RPC.GET_VOLUME_STATS,
    _RPC.EXPAND_VOLUME,
    _RPC.VOLUME_CONDITION,
    _RPC.SINGLE_NODE_MULTI_WRITER,
)


class Node:
    """The methods of the Node service."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._capabilities = responses.node_capabilities(CAPABILITIES)

    def node_get_capabilities(
        self, _request: csi_pb2.NodeGetCapabilitiesRequest
    ) -> csi_pb2.NodeGetCapabilitiesResponse:
        """Answers NodeGetCapabilities."""
        return self._capabilities

    def node_get_info(self, _request: csi_pb2.NodeGetInfoRequest) -> csi_pb2.NodeGetInfoResponse:
        """Answers NodeGetInfo."""
        return csi_pb2.NodeGetInfoResponse(
            node_id=self._driver.node_id,
            max_volumes_per_node=self._driver.max_volumes,
            accessible_topology=csi_pb2.Topology(segments=self._driver.topology),
        )

    def node_stage_volume(
        self, request: csi_pb2.NodeStageVolumeRequest
    ) -> csi_pb2.NodeStageVolumeResponse:
        """Answers NodeStageVolume."""
        self._driver.mounts.stage(*node_requests.stage(request))
        return csi_pb2.NodeStageVolumeResponse()

    def node_unstage_volume(
        self, request: csi_pb2.NodeUnstageVolumeRequest
    ) -> csi_pb2.NodeUnstageVolumeResponse:
        """Answers NodeUnstageVolume."""
        self._driver.mounts.unstage(*node_requests.unstage(request))
        return csi_pb2.NodeUnstageVolumeResponse()

    def node_publish_volume(
        self, request: csi_pb2.NodePublishVolumeRequest
    ) -> csi_pb2.NodePublishVolumeResponse:
        """Answers NodePublishVolume."""
        self._driver.mounts.publish(node_requests.publish(request))
        return csi_pb2.NodePublishVolumeResponse()

    def node_unpublish_volume(
        self, request: csi_pb2.NodeUnpublishVolumeRequest
    ) -> csi_pb2.NodeUnpublishVolumeResponse:
        """Answers NodeUnpublishVolume."""
        self._driver.mounts.unpublish(*node_requests.unpublish(request))
        return csi_pb2.NodeUnpublishVolumeResponse()

    def node_get_volume_stats(
        self, request: csi_pb2.NodeGetVolumeStatsRequest
    ) -> csi_pb2.NodeGetVolumeStatsResponse:
        """Answers NodeGetVolumeStats."""
        return responses.stats(self._driver.mounts.stats(*node_requests.stats(request)))

    def node_expand_volume(
        self, request: csi_pb2.NodeExpandVolumeRequest
    ) -> csi_pb2.NodeExpandVolumeResponse:
        """Answers NodeExpandVolume."""
        wanted = node_requests.expand(request)
        check_capability(self._driver, wanted.volume_id, wanted.capability)
        size_bytes = self._driver.mounts.expand(wanted.volume_id, wanted.path, wanted.size)
        return csi_pb2.NodeExpandVolumeResponse(capacity_bytes=size_bytes)
