"""The values that travel between the floors: what a caller asks for and what a pool records.

Everything here is immutable and knows nothing of gRPC, of the kernel or of paths. The records
(`Volume`, `Snapshot`, `Group`) are what `record.json` holds, field by field.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Self

import msgspec

RECORD_VERSION = 1
BLOCK_BYTES = 4096
"""The sector size of every image; sizes are multiples of it."""


class Kind(enum.StrEnum):
    """How a volume keeps its data in the pool."""

    IMAGE = "image"
    DIRECTORY = "directory"


class Access(enum.StrEnum):
    """How a workload sees a volume."""

    FILESYSTEM = "filesystem"
    BLOCK = "block"


class AccessMode(enum.StrEnum):
    """The access modes of CSI, by their names on the wire."""

    SINGLE_NODE_WRITER = "SINGLE_NODE_WRITER"
    SINGLE_NODE_READER_ONLY = "SINGLE_NODE_READER_ONLY"
    MULTI_NODE_READER_ONLY = "MULTI_NODE_READER_ONLY"
    MULTI_NODE_SINGLE_WRITER = "MULTI_NODE_SINGLE_WRITER"
    MULTI_NODE_MULTI_WRITER = "MULTI_NODE_MULTI_WRITER"
    SINGLE_NODE_SINGLE_WRITER = "SINGLE_NODE_SINGLE_WRITER"
    SINGLE_NODE_MULTI_WRITER = "SINGLE_NODE_MULTI_WRITER"


SINGLE_NODE_MODES = frozenset(mode for mode in AccessMode if mode.startswith("SINGLE_NODE_"))


class Value(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Base of all values: immutable, written without the fields that hold their default.

    None refers to itself, so the collector of cycles need not look at them: there are many.
    """

    def replace(self, **fields: object) -> Self:
        """Returns a copy in which the given fields differ."""
        return msgspec.structs.replace(self, **fields)


class Capability(Value, frozen=True, kw_only=True):
    """One way in which a volume is to be used."""

    access: Access
    mode: AccessMode
    fs_type: str = ""
    mount_flags: tuple[str, ...] = ()
    selinux_context: str = ""
    """The label that all files are to show; part of one mount, and never of a record."""

    @property
    def read_only(self) -> bool:
        """Whether the mode lets nobody write."""
        return self.mode is AccessMode.SINGLE_NODE_READER_ONLY


class SizeRange(Value, frozen=True, kw_only=True):
    """The size asked for, in bytes; a limit of 0 is none."""

    required_bytes: int = 0
    limit_bytes: int = 0


class SourceType(enum.StrEnum):
    """What a volume was made from."""

    VOLUME = "volume"
    SNAPSHOT = "snapshot"


class Source(Value, frozen=True, kw_only=True):
    """Where the first contents of a volume come from."""

    type: SourceType
    id: str


class Claim(Value, frozen=True, kw_only=True):
    """The Kubernetes objects a volume belongs to, for people who look for its files."""

    namespace: str = ""
    name: str = ""
    volume: str = ""


class Parameters(Value, frozen=True, kw_only=True):
    """The parameters of a StorageClass, as understood."""

    kind: Kind = Kind.IMAGE
    pool: str = ""
    fs_type: str = ""
    enforce_size: bool = True
    thick: bool = False
    mkfs_options: str = ""


class Limits(Value, frozen=True, kw_only=True):
    """What the pods of a volume may do in a second; 0 is no limit."""

    read_iops: int = 0
    write_iops: int = 0
    read_bandwidth_bytes: int = 0
    write_bandwidth_bytes: int = 0


NO_LIMITS = Limits()
LimitChanges = Mapping[str, int]
"""New values by the names of the fields of `Limits`; what is left out keeps its value."""


class Ephemeral(Value, frozen=True, kw_only=True):
    """The pod that an inline volume lives and dies with."""

    pod_uid: str
    target_path: str


class VolumeRequest(Value, frozen=True, kw_only=True):
    """What CreateVolume asks for."""

    name: str
    size: SizeRange
    capabilities: tuple[Capability, ...]
    parameters: Parameters
    limits: LimitChanges = {}
    source: Source | None = None
    claim: Claim = Claim()
    requisite: tuple[dict[str, str], ...] = ()
    ephemeral: Ephemeral | None = None


