"""Requests that break the general rules of the specification, for every call there is."""

import grpc
import pytest

from csi.v1 import csi_pb2 as pb
from tests.contract import requests
from tests.contract.bench import Bench
from tests.contract.every_rpc import (
    RPCS,
    fields_of,
    is_map,
    nothing_changes,
    put,
    request_for,
    send,
)
from tests.contract.refusals import Code, as_call, refused
from tests.contract.requests import MIB, TIB, size_range

pytestmark = pytest.mark.kernel

STRING_BYTES, NODE_ID_BYTES, PATH_BYTES, MAP_BYTES = 128, 256, 4095, 4096
SECRET = "only-the-caller-knows-this"

REQUIRED = {
    "CreateVolume": ["name", "volume_capabilities"],
    "DeleteVolume": ["volume_id"],
    "ControllerPublishVolume": ["volume_id", "node_id", "volume_capability"],
    "ControllerUnpublishVolume": ["volume_id"],
    "ValidateVolumeCapabilities": ["volume_id", "volume_capabilities"],
    "CreateSnapshot": ["source_volume_id", "name"],
    "DeleteSnapshot": ["snapshot_id"],
    "GetSnapshot": ["snapshot_id"],
    "ControllerExpandVolume": ["volume_id", "capacity_range"],
    "ControllerGetVolume": ["volume_id"],
    "ControllerModifyVolume": ["volume_id"],
    "CreateVolumeGroupSnapshot": ["name", "source_volume_ids"],
    "DeleteVolumeGroupSnapshot": ["group_snapshot_id"],
    "GetVolumeGroupSnapshot": ["group_snapshot_id"],
    "GetMetadataAllocated": ["snapshot_id"],
    "GetMetadataDelta": ["base_snapshot_id", "target_snapshot_id"],
    "NodeStageVolume": ["volume_id", "staging_target_path", "volume_capability"],
    "NodeUnstageVolume": ["volume_id", "staging_target_path"],
    "NodePublishVolume": ["volume_id", "target_path", "volume_capability"],
    "NodeUnpublishVolume": ["volume_id", "target_path"],
    "NodeGetVolumeStats": ["volume_id", "volume_path"],
    "NodeExpandVolume": ["volume_id", "volume_path"],
}
WAYS = [(rpc, way) for rpc in RPCS for way in fields_of(request_for(rpc))]


def _limit(way: tuple[str, ...]) -> int:
    if way[-1] in ("target_path", "staging_target_path", "volume_path"):
        return PATH_BYTES
    if way[-1] == "mount_flags":
        return MAP_BYTES
    return NODE_ID_BYTES if way[-1] == "node_id" else STRING_BYTES


@pytest.mark.parametrize(
    ("rpc", "field"), [(rpc, field) for rpc, fields in REQUIRED.items() for field in fields]
)
def test_what_is_required_has_to_be_there(bench: Bench, rpc: str, field: str) -> None:
    request = request_for(rpc)
    request.ClearField(field)

    with nothing_changes(bench.pool), refused(Code.INVALID_ARGUMENT, field):
        send(bench.driver, rpc, request)


