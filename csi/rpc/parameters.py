"""Settings that come as maps of strings: of classes, and of inline volumes.

A key that is not known is refused by name, or a misspelt one would go unnoticed for the life of
the volume. The exception are keys that the sidecars and the kubelet add, all of which begin with
`csi.storage.k8s.io/`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple, TypeVar

from csi.errors import InvalidRequest, UnsupportedRequest
from csi.model import Claim, InlineVolume, Kind, Parameters, SnapshotParameters
from csi.quantity import find_quantity, parse_size

KUBERNETES = "csi.storage.k8s.io/"
FS_TYPE = f"{KUBERNETES}fstype"
EPHEMERAL = f"{KUBERNETES}ephemeral"
FROZEN_COPY_MAX_S = 60.0

_VOLUME_KEYS = ("allocation", "enforceSize", "kind", "mkfsOptions", "pool", FS_TYPE)
_SNAPSHOT_KEYS = ("frozenCopySeconds",)
_INLINE_KEYS = ("class", "fsType", "size")


class _Limit(NamedTuple):
    """A limit that may be asked for: which field it is, and within which bounds."""

    field: str
    least: int
    most: int
    words: str


# Below the least a workload would seem to hang, and could not even be killed meanwhile. The kernel
# keeps operations in 32 bits; the most that a bandwidth may be is what a size may be.
_IOPS = (10, (1 << 32) - 1, "a number of operations a second from 10 to 4294967295")
_BANDWIDTH = (64 << 10, (1 << 63) - 1, "bytes a second such as 20Mi, at least 64Ki and at most 8Ei")
_LIMITS = {
    "readIOPS": _Limit("read_iops", *_IOPS),
    "writeIOPS": _Limit("write_iops", *_IOPS),
    "readBandwidth": _Limit("read_bandwidth_bytes", *_BANDWIDTH),
    "writeBandwidth": _Limit("write_bandwidth_bytes", *_BANDWIDTH),
}

_SECONDS = re.compile(r"\d{1,3}(\.\d{1,6})?", re.ASCII)

T = TypeVar("T")


def volume_parameters(given: Mapping[str, str]) -> Parameters:
    """Returns what the parameters of a StorageClass say.

    Raises:
        UnsupportedRequest: A key or a value is not known; the message lists those that are.
    """
    _refuse_unknown("parameter", given, _VOLUME_KEYS)
    kinds = {kind.value: kind for kind in Kind}
    return Parameters(
        kind=_choice(given, "kind", kinds, Kind.IMAGE),
        pool=given.get("pool", ""),
        fs_type=given.get(FS_TYPE, ""),
        enforce_size=_choice(given, "enforceSize", {"true": True, "false": False}, True),
        thick=_choice(given, "allocation", {"thin": False, "thick": True}, False),
        mkfs_options=" ".join(given.get("mkfsOptions", "").split()),
    )


def claim(given: Mapping[str, str]) -> Claim:
    """Returns the claim that the provisioner tells with `--extra-create-metadata`."""
    return Claim(
        namespace=given.get(f"{KUBERNETES}pvc/namespace", ""),
        name=given.get(f"{KUBERNETES}pvc/name", ""),
        volume=given.get(f"{KUBERNETES}pv/name", ""),
    )


def limit_changes(given: Mapping[str, str]) -> dict[str, int]:
    """Returns what the parameters of a VolumeAttributesClass change in the limits of a volume.

    Raises:
        UnsupportedRequest: A key or a value is not known.
    """
    _refuse_unknown("mutable parameter", given, _LIMITS)
    return {
        limit.field: _limit_value(key, given[key], limit)
        for key, limit in _LIMITS.items()
        if key in given
    }


def _limit_value(key: str, text: str, limit: _Limit) -> int:
    value = 0 if text == "max" else find_quantity(text)
    if value is None or (value != 0 and not limit.least <= value <= limit.most):
        raise UnsupportedRequest(
            f"mutable parameter {key} is {text[:64]!r}; it must be {limit.words}, or 0 or max for "
            "no limit"
        )
    return value


def snapshot_parameters(given: Mapping[str, str]) -> SnapshotParameters:
    """Returns what the parameters of a snapshot class say.

    Raises:
        UnsupportedRequest: A key is not known, or a value not allowed.
    """
    _refuse_unknown("parameter", given, _SNAPSHOT_KEYS)
    text = given.get("frozenCopySeconds")
    if text is None:
        return SnapshotParameters()
    seconds = float(text) if _SECONDS.fullmatch(text) else 0.0
    if not 0 < seconds <= FROZEN_COPY_MAX_S:
        raise UnsupportedRequest(
            f"parameter frozenCopySeconds is {text[:64]!r}; it must be a number above 0 and at "
            f"most {FROZEN_COPY_MAX_S:.0f}"
        )
    return SnapshotParameters(frozen_copy_s=seconds)


def inline_volume(context: Mapping[str, str]) -> InlineVolume | None:
    """Returns what a pod's author says of an inline volume; None for any other volume.

    Raises:
        InvalidRequest: A key or a value is not allowed, or the kubelet did not name the pod.
    """
    if context.get(EPHEMERAL) != "true":
        return None
    _refuse_unknown("volume attribute", context, _INLINE_KEYS)
    pod_uid = context.get(f"{KUBERNETES}pod.uid", "")
    if not pod_uid:
        raise InvalidRequest(
            f"volume_context has no {KUBERNETES}pod.uid, which an inline volume needs; the "
            "CSIDriver object must say podInfoOnMount: true"
        )
    size = context.get("size")
    return InlineVolume(
        pod_uid=pod_uid,
        claim=Claim(
            namespace=context.get(f"{KUBERNETES}pod.namespace", ""),
            name=context.get(f"{KUBERNETES}pod.name", ""),
        ),
        size_bytes=0 if size is None else parse_size(size, "volume attribute size"),
        fs_type=context.get("fsType", ""),
        class_name=context.get("class", ""),
    )


def _refuse_unknown(what: str, given: Iterable[str], known: Collection[str]) -> None:
    for key in given:
        if key not in known and not key.startswith(KUBERNETES):
            choice = ", ".join(known)
            raise UnsupportedRequest(f"{what} {key[:64]!r} is not known; known are {choice}")


def _choice(given: Mapping[str, str], key: str, choices: Mapping[str, T], default: T) -> T:
    text = given.get(key)
    if text is None:
        return default
    if text not in choices:
        raise UnsupportedRequest(
            f"parameter {key} is {text[:64]!r}; it must be {' or '.join(choices)}"
        )
    return choices[text]
