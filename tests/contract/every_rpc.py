"""Every call that a driver takes, with a request for each that is right in all but its ids."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import cast

import grpc
from google.protobuf.message import Message

from csi.v1 import csi_pb2 as pb
from tests.contract import requests
from tests.contract.node_fixtures import UNKNOWN_VOLUME
from tests.contract.requests import MIB, filesystem
from tests.driver import Driver

UNKNOWN_SNAPSHOT = UNKNOWN_VOLUME.replace("vol", "snap")
UNKNOWN_GROUP = UNKNOWN_VOLUME.replace("vol", "group")

_METHODS = {
    method.name: method
    for service in pb.DESCRIPTOR.services_by_name.values()
    if service.name in ("Controller", "GroupController", "SnapshotMetadata", "Node")
    for method in service.methods
}

_BUILDERS: Mapping[str, Callable[[], Message]] = {
    "CreateVolume": lambda: requests.create_volume("name"),
    "DeleteVolume": lambda: requests.delete_volume(UNKNOWN_VOLUME),
    "ControllerPublishVolume": lambda: requests.controller_publish(UNKNOWN_VOLUME),
    "ControllerUnpublishVolume": lambda: requests.controller_unpublish(UNKNOWN_VOLUME),
    "ValidateVolumeCapabilities": lambda: requests.validate(UNKNOWN_VOLUME),
    "ListVolumes": requests.list_volumes,
    "GetCapacity": requests.get_capacity,
    "ControllerGetCapabilities": pb.ControllerGetCapabilitiesRequest,
    "CreateSnapshot": lambda: requests.create_snapshot("name", UNKNOWN_VOLUME),
    "DeleteSnapshot": lambda: requests.delete_snapshot(UNKNOWN_SNAPSHOT),
    "ListSnapshots": requests.list_snapshots,
    "GetSnapshot": lambda: requests.get_snapshot(UNKNOWN_SNAPSHOT),
    "ControllerExpandVolume": lambda: requests.controller_expand(UNKNOWN_VOLUME, 128 * MIB),
    "ControllerGetVolume": lambda: requests.get_volume(UNKNOWN_VOLUME),
    "ControllerModifyVolume": lambda: pb.ControllerModifyVolumeRequest(volume_id=UNKNOWN_VOLUME),
    "GroupControllerGetCapabilities": pb.GroupControllerGetCapabilitiesRequest,
    "CreateVolumeGroupSnapshot": lambda: requests.create_group("name", [UNKNOWN_VOLUME]),
    "DeleteVolumeGroupSnapshot": lambda: requests.delete_group(UNKNOWN_GROUP),
    "GetVolumeGroupSnapshot": lambda: requests.get_group(UNKNOWN_GROUP),
    "GetMetadataAllocated": lambda: requests.allocated(UNKNOWN_SNAPSHOT),
    "GetMetadataDelta": lambda: requests.delta(UNKNOWN_SNAPSHOT, UNKNOWN_SNAPSHOT),
    "NodeStageVolume": lambda: requests.stage(UNKNOWN_VOLUME, "/nowhere/staging"),
    "NodeUnstageVolume": lambda: requests.unstage(UNKNOWN_VOLUME, "/nowhere/staging"),
    "NodePublishVolume": lambda: requests.publish(
        UNKNOWN_VOLUME, "/nowhere/staging", "/nowhere/target"
    ),
    "NodeUnpublishVolume": lambda: requests.unpublish(UNKNOWN_VOLUME, "/nowhere/target"),
    "NodeGetVolumeStats": lambda: requests.stats(UNKNOWN_VOLUME, "/nowhere/target"),
    "NodeExpandVolume": lambda: requests.node_expand(
        UNKNOWN_VOLUME, "/nowhere/target", 128 * MIB, filesystem()
    ),
    "NodeGetCapabilities": pb.NodeGetCapabilitiesRequest,
    "NodeGetInfo": pb.NodeGetInfoRequest,
}
RPCS = tuple(_BUILDERS)
assert set(RPCS) == set(_METHODS), set(RPCS) ^ set(_METHODS)


def request_for(rpc: str) -> Message:
    """A fresh request for a call; its ids are of objects that do not exist."""
    return _BUILDERS[rpc]()


def send(driver: Driver, rpc: str, request: Message | bytes) -> bytes:
    """Sends a request, or any bytes in its place, and returns the bytes of the answers."""
    data = request if isinstance(request, bytes) else request.SerializeToString()
    method = _METHODS[rpc]
    path = f"/{method.containing_service.full_name}/{rpc}"
    if method.server_streaming:
        stream: grpc.UnaryStreamMultiCallable[bytes, bytes] = driver.channel.unary_stream(path)
        return b"".join(stream(data, timeout=60))
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = driver.channel.unary_unary(path)
    return call(data, timeout=60)


def fields_of(message: Message, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The ways to all strings, lists of strings and maps that a fresh request may hold."""
    for field in message.DESCRIPTOR.fields:
        here = (*before, field.name)
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            yield from fields_of(_inside(message, field.name), here)
        elif field.message_type is not None or field.type == field.TYPE_STRING:
            yield here


def is_map(message: Message, way: tuple[str, ...]) -> bool:
    """Whether a way ends at a map."""
    holder = message
    for name in way[:-1]:
        holder = _inside(holder, name)
    return hasattr(getattr(holder, way[-1]), "update")


def put(message: Message, way: tuple[str, ...], value: str | Mapping[str, str]) -> None:
    """Puts a value where a way ends; to a list it is added."""
    holder = message
    for name in way[:-1]:
        holder = _inside(holder, name)
    held = getattr(holder, way[-1])
    if isinstance(value, Mapping):
        held.update(value)
    elif isinstance(held, str):
        setattr(holder, way[-1], value)
    else:
        held.append(value)


def _inside(message: Message, name: str) -> Message:
    """The message in a field; of a list the first, which is added where there is none."""
    inner = getattr(message, name)
    if hasattr(inner, "add"):
        inner = inner[0] if len(inner) else inner.add()
    return cast(Message, inner)


@contextlib.contextmanager
def nothing_changes(pool: Path) -> Iterator[None]:
    """Holds the body of a `with` to changing nothing in a pool."""
    before = _tree(pool)
    yield
    assert _tree(pool) == before


def _tree(pool: Path) -> dict[str, tuple[int, int]]:
    """All paths in a pool, with inode and size; what is being freed does not count."""
    return {
        str(path.relative_to(pool)): (path.lstat().st_ino, path.lstat().st_size)
        for folder in ("volumes", "snapshots", "groups", "building")
        for path in (pool / folder).rglob("*")
    }
