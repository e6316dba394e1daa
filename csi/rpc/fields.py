"""The parts that requests share: ids, capabilities and sizes, from the wire to the model."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.message import Message

from csi.errors import InvalidRequest, UnsupportedRequest
from csi.model import Access, AccessMode, Capability, SizeRange
from csi.v1 import csi_pb2

_MODES = {csi_pb2.VolumeCapability.AccessMode.Mode.Value(mode): mode for mode in AccessMode}


def required(message: Message, field: str) -> str:
    """Returns a string that has to be there.

    Raises:
        InvalidRequest: It is not.
    """
    value: str = getattr(message, field)
    if not value:
        raise InvalidRequest(f"{field} is missing")
    return value


def ids(values: Iterable[str], field: str) -> tuple[str, ...]:
    """Returns a list of ids.

    Raises:
        InvalidRequest: One of them is empty, or there twice.
    """
    found = tuple(values)
    if not all(found):
        raise InvalidRequest(f"{field} has an empty entry")
    if len(set(found)) != len(found):
        raise InvalidRequest(f"{field} names one of its entries twice")
    return found


def one_capability(message: Message, field: str = "volume_capability") -> Capability:
    """Returns the capability of a request that must have one.

    Raises:
        InvalidRequest: It is missing or incomplete.
    """
    if not message.HasField(field):
        raise InvalidRequest(f"{field} is missing")
    return capability(getattr(message, field), field)


def capabilities(
    messages: Iterable[csi_pb2.VolumeCapability], field: str = "volume_capabilities"
) -> tuple[Capability, ...]:
    """Returns a list of capabilities, which may be empty.

    Raises:
        InvalidRequest: One of them is incomplete.
    """
    return tuple(capability(message, f"{field}[{index}]") for index, message in enumerate(messages))


def capability(message: csi_pb2.VolumeCapability, where: str) -> Capability:
    """Returns a capability; whether it can be served is not judged here.

    Raises:
        InvalidRequest: It has no access type or no access mode that is known.
        UnsupportedRequest: It asks for a mount group.
    """
    kind = message.WhichOneof("access_type")
    if kind is None:
        raise InvalidRequest(f"{where} has no access type; it must be block or mount")
    mode = _MODES.get(message.access_mode.mode)
    if mode is None:
        raise InvalidRequest(f"{where}.access_mode.mode is missing or not known")
    if kind == "block":
        return Capability(access=Access.BLOCK, mode=mode)
    mount = message.mount
    if mount.volume_mount_group:
        raise UnsupportedRequest(
            f"{where}.mount.volume_mount_group is not supported; files get their group from the "
            "pod's fsGroup"
        )
    return Capability(
        access=Access.FILESYSTEM,
        mode=mode,
        fs_type=mount.fs_type,
        mount_flags=tuple(mount.mount_flags),
    )


def size_range(message: csi_pb2.CapacityRange) -> SizeRange:
    """Returns a range of sizes.

    Raises:
        InvalidRequest: It is empty, negative or ends before it begins.
    """
    required_bytes, limit_bytes = message.required_bytes, message.limit_bytes
    if required_bytes < 0:
        raise InvalidRequest(f"capacity_range.required_bytes is negative: {required_bytes}")
    if limit_bytes < 0:
        raise InvalidRequest(f"capacity_range.limit_bytes is negative: {limit_bytes}")
    if not required_bytes and not limit_bytes:
        raise InvalidRequest("capacity_range needs required_bytes or limit_bytes, or both")
    if limit_bytes and limit_bytes < required_bytes:
        raise InvalidRequest(
            f"capacity_range.limit_bytes ({limit_bytes}) is below required_bytes ({required_bytes})"
        )
    return SizeRange(required_bytes=required_bytes, limit_bytes=limit_bytes)


def page_limit(value: int, field: str = "max_entries") -> int:
    """Returns how many entries a page, or a message of a stream, may have; 0 is no limit.

    Raises:
        InvalidRequest: The number is negative.
    """
    if value < 0:
        raise InvalidRequest(f"{field} is negative: {value}")
    return value
