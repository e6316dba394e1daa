"""The Controller service: each method reads, calls one verb and writes the answer."""

from __future__ import annotations

from csi.answers import CapacityFigures
from csi.errors import UnsupportedRequest
from csi.model import Kind
from csi.rpc import requests, responses
from csi.rpc.verbs import Driver, check_capability
from csi.v1 import csi_pb2
from csi.volumes.capabilities import check_capabilities

PAGE_ENTRIES = 2000
"""Entries of a page at most, asked for or not: callers take messages of up to 4 MiB."""

_RPC = csi_pb2.ControllerServiceCapability.RPC
CAPABILITIES = (
    _RPC.CREATE_DELETE_VOLUME,
    _RPC.PUBLISH_UNPUBLISH_VOLUME,
    _RPC.LIST_VOLUMES,
    _RPC.LIST_VOLUMES_PUBLISHED_NODES,
    _RPC.GET_CAPACITY,
    _RPC.CREATE_DELETE_SNAPSHOT,
    _RPC.LIST_SNAPSHOTS,
    _RPC.GET_SNAPSHOT,
    _RPC.CLONE_VOLUME,
    _RPC.PUBLISH_READONLY,
    _RPC.EXPAND_VOLUME,
    _RPC.GET_VOLUME,
    _RPC.VOLUME_CONDITION,
    _RPC.SINGLE_NODE_MULTI_WRITER,
    _RPC.MODIFY_VOLUME,
)


