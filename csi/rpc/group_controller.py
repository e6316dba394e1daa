"""The GroupController service: snapshots of several volumes at one moment."""

from __future__ import annotations

from csi.rpc import requests, responses
from csi.rpc.verbs import Driver
from csi.v1 import csi_pb2


class GroupController:
    """The methods of the GroupController service."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        capability = csi_pb2.GroupControllerServiceCapability
        offered = capability.RPC(type=capability.RPC.CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT)
        self._capabilities = csi_pb2.GroupControllerGetCapabilitiesResponse(
            capabilities=[capability(rpc=offered)]
        )

    def group_controller_get_capabilities(
        self, _request: csi_pb2.GroupControllerGetCapabilitiesRequest
    ) -> csi_pb2.GroupControllerGetCapabilitiesResponse:
        """Answers GroupControllerGetCapabilities."""
        return self._capabilities

    def create_volume_group_snapshot(
        self, request: csi_pb2.CreateVolumeGroupSnapshotRequest
    ) -> csi_pb2.CreateVolumeGroupSnapshotResponse:
        """Answers CreateVolumeGroupSnapshot."""
        group = self._driver.groups.create(*requests.create_group(request))
        return csi_pb2.CreateVolumeGroupSnapshotResponse(
            group_snapshot=responses.group_snapshot(group)
        )

    def delete_volume_group_snapshot(
        self, request: csi_pb2.DeleteVolumeGroupSnapshotRequest
    ) -> csi_pb2.DeleteVolumeGroupSnapshotResponse:
        """Answers DeleteVolumeGroupSnapshot."""
        self._driver.groups.delete(*requests.delete_group(request))
        return csi_pb2.DeleteVolumeGroupSnapshotResponse()

    def get_volume_group_snapshot(
        self, request: csi_pb2.GetVolumeGroupSnapshotRequest
    ) -> csi_pb2.GetVolumeGroupSnapshotResponse:
        """Answers GetVolumeGroupSnapshot."""
        group = self._driver.groups.get(*requests.get_group(request))
        return csi_pb2.GetVolumeGroupSnapshotResponse(
            group_snapshot=responses.group_snapshot(group)
        )