@pytest.mark.parametrize(("rpc", "way"), WAYS, ids=lambda part: str(part).replace("'", ""))
def test_what_is_longer_than_allowed_is_refused(
    bench: Bench, rpc: str, way: tuple[str, ...]
) -> None:
    """Whatever is over its limit is named; its value, a secret perhaps, is not repeated."""
    request = request_for(rpc)
    if is_map(request, way):
        put(request, way, {f"key-{number}": SECRET for number in range(1 + MAP_BYTES // 30)})
    else:
        prefix = "/" if _limit(way) == PATH_BYTES else ""
        put(request, way, prefix + SECRET + "x" * (_limit(way) + 1 - len(prefix + SECRET)))

    with nothing_changes(bench.pool), refused(Code.INVALID_ARGUMENT, way[-1]) as refusal:
        send(bench.driver, rpc, request)

    assert SECRET not in refusal.message


@pytest.mark.parametrize("rpc", ["CreateVolume", "CreateSnapshot", "CreateVolumeGroupSnapshot"])
@pytest.mark.parametrize("character", ["\0", "\x08", "\x0b", "\x1f", "\x7f", "\x9f"], ids=repr)
def test_names_hold_no_control_characters(bench: Bench, rpc: str, character: str) -> None:
    request = request_for(rpc)
    put(request, ("name",), f"before{character}after")

    with (
        nothing_changes(bench.pool),
        refused(Code.INVALID_ARGUMENT, "name", f"U+{ord(character):04X}"),
    ):
        send(bench.driver, rpc, request)


@pytest.mark.parametrize(
    ("rpc", "field"),
    [
        ("NodeStageVolume", "staging_target_path"),
        ("NodeUnstageVolume", "staging_target_path"),
        ("NodePublishVolume", "target_path"),
        ("NodePublishVolume", "staging_target_path"),
        ("NodeUnpublishVolume", "target_path"),
        ("NodeGetVolumeStats", "volume_path"),
        ("NodeExpandVolume", "volume_path"),
    ],
)
def test_paths_hold_no_nul(bench: Bench, rpc: str, field: str) -> None:
    request = request_for(rpc)
    put(request, (field,), "/tmp/\0/etc")

    with nothing_changes(bench.pool), refused(Code.INVALID_ARGUMENT, field, "NUL"):
        send(bench.driver, rpc, request)


@pytest.mark.parametrize("rpc", ["CreateVolume", "ControllerExpandVolume", "NodeExpandVolume"])
@pytest.mark.parametrize(
    ("required", "limit", "names"),
    [
        (-1, 0, ["required_bytes", "-1"]),
        (64 * MIB, -1, ["limit_bytes", "-1"]),
        (0, 0, ["capacity_range"]),
        (64 * MIB, 63 * MIB, ["limit_bytes", str(63 * MIB), str(64 * MIB)]),
    ],
)
def test_sizes_that_make_no_sense_are_refused(
    bench: Bench, rpc: str, required: int, limit: int, names: list[str]
) -> None:
    request = request_for(rpc)
    assert isinstance(
        request,
        pb.CreateVolumeRequest | pb.ControllerExpandVolumeRequest | pb.NodeExpandVolumeRequest,
    )
    request.capacity_range.CopyFrom(size_range(required, limit))
    request.capacity_range.SetInParent()

    with nothing_changes(bench.pool), refused(Code.INVALID_ARGUMENT, *names):
        send(bench.driver, rpc, request)


@pytest.mark.parametrize("size", [64 * TIB, (1 << 63) - 1])
def test_sizes_beyond_any_pool_are_out_of_range(bench: Bench, size: int) -> None:
    with nothing_changes(bench.pool), refused(Code.OUT_OF_RANGE, "bytes"):
        bench.create(size=size)

    volume_id = bench.create().volume_id
    with nothing_changes(bench.pool), refused(Code.OUT_OF_RANGE, "bytes"):
        bench.driver.controller.ControllerExpandVolume(requests.controller_expand(volume_id, size))


@pytest.mark.parametrize("rpc", ["ListVolumes", "ListSnapshots"])
def test_a_page_of_less_than_nothing_is_refused(bench: Bench, rpc: str) -> None:
    request = (
        requests.list_volumes(max_entries=-1)
        if rpc == "ListVolumes"
        else requests.list_snapshots(max_entries=-1)
    )

    with refused(Code.INVALID_ARGUMENT, "max_entries", "-1"):
        send(bench.driver, rpc, request)


@pytest.mark.parametrize("rpc", ["GetMetadataAllocated", "GetMetadataDelta"])
def test_a_message_of_less_than_nothing_is_refused(bench: Bench, rpc: str) -> None:
    request = request_for(rpc)
    assert isinstance(request, pb.GetMetadataAllocatedRequest | pb.GetMetadataDeltaRequest)
    request.max_results = -1

    with refused(Code.INVALID_ARGUMENT, "max_results", "-1"):
        send(bench.driver, rpc, request)


def _begins_with_string(rpc: str) -> bool:
    first = request_for(rpc).DESCRIPTOR.fields_by_number.get(1)
    return first is not None and first.type == first.TYPE_STRING


@pytest.mark.parametrize(
    ("rpc", "garbage"),
    [
        *((rpc, garbage) for rpc in RPCS for garbage in (b"\xff" * 40, b"\x0a\x7fcut off")),
        *((rpc, b"\x0a\x02\xff\xfe") for rpc in RPCS if _begins_with_string(rpc)),
    ],
    ids=repr,
)
def test_bytes_that_are_no_request_are_refused(bench: Bench, rpc: str, garbage: bytes) -> None:
    """Noise, a message that is cut off, and a string that is no UTF-8."""
    with nothing_changes(bench.pool), refused(Code.INVALID_ARGUMENT, "not a valid"):
        send(bench.driver, rpc, garbage)


def test_a_call_that_is_not_there_is_unimplemented(bench: Bench) -> None:
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = bench.driver.channel.unary_unary(
        "/csi.v1.Controller/NoSuchCall"
    )

    with pytest.raises(grpc.RpcError) as caught:
        call(b"")

    assert as_call(caught.value).code() is Code.UNIMPLEMENTED
