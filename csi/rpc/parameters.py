"""Settings that come as maps of strings: of classes, and of inline volumes.

A key that is not known is refused by name, or a misspelt one would go unnoticed for the life of
the volume. The exception are keys that the sidecars and the kubelet add, all of which begin with
`csi.storage.k8s.io/`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

from csi.errors import InvalidRequest, UnsupportedRequest
from csi.model import Claim, InlineVolume, Kind, Parameters, SnapshotParameters
from csi.quantity import parse_size

KUBERNETES = "csi.storage.k8s.io/"
FS_TYPE = f"{KUBERNETES}fstype"
EPHEMERAL = f"{KUBERNETES}ephemeral"
FROZEN_COPY_MAX_S = 60.0

_VOLUME_KEYS = ("allocation", "enforceSize", "kind", "pool", FS_TYPE)
_SNAPSHOT_KEYS = ("frozenCopySeconds",)
_INLINE_KEYS = ("class", "fsType", "size")

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
    )


def claim(given: Mapping[str, str]) -> Claim:
    """Returns the claim that the provisioner tells with `--extra-create-metadata`."""
    return Claim(
        namespace=given.get(f"{KUBERNETES}pvc/namespace", ""),
        name=given.get(f"{KUBERNETES}pvc/name", ""),
        volume=given.get(f"{KUBERNETES}pv/name", ""),
    )


def check_mutable(given: Mapping[str, str]) -> None:
    """Checks the parameters of a VolumeAttributesClass: so far there are none.

    Raises:
        UnsupportedRequest: There is one.
    """
    _refuse_unknown("mutable parameter", given, ())


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
            choice = f"known are {', '.join(known)}" if known else "none is supported"
            raise UnsupportedRequest(f"{what} {key[:64]!r} is not known; {choice}")


def _choice(given: Mapping[str, str], key: str, choices: Mapping[str, T], default: T) -> T:
    text = given.get(key)
    if text is None:
        return default
    if text not in choices:
        raise UnsupportedRequest(
            f"parameter {key} is {text[:64]!r}; it must be {' or '.join(choices)}"
        )
    return choices[text]
