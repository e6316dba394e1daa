"""Whether a volume that exists is the one that is asked for, and whether this node is.

A repeated CreateVolume has to find what the first one made, and another request of the same name
has to be told what differs.
"""

from __future__ import annotations

from collections.abc import Mapping

from csi.errors import AlreadyExists, NoRoom
from csi.model import Volume, VolumeRequest
from csi.volumes import capabilities
from csi.volumes.pools import Found


def check_same(found: Found[Volume], request: VolumeRequest, topology: Mapping[str, str]) -> None:
    """Checks that an existing volume is what is asked for.

    Args:
        found: The volume of that name.
        request: What is asked for.
        topology: This node's.

    Raises:
        AlreadyExists: It is not; the message says what differs.
    """
    volume = found.record
    differs = _difference(volume, request)
    named = request.parameters.pool
    if not differs and named and named != found.depot.pool.name:
        differs = f"it is in pool {found.depot.pool.name!r}, not {named!r}"
    if not differs and not _serves(request, topology):
        differs = "it is on this node, which is not in the topology asked for"
    if differs:
        raise AlreadyExists(f"volume {request.name!r} exists and does not match: {differs}")
    if (volume.ephemeral is None) != (request.ephemeral is None):
        raise AlreadyExists(f"volume {request.name!r} exists as another sort of volume")


def check_topology(request: VolumeRequest, topology: Mapping[str, str]) -> None:
    """Checks that a volume may be made on this node.

    Raises:
        NoRoom: It was asked for elsewhere.
    """
    if not _serves(request, topology):
        raise NoRoom(
            f"the volume was asked for in another topology than this node's ({_in_words(topology)})"
        )


def matches(segments: Mapping[str, str], topology: Mapping[str, str]) -> bool:
    """Whether a topology term names this node; keys compare without regard to case."""
    ours = {key.lower(): value for key, value in topology.items()}
    return all(ours.get(key.lower()) == value for key, value in segments.items())


def _serves(request: VolumeRequest, topology: Mapping[str, str]) -> bool:
    return not request.requisite or any(
        matches(segments, topology) for segments in request.requisite
    )


def _difference(volume: Volume, request: VolumeRequest) -> str:
    """Returns how an existing volume differs from what is asked, or nothing."""
    size = request.size
    if volume.source != request.source:
        return "it was made from another source"
    asked, was = request.parameters, volume.parameters
    if asked.replace(pool="") != was.replace(pool=""):
        return "its parameters are others"
    if volume.limits.replace(**request.limits) != volume.limits:
        return "its mutable parameters are others"
    if volume.size_bytes < size.required_bytes:
        return f"it has {volume.size_bytes} bytes, fewer than asked"
    if size.limit_bytes and volume.size_bytes > size.limit_bytes:
        return f"it has {volume.size_bytes} bytes, more than allowed"
    return capabilities.reason_against(volume, request.capabilities)


def _in_words(topology: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in topology.items())
