"""The codes that the specification lets each call answer with.

From the tables of errors in spec.md of the CSI specification, and the general ones before them.
INVALID_ARGUMENT and ABORTED are any call's. So is UNAVAILABLE by the rules of gRPC, and yet it is
not here: while nothing on the node fails, no request is a reason for it.
"""

from collections.abc import Mapping

from grpc import StatusCode as Code

_ANY = frozenset({Code.OK, Code.INVALID_ARGUMENT, Code.ABORTED})
_LOOK_UP = _ANY | {Code.NOT_FOUND}
_GROW = _LOOK_UP | {Code.OUT_OF_RANGE, Code.RESOURCE_EXHAUSTED, Code.FAILED_PRECONDITION}
_PUT = _LOOK_UP | {Code.ALREADY_EXISTS, Code.FAILED_PRECONDITION, Code.RESOURCE_EXHAUSTED}
_TAKE_AWAY = _LOOK_UP | {Code.FAILED_PRECONDITION}

ALLOWED: Mapping[str, frozenset[Code]] = {
    "GetPluginInfo": frozenset({Code.OK, Code.INVALID_ARGUMENT}),
    "GetPluginCapabilities": frozenset({Code.OK, Code.INVALID_ARGUMENT}),
    "Probe": frozenset({Code.OK, Code.INVALID_ARGUMENT}),
    "CreateVolume": _LOOK_UP | {Code.ALREADY_EXISTS, Code.RESOURCE_EXHAUSTED, Code.OUT_OF_RANGE},
    "DeleteVolume": _ANY | {Code.FAILED_PRECONDITION},
    "ControllerPublishVolume": _PUT,
    "ControllerUnpublishVolume": _LOOK_UP,
    "ValidateVolumeCapabilities": _LOOK_UP,
    "ListVolumes": _ANY,
    "GetCapacity": _ANY,
    "ControllerGetCapabilities": _ANY,
    "CreateSnapshot": _LOOK_UP | {Code.ALREADY_EXISTS, Code.RESOURCE_EXHAUSTED},
    "DeleteSnapshot": _ANY | {Code.FAILED_PRECONDITION},
    "ListSnapshots": _ANY,
    "GetSnapshot": _LOOK_UP,
    "ControllerExpandVolume": _GROW,
    "ControllerGetVolume": _LOOK_UP,
    "ControllerModifyVolume": _LOOK_UP,
    "GroupControllerGetCapabilities": _ANY,
    "CreateVolumeGroupSnapshot": _LOOK_UP
    | {Code.ALREADY_EXISTS, Code.FAILED_PRECONDITION, Code.RESOURCE_EXHAUSTED},
    "DeleteVolumeGroupSnapshot": _ANY | {Code.FAILED_PRECONDITION},
    "GetVolumeGroupSnapshot": _LOOK_UP,
    "GetMetadataAllocated": _LOOK_UP | {Code.OUT_OF_RANGE},
    "GetMetadataDelta": _LOOK_UP | {Code.OUT_OF_RANGE, Code.FAILED_PRECONDITION},
    "NodeStageVolume": _PUT,
    "NodeUnstageVolume": _TAKE_AWAY,
    "NodePublishVolume": _PUT | {Code.OUT_OF_RANGE},  # an inline volume is made by it
    "NodeUnpublishVolume": _TAKE_AWAY,
    "NodeGetVolumeStats": _LOOK_UP,
    "NodeExpandVolume": _GROW,
    "NodeGetCapabilities": _ANY,
    "NodeGetInfo": _ANY,
}
