"""The verbs that the wire calls, as the floor below offers them.

They are protocols, so that a test hands in a fake of its own and the type checker holds both to
the same signatures. Verbs check what needs knowledge of volumes: ids, access modes, filesystems,
mount flags, sizes that fit. What a request alone shows to be wrong never reaches them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from csi.answers import Blocks, CapacityFigures, Page, Stats
from csi.errors import InvalidRequest
from csi.model import (
    Capability,
    Group,
    LimitChanges,
    Parameters,
    PublishRequest,
    SizeRange,
    Snapshot,
    SnapshotParameters,
    Volume,
    VolumeRequest,
)


class Lifecycle(Protocol):
    """Volumes: made, found, listed, grown, limited, deleted."""

    def create(self, request: VolumeRequest) -> Volume:
        """Makes the volume, or finds that of an earlier try."""

    def delete(self, volume_id: str) -> None:
        """Deletes a volume; an unknown one is no error."""

    def expand(self, volume_id: str, size: SizeRange) -> Volume:
        """Makes room for a larger volume."""

    def modify(self, volume_id: str, changes: LimitChanges) -> None:
        """Changes the limits of a volume, also while it is in use."""

    def get(self, volume_id: str) -> Volume:
        """Returns a volume, or raises `NotFound`."""

    def page(self, token: str, limit: int) -> Page[Volume]:
        """Returns volumes behind a token, or raises `BadToken`."""

    def unconfirmed(
        self, volume_id: str, wanted: Sequence[Capability], parameters: Parameters | None, /
    ) -> str:
        """Returns why a volume cannot be used as wanted, or nothing if it can."""


class Conditions(Protocol):
    """Whether volumes are in order."""

    def of(self, volumes: Sequence[Volume]) -> Sequence[str]:
        """Returns what is wrong with each volume, or nothing where it is in order."""


class Attachments(Protocol):
    """Which node a volume was given to."""

    def publish(
        self, volume_id: str, node_id: str, capability: Capability, *, read_only: bool
    ) -> None:
        """Gives a volume to a node."""

    def unpublish(self, volume_id: str, node_id: str) -> None:
        """Takes a volume from a node; no node means every one."""


class Snapshots(Protocol):
    """Snapshots of one volume."""

    def create(self, name: str, source_volume_id: str, parameters: SnapshotParameters) -> Snapshot:
        """Cuts a snapshot, or finds that of an earlier try."""

    def delete(self, snapshot_id: str) -> None:
        """Deletes a snapshot; an unknown one is no error."""

    def get(self, snapshot_id: str) -> Snapshot:
        """Returns a snapshot, or raises `NotFound`."""

    def page(
        self, token: str, limit: int, *, snapshot_id: str = "", source_volume_id: str = ""
    ) -> Page[Snapshot]:
        """Returns snapshots behind a token, or raises `BadToken`."""


class GroupSnapshot(Protocol):
    """A group with its members."""

    @property
    def group(self) -> Group:
        """The record of the group."""

    @property
    def snapshots(self) -> Sequence[Snapshot]:
        """The records of its members."""


class Groups(Protocol):
    """Snapshots of several volumes at one moment."""

    def create(
        self, name: str, source_volume_ids: Sequence[str], parameters: SnapshotParameters
    ) -> GroupSnapshot:
        """Cuts a group, or finds that of an earlier try."""

    def get(self, group_id: str, snapshot_ids: Sequence[str]) -> GroupSnapshot:
        """Returns a group, or raises `NotFound`; then it judges the list of members."""

    def delete(self, group_id: str, snapshot_ids: Sequence[str]) -> None:
        """Deletes a group with its members; an unknown one is no error."""


class ChangedBlocks(Protocol):
    """What snapshots hold, and how they differ; each lasts as long as the body of its `with`."""

    def allocated(self, snapshot_id: str, start: int) -> AbstractContextManager[Blocks]:
        """Gives the ranges that hold data, from an offset on."""

    def delta(self, base_id: str, target_id: str, start: int) -> AbstractContextManager[Blocks]:
        """Gives the ranges that changed from one snapshot to another, from an offset on."""


class Mounts(Protocol):
    """Volumes on this node."""

    def stage(self, volume_id: str, staging_path: str, capability: Capability) -> None:
        """Prepares a volume once for the node."""

    def unstage(self, volume_id: str, staging_path: str) -> None:
        """Undoes staging."""

    def publish(self, request: PublishRequest) -> None:
        """Puts a volume where a workload sees it."""

    def unpublish(self, volume_id: str, target_path: str) -> None:
        """Undoes publishing, and removes the target."""

    def stats(self, volume_id: str, volume_path: str) -> Stats:
        """Returns how full a volume is, and what is wrong with it."""

    def expand(self, volume_id: str, volume_path: str, size: SizeRange) -> int:
        """Grows a volume on this node and returns its size in bytes."""


class Driver(Protocol):
    """All of them together, and what the driver says of itself.

    Attributes are properties here so that an implementation may hold them in any way.
    """

    @property
    def name(self) -> str:
        """The name of the plugin."""

    @property
    def node_id(self) -> str:
        """The name of this node."""

    @property
    def topology(self) -> Mapping[str, str]:
        """The segments of this node."""

    @property
    def max_volumes(self) -> int:
        """How many volumes may be published here; 0 is no limit."""

    @property
    def lifecycle(self) -> Lifecycle:
        """The verbs on volumes."""

    @property
    def conditions(self) -> Conditions:
        """Whether volumes are in order."""

    @property
    def attachments(self) -> Attachments:
        """The verbs on controller publications."""

    @property
    def snapshots(self) -> Snapshots:
        """The verbs on snapshots."""

    @property
    def groups(self) -> Groups:
        """The verbs on group snapshots."""

    @property
    def changed_blocks(self) -> ChangedBlocks:
        """The verbs on what snapshots hold."""

    @property
    def mounts(self) -> Mounts:
        """The verbs on this node's mounts."""

    def is_ready(self) -> bool:
        """Whether the pools have been read."""

    def check(self) -> None:
        """Raises `PoolUnavailable` where the driver cannot work."""

    def capacity(
        self, parameters: Parameters, segments: Mapping[str, str] | None
    ) -> CapacityFigures:
        """Returns what may still be provisioned; no segments means anywhere."""


def check_capability(driver: Driver, volume_id: str, capability: Capability | None) -> None:
    """Checks the capability that a request for growth may carry.

    Raises:
        NotFound: There is no such volume.
        InvalidRequest: The volume does not have the capability.
    """
    if capability is None:
        return
    reason = driver.lifecycle.unconfirmed(volume_id, [capability], None)
    if reason:
        raise InvalidRequest(f"volume_capability does not fit: {reason}")
