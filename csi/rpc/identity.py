"""The Identity service: who the driver is, what it offers, and whether it can work."""

from __future__ import annotations

from google.protobuf.wrappers_pb2 import BoolValue

from csi import __version__
from csi.errors import NotNow, Unavailable
from csi.rpc.verbs import Driver
from csi.v1 import csi_pb2


class Identity:
    """The methods of the Identity service."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        service, expansion = (
            csi_pb2.PluginCapability.Service,
            csi_pb2.PluginCapability.VolumeExpansion,
        )
        offered = [
            csi_pb2.PluginCapability(service=service(type=type_))
            for type_ in (
                service.CONTROLLER_SERVICE,
                service.VOLUME_ACCESSIBILITY_CONSTRAINTS,
                service.GROUP_CONTROLLER_SERVICE,
                service.SNAPSHOT_METADATA_SERVICE,
            )
        ]
        online = csi_pb2.PluginCapability(volume_expansion=expansion(type=expansion.ONLINE))
        self._capabilities = csi_pb2.GetPluginCapabilitiesResponse(capabilities=[*offered, online])
        self._ready = csi_pb2.ProbeResponse(ready=BoolValue(value=True))
        self._starting = csi_pb2.ProbeResponse(ready=BoolValue(value=False))

    def get_plugin_info(
        self, _request: csi_pb2.GetPluginInfoRequest
    ) -> csi_pb2.GetPluginInfoResponse:
        """Answers GetPluginInfo."""
        return csi_pb2.GetPluginInfoResponse(name=self._driver.name, vendor_version=__version__)

    def get_plugin_capabilities(
        self, _request: csi_pb2.GetPluginCapabilitiesRequest
    ) -> csi_pb2.GetPluginCapabilitiesResponse:
        """Answers GetPluginCapabilities."""
        return self._capabilities

    def probe(self, _request: csi_pb2.ProbeRequest) -> csi_pb2.ProbeResponse:
        """Answers Probe.

        Sidecars wait while ready is false and exit on any error. So starting up is no error, but
        a start that cannot succeed is one.

        Raises:
            NotNow: The driver cannot work; the liveness probe may restart it.
        """
        try:
            self._driver.check()
        except Unavailable as error:
            raise NotNow(f"the driver is not healthy: {error}") from error
        return self._ready if self._driver.is_ready() else self._starting