class Controller:
    """The methods of the Controller service."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._capabilities = responses.controller_capabilities(CAPABILITIES)

    def controller_get_capabilities(
        self, _request: csi_pb2.ControllerGetCapabilitiesRequest
    ) -> csi_pb2.ControllerGetCapabilitiesResponse:
        """Answers ControllerGetCapabilities."""
        return self._capabilities

    # --- volumes ---------------------------------------------------------------------------

    def create_volume(self, request: csi_pb2.CreateVolumeRequest) -> csi_pb2.CreateVolumeResponse:
        """Answers CreateVolume."""
        volume = self._driver.lifecycle.create(requests.create_volume(request))
        return csi_pb2.CreateVolumeResponse(volume=responses.volume(volume, self._driver.topology))

    def delete_volume(self, request: csi_pb2.DeleteVolumeRequest) -> csi_pb2.DeleteVolumeResponse:
        """Answers DeleteVolume."""
        self._driver.lifecycle.delete(requests.delete_volume(request))
        return csi_pb2.DeleteVolumeResponse()

    def controller_publish_volume(
        self, request: csi_pb2.ControllerPublishVolumeRequest
    ) -> csi_pb2.ControllerPublishVolumeResponse:
        """Answers ControllerPublishVolume."""
        wanted = requests.controller_publish(request)
        self._driver.attachments.publish(
            wanted.volume_id, wanted.node_id, wanted.capability, read_only=wanted.read_only
        )
        return csi_pb2.ControllerPublishVolumeResponse()

    def controller_unpublish_volume(
        self, request: csi_pb2.ControllerUnpublishVolumeRequest
    ) -> csi_pb2.ControllerUnpublishVolumeResponse:
        """Answers ControllerUnpublishVolume."""
        self._driver.attachments.unpublish(*requests.controller_unpublish(request))
        return csi_pb2.ControllerUnpublishVolumeResponse()

    def validate_volume_capabilities(
        self, request: csi_pb2.ValidateVolumeCapabilitiesRequest
    ) -> csi_pb2.ValidateVolumeCapabilitiesResponse:
        """Answers ValidateVolumeCapabilities; "no" is an answer and no error."""
        question = requests.validate(request)
        volume = self._driver.lifecycle.get(question.volume_id)
        reason = question.refusal or self._driver.lifecycle.unconfirmed(
            question.volume_id, question.capabilities, question.parameters
        )
        # Callers add keys to the context: only our own are compared.
        for key, value in responses.volume_context(volume).items():
            if not reason and request.volume_context.get(key, value) != value:
                reason = f"volume_context has another {key} than the volume, which is {value}"
        if not reason and volume.limits.replace(**question.limits) != volume.limits:
            reason = "mutable_parameters has other limits than the volume"
        if reason:
            return csi_pb2.ValidateVolumeCapabilitiesResponse(message=responses.shortened(reason))
        return csi_pb2.ValidateVolumeCapabilitiesResponse(
            confirmed=csi_pb2.ValidateVolumeCapabilitiesResponse.Confirmed(
                volume_context=request.volume_context,
                volume_capabilities=request.volume_capabilities,
                parameters=request.parameters,
                mutable_parameters=request.mutable_parameters,
            )
        )

    def list_volumes(self, request: csi_pb2.ListVolumesRequest) -> csi_pb2.ListVolumesResponse:
        """Answers ListVolumes."""
        wanted = requests.list_volumes(request)
        topology = self._driver.topology
        page = self._driver.lifecycle.page(wanted.token, _page_size(wanted.limit))
        problems = self._driver.conditions.of(page.items)
        return csi_pb2.ListVolumesResponse(
            entries=responses.listed_volumes(page.items, problems, topology),
            next_token=page.next_token,
        )

    def controller_get_volume(
        self, request: csi_pb2.ControllerGetVolumeRequest
    ) -> csi_pb2.ControllerGetVolumeResponse:
        """Answers ControllerGetVolume."""
        volume = self._driver.lifecycle.get(requests.controller_get_volume(request))
        (problem,) = self._driver.conditions.of([volume])
        return responses.found_volume(volume, self._driver.topology, problem)

    def controller_expand_volume(
        self, request: csi_pb2.ControllerExpandVolumeRequest
    ) -> csi_pb2.ControllerExpandVolumeResponse:
        """Answers ControllerExpandVolume."""
        wanted = requests.controller_expand(request)
        check_capability(self._driver, wanted.volume_id, wanted.capability)
        volume = self._driver.lifecycle.expand(wanted.volume_id, wanted.size)
        return csi_pb2.ControllerExpandVolumeResponse(
            capacity_bytes=volume.size_bytes,
            # The limit of a directory is in force at once; what is in an image has to grow.
            node_expansion_required=volume.kind is Kind.IMAGE,
        )

    def controller_modify_volume(
        self, request: csi_pb2.ControllerModifyVolumeRequest
    ) -> csi_pb2.ControllerModifyVolumeResponse:
        """Answers ControllerModifyVolume."""
        self._driver.lifecycle.modify(*requests.controller_modify(request))
        return csi_pb2.ControllerModifyVolumeResponse()

    def get_capacity(self, request: csi_pb2.GetCapacityRequest) -> csi_pb2.GetCapacityResponse:
        """Answers GetCapacity; for what no volume can be used as, there is none."""
        wanted = requests.get_capacity(request)
        try:
            check_capabilities(wanted.capabilities, wanted.parameters.kind)
        except UnsupportedRequest:
            none = CapacityFigures(available_bytes=0, maximum_bytes=0, minimum_bytes=0)
            return responses.capacity(none)
        return responses.capacity(self._driver.capacity(wanted.parameters, wanted.segments))

    # --- snapshots -------------------------------------------------------------------------

    def create_snapshot(
        self, request: csi_pb2.CreateSnapshotRequest
    ) -> csi_pb2.CreateSnapshotResponse:
        """Answers CreateSnapshot."""
        snapshot = self._driver.snapshots.create(*requests.create_snapshot(request))
        return csi_pb2.CreateSnapshotResponse(snapshot=responses.snapshot(snapshot))

    def delete_snapshot(
        self, request: csi_pb2.DeleteSnapshotRequest
    ) -> csi_pb2.DeleteSnapshotResponse:
        """Answers DeleteSnapshot."""
        self._driver.snapshots.delete(requests.delete_snapshot(request))
        return csi_pb2.DeleteSnapshotResponse()

    def get_snapshot(self, request: csi_pb2.GetSnapshotRequest) -> csi_pb2.GetSnapshotResponse:
        """Answers GetSnapshot."""
        snapshot = self._driver.snapshots.get(requests.get_snapshot(request))
        return csi_pb2.GetSnapshotResponse(snapshot=responses.snapshot(snapshot))

    def list_snapshots(
        self, request: csi_pb2.ListSnapshotsRequest
    ) -> csi_pb2.ListSnapshotsResponse:
        """Answers ListSnapshots."""
        wanted = requests.list_snapshots(request)
        page = self._driver.snapshots.page(
            wanted.token,
            _page_size(wanted.limit),
            snapshot_id=wanted.snapshot_id,
            source_volume_id=wanted.source_volume_id,
        )
        return csi_pb2.ListSnapshotsResponse(
            entries=[
                csi_pb2.ListSnapshotsResponse.Entry(snapshot=responses.snapshot(snapshot))
                for snapshot in page.items
            ],
            next_token=page.next_token,
        )


def _page_size(limit: int) -> int:
    return min(limit or PAGE_ENTRIES, PAGE_ENTRIES)
