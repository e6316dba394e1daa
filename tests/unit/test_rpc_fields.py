"""Sizes and capabilities, wherever in a request they are."""

from __future__ import annotations

from typing import Any, cast

import pytest

from csi.errors import InvalidRequest, UnsupportedRequest
from csi.model import AccessMode, SizeRange
from csi.v1 import csi_pb2
from tests.unit.test_rpc_fake import block_capability, mount_capability
from tests.unit.test_rpc_requests import Change, read

MODE = csi_pb2.VolumeCapability.AccessMode


def set_range(required_bytes: int, limit_bytes: int) -> Change:
    def change(message: csi_pb2.CreateVolumeRequest) -> None:
        message.capacity_range.required_bytes = required_bytes
        message.capacity_range.limit_bytes = limit_bytes

    return change


@pytest.mark.parametrize("name", ["create", "expand", "expand node"])
@pytest.mark.parametrize(
    ("required_bytes", "limit_bytes", "match"),
    [
        (0, 0, "capacity_range needs required_bytes or limit_bytes"),
        (-1, 0, r"capacity_range\.required_bytes is negative: -1"),
        (0, -1, r"capacity_range\.limit_bytes is negative: -1"),
        (-1, -1, r"capacity_range\.required_bytes is negative"),
        (2, 1, r"capacity_range\.limit_bytes \(1\) is below required_bytes \(2\)"),
        (-(1 << 63), 1, "negative"),
    ],
)
def test_sizes_that_contradict(
    name: str, required_bytes: int, limit_bytes: int, match: str
) -> None:
    with pytest.raises(InvalidRequest, match=match):
        read(name, set_range(required_bytes, limit_bytes))


@pytest.mark.parametrize(("required_bytes", "limit_bytes"), [(1, 0), (0, 1), (1, 1), (1, 2)])
def test_sizes_that_do_not(required_bytes: int, limit_bytes: int) -> None:
    asked = cast("Any", read("create", set_range(required_bytes, limit_bytes)))
    assert asked.size == SizeRange(required_bytes=required_bytes, limit_bytes=limit_bytes)


# Requests with one capability, and those with a list of them.
SINGLE = ["attach", "stage", "publish", "expand", "expand node"]
LISTS = ["create", "validate", "capacity"]


def put_capability(
    message: csi_pb2.CreateVolumeRequest | csi_pb2.NodeStageVolumeRequest,
    capability: csi_pb2.VolumeCapability,
) -> None:
    if hasattr(message, "volume_capabilities"):
        del message.volume_capabilities[:]
        message.volume_capabilities.append(capability)
    else:
        message.volume_capability.CopyFrom(capability)


@pytest.mark.parametrize("name", SINGLE + LISTS)
@pytest.mark.parametrize(
    ("capability", "match"),
    [
        (csi_pb2.VolumeCapability(access_mode=MODE(mode=MODE.SINGLE_NODE_WRITER)), "access type"),
        (
            csi_pb2.VolumeCapability(block=csi_pb2.VolumeCapability.BlockVolume()),
            r"access_mode\.mode",
        ),
        (
            csi_pb2.VolumeCapability(
                mount=csi_pb2.VolumeCapability.MountVolume(), access_mode=MODE(mode=MODE.UNKNOWN)
            ),
            r"access_mode\.mode",
        ),
        (
            csi_pb2.VolumeCapability.FromString(
                csi_pb2.VolumeCapability(
                    mount=csi_pb2.VolumeCapability.MountVolume()
                ).SerializeToString()
                + b"\x1a\x02\x08\x63"  # access_mode { mode: 99 }
            ),
            r"access_mode\.mode",
        ),
    ],
)
def test_incomplete_capabilities(
    name: str, capability: csi_pb2.VolumeCapability, match: str
) -> None:
    field = r"^volume_capabilities\[0\]" if name in LISTS else "^volume_capability"
    with pytest.raises(InvalidRequest, match=f"{field}.*{match}"):
        read(name, lambda message: put_capability(message, capability))


@pytest.mark.parametrize("name", [*SINGLE, "create", "capacity"])
def test_a_mount_group_is_refused(name: str) -> None:
    capability = mount_capability(volume_mount_group="7")
    with pytest.raises(UnsupportedRequest, match="volume_mount_group is not supported"):
        read(name, lambda message: put_capability(message, capability))


@pytest.mark.parametrize("mode", AccessMode)
def test_every_access_mode_is_passed_on(mode: AccessMode) -> None:
    capability = block_capability()
    capability.access_mode.mode = MODE.Mode.Value(mode)
    asked = cast("Any", read("attach", lambda message: put_capability(message, capability)))
    assert asked.capability.mode is mode
