"""What volumes with certain parameters can still have on this node: the answer of GetCapacity."""

from __future__ import annotations

from collections.abc import Mapping

from csi.answers import CapacityFigures
from csi.linux.filesystems import FILESYSTEMS
from csi.model import BLOCK_BYTES, Kind, Parameters, Settings
from csi.volumes import sizes
from csi.volumes.agreement import matches
from csi.volumes.pools import Depot, Pools


def room_for(
    pools: Pools, settings: Settings, parameters: Parameters, segments: Mapping[str, str] | None
) -> CapacityFigures:
    """Returns what volumes with these parameters can have here.

    There is none elsewhere, in a pool that this node does not have, and for volumes that would be
    refused here whatever their size. Nodes may well have other pools than their neighbours: the
    scheduler learns from this which of them can take a claim.
    """
    depot = pools.find_named(parameters.pool)
    here = segments is None or matches(segments, settings.topology)
    available = 0
    if depot is not None and here and _can_be_made(depot, parameters, settings):
        available = depot.ledger.available()
        available -= available % BLOCK_BYTES
    fs_type = ""
    if parameters.kind is Kind.IMAGE:
        known = parameters.fs_type in FILESYSTEMS
        fs_type = parameters.fs_type if known else settings.default_fs_type
    return CapacityFigures(
        available_bytes=available,
        maximum_bytes=available,
        minimum_bytes=sizes.minimum_bytes(fs_type),
    )


def _can_be_made(depot: Depot, parameters: Parameters, settings: Settings) -> bool:
    if parameters.kind is not Kind.DIRECTORY:
        return True
    if settings.selinux_mount:
        return False
    return not parameters.enforce_size or depot.pool.features.directory_quota