class Publication(Value, frozen=True, kw_only=True):
    """A node that ControllerPublishVolume gave the volume to."""

    mode: AccessMode
    access: Access
    read_only: bool = False


class Record(Value, frozen=True, kw_only=True):
    """What every record has."""

    version: int = msgspec.field(default_factory=lambda: RECORD_VERSION)
    id: str
    name: str
    created_ns: int

    @property
    def loan(self) -> tuple[str, int]:
        """The volume that stays charged for data held here, and how many bytes of it."""
        return "", 0


class Volume(Record, frozen=True, kw_only=True):
    """The record of a volume."""

    kind: Kind
    access: Access
    size_bytes: int
    fs_type: str = ""
    parameters: Parameters
    capabilities: tuple[Capability, ...]
    limits: Limits = NO_LIMITS
    source: Source | None = None
    claim: Claim = Claim()
    borrowed_bytes: int = 0
    """Data shared with the source when the volume was made: allocated, yet not by this volume."""
    lender_id: str = ""
    """The volume that stays charged for that data, where it is a directory."""
    quota_number: int = msgspec.field(default=0, name="quota_group")
    """What a directory is limited under: a level-1 quota group on btrfs, a project on XFS and
    ext4; 0 where its size is not enforced. Written by its first name, for older records."""
    copying: bool = False
    """The contents are still being copied from the source."""
    publications: dict[str, Publication] = {}
    ephemeral: Ephemeral | None = None

    @property
    def loan(self) -> tuple[str, int]:
        """What its lender is charged for."""
        return self.lender_id, self.borrowed_bytes


class Snapshot(Record, frozen=True, kw_only=True):
    """The record of a snapshot."""

    source_volume_id: str
    kind: Kind
    access: Access
    size_bytes: int
    """The size of the source at that moment, and the least size of a restore."""
    fs_type: str = ""
    held_bytes: int = 0
    """What the snapshot may come to hold alone once its source has moved on."""
    shared: bool = True
    """Whether its blocks are shared with the source; a copy has blocks of its own."""
    copying: bool = False
    group_id: str = ""

    @property
    def loan(self) -> tuple[str, int]:
        """What its source is charged for."""
        return self.source_volume_id, self.held_bytes

    @property
    def ready(self) -> bool:
        """Whether the snapshot is whole and can be restored."""
        return not self.copying


class Group(Record, frozen=True, kw_only=True):
    """The record of a group snapshot; that it exists is what makes its members exist."""

    snapshot_ids: tuple[str, ...]
    source_volume_ids: tuple[str, ...]


class SnapshotParameters(Value, frozen=True, kw_only=True):
    """The parameters of a VolumeSnapshotClass, as understood."""

    frozen_copy_s: float = 0.0
    """How long a mounted source may be kept frozen while it is copied; 0 forbids that."""


class InlineVolume(Value, frozen=True, kw_only=True):
    """What a pod's author may say of an inline volume; all else is the administrator's."""

    pod_uid: str
    claim: Claim = Claim()
    size_bytes: int = 0
    fs_type: str = ""
    class_name: str = ""


class PublishRequest(Value, frozen=True, kw_only=True):
    """What NodePublishVolume asks for."""

    volume_id: str
    target_path: str
    capability: Capability
    read_only: bool = False
    staging_path: str = ""
    inline: InlineVolume | None = None


class EphemeralSettings(Value, frozen=True, kw_only=True):
    """What pods may have as inline volumes."""

    enabled: bool = True
    max_volumes: int = 64
    max_size_bytes: int = 10 << 30
    default_size_bytes: int = 1 << 30
    classes: dict[str, Parameters] = {}


class Settings(Value, frozen=True, kw_only=True):
    """What the verbs need to know of the configuration."""

    driver_name: str
    node_id: str
    topology: dict[str, str]
    max_volumes: int = 0
    default_fs_type: str = "ext4"
    default_size_bytes: int = 1 << 30
    selinux_mount: bool = False
    """Whether volumes are mounted with SELinux contexts, which leaves images alone to be served."""
    ephemeral: EphemeralSettings = EphemeralSettings()
