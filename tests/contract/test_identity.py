"""The Identity service, and that what is advertised is there."""

import grpc
import pytest

from csi import __version__
from csi.v1 import csi_pb2 as pb
from tests.contract.refusals import Code, refused
from tests.driver import Driver
from tests.kubelet import DRIVER_NAME

pytestmark = pytest.mark.kernel


def test_the_plugin_says_its_name_and_version(xfs_driver: Driver) -> None:
    answer = xfs_driver.identity.GetPluginInfo(pb.GetPluginInfoRequest())

    assert answer.name == DRIVER_NAME
    assert answer.vendor_version == __version__


def test_a_driver_that_runs_is_ready(xfs_driver: Driver) -> None:
    answer = xfs_driver.identity.Probe(pb.ProbeRequest())

    assert answer.HasField("ready")
    assert answer.ready.value is True


def test_the_plugin_offers_its_services_topology_and_online_growth(xfs_driver: Driver) -> None:
    answer = xfs_driver.identity.GetPluginCapabilities(pb.GetPluginCapabilitiesRequest())

    service, expansion = pb.PluginCapability.Service, pb.PluginCapability.VolumeExpansion
    assert {capability.service.type for capability in answer.capabilities} - {0} == {
        service.CONTROLLER_SERVICE,
        service.VOLUME_ACCESSIBILITY_CONSTRAINTS,
        service.GROUP_CONTROLLER_SERVICE,
        service.SNAPSHOT_METADATA_SERVICE,
    }
    assert {capability.volume_expansion.type for capability in answer.capabilities} - {0} == {
        expansion.ONLINE
    }


def test_the_controller_offers_all_that_it_does(xfs_driver: Driver) -> None:
    request = pb.ControllerGetCapabilitiesRequest()
    answer = xfs_driver.controller.ControllerGetCapabilities(request)

    rpc = pb.ControllerServiceCapability.RPC
    assert sorted(capability.rpc.type for capability in answer.capabilities) == sorted(
        [
            rpc.CREATE_DELETE_VOLUME,
            rpc.PUBLISH_UNPUBLISH_VOLUME,
            rpc.LIST_VOLUMES,
            rpc.GET_CAPACITY,
            rpc.CREATE_DELETE_SNAPSHOT,
            rpc.LIST_SNAPSHOTS,
            rpc.CLONE_VOLUME,
            rpc.PUBLISH_READONLY,
            rpc.EXPAND_VOLUME,
            rpc.LIST_VOLUMES_PUBLISHED_NODES,
            rpc.VOLUME_CONDITION,
            rpc.GET_VOLUME,
            rpc.SINGLE_NODE_MULTI_WRITER,
            rpc.GET_SNAPSHOT,
            rpc.MODIFY_VOLUME,
        ]
    )


def test_the_group_controller_offers_groups(xfs_driver: Driver) -> None:
    answer = xfs_driver.group.GroupControllerGetCapabilities(
        pb.GroupControllerGetCapabilitiesRequest()
    )

    rpc = pb.GroupControllerServiceCapability.RPC
    assert [capability.rpc.type for capability in answer.capabilities] == [
        rpc.CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT
    ]


def test_what_is_not_offered_is_not_served(xfs_driver: Driver) -> None:
    """A service, or a method of one, that the driver does not have."""
    for method in ("/csi.v1.SnapshotMetadata/Nothing", "/csi.v1.Controller/Nothing"):
        with refused(Code.UNIMPLEMENTED):
            send(xfs_driver, method, b"")


def test_bytes_that_are_no_message_are_refused(xfs_driver: Driver) -> None:
    with refused(Code.INVALID_ARGUMENT, "CreateVolumeRequest"):
        send(xfs_driver, "/csi.v1.Controller/CreateVolume", b"\xff\xff\xff")


def send(driver: Driver, method: str, data: bytes) -> None:
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = driver.channel.unary_unary(method)
    call(data)
