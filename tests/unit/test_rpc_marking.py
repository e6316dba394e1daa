"""The role that leaves growth to the nodes, and cannot change limits."""

from pathlib import Path

import grpc
import pytest

from csi.rpc.server import Server
from csi.v1 import csi_pb2
from tests.unit.test_rpc_fake import CALL_TIMEOUT_S, FakeDriver, connected


def test_it_offers_to_change_limits_and_says_why_it_cannot(tmp_path: Path) -> None:
    driver, path = FakeDriver(), tmp_path / "csi.sock"
    server = Server(driver, str(path), only_marks_growth=True)
    server.start()
    try:
        with connected(path) as client:
            answer = client.controller.ControllerGetCapabilities(
                csi_pb2.ControllerGetCapabilitiesRequest()
            )
            offered = [one.rpc.type for one in answer.capabilities]
            # Without it, the resizer would pass over a claim's new class without an event.
            assert offered == [csi_pb2.ControllerServiceCapability.RPC.MODIFY_VOLUME]
            with pytest.raises(grpc.RpcError) as caught:
                client.controller.ControllerModifyVolume(
                    csi_pb2.ControllerModifyVolumeRequest(
                        volume_id="vol-1", mutable_parameters={"readIOPS": "100"}
                    )
                )
    finally:
        server.stop(CALL_TIMEOUT_S)
    # This code alone makes the resizer give up, and the claim free to go back.
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    message = caught.value.details() or ""
    assert "vol-1" in message
    assert "single-node-attach" in message
    assert driver.calls == []
