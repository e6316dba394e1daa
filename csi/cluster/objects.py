"""The API server's objects, as far as placement reads them.

Fields that are not named here are skipped while the JSON is read, so that watching all claims of a
large cluster costs little.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

SELECTED_NODE = "volume.kubernetes.io/selected-node"
"""Annotation of a claim: where its volume is to be made. The scheduler considers no other node."""

MANAGED_BY = "snapshot.storage.kubernetes.io/managed-by"
"""Label of a snapshot's content: the node whose snapshotter it belongs to."""

WAIT_FOR_FIRST_CONSUMER = "WaitForFirstConsumer"
SNAPSHOT_GROUP = "snapshot.storage.k8s.io"

T = TypeVar("T")


class _Object(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    pass


class Metadata(_Object, frozen=True, kw_only=True):
    """What each object has."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    deletion_timestamp: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class Source(_Object, frozen=True, kw_only=True):
    """What a claim is to be filled from."""

    kind: str
    name: str
    api_group: str | None = None
    namespace: str | None = None

    @property
    def is_snapshot(self) -> bool:
        """Whether it is a VolumeSnapshot."""
        return self.kind == "VolumeSnapshot" and self.api_group == SNAPSHOT_GROUP

    @property
    def is_claim(self) -> bool:
        """Whether it is another claim."""
        return self.kind == "PersistentVolumeClaim" and not self.api_group


class ClaimSpec(_Object, frozen=True, kw_only=True):
    """What a claim asks for."""

    storage_class_name: str | None = None
    volume_name: str = ""
    data_source: Source | None = None
    data_source_ref: Source | None = None


class Claim(_Object, frozen=True, kw_only=True):
    """A PersistentVolumeClaim."""

    metadata: Metadata
    spec: ClaimSpec = ClaimSpec()

    @property
    def key(self) -> str:
        """How it is called in the cluster."""
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @property
    def path(self) -> str:
        """Where the API server has it."""
        return claim_path(self.metadata.namespace, self.metadata.name)

    @property
    def source(self) -> Source | None:
        """What it is to be filled from; the API server keeps the older field in step."""
        return self.spec.data_source_ref or self.spec.data_source

    @property
    def selected_node(self) -> str:
        """The node that somebody chose for its volume, or nothing."""
        return self.metadata.annotations.get(SELECTED_NODE, "")


class ClassOfStorage(_Object, frozen=True, kw_only=True):
    """A StorageClass."""

    provisioner: str
    volume_binding_mode: str = "Immediate"


class _SnapshotStatus(_Object, frozen=True, kw_only=True):
    bound_volume_snapshot_content_name: str = ""


class Snapshot(_Object, frozen=True, kw_only=True):
    """A VolumeSnapshot."""

    status: _SnapshotStatus | None = None

    @property
    def content(self) -> str:
        """The name of its content, or nothing while it has none."""
        return self.status.bound_volume_snapshot_content_name if self.status else ""


class _ContentSpec(_Object, frozen=True, kw_only=True):
    driver: str


class SnapshotContent(_Object, frozen=True, kw_only=True):
    """A VolumeSnapshotContent."""

    metadata: Metadata
    spec: _ContentSpec


class _Expression(_Object, frozen=True, kw_only=True):
    key: str
    operator: str
    values: list[str] = []


class _Term(_Object, frozen=True, kw_only=True):
    match_expressions: list[_Expression] = []


class _Selector(_Object, frozen=True, kw_only=True):
    node_selector_terms: list[_Term] = []


class _Affinity(_Object, frozen=True, kw_only=True):
    required: _Selector | None = None


class _CsiVolume(_Object, frozen=True, kw_only=True):
    driver: str


class _VolumeSpec(_Object, frozen=True, kw_only=True):
    csi: _CsiVolume | None = None
    node_affinity: _Affinity | None = None


class Volume(_Object, frozen=True, kw_only=True):
    """A PersistentVolume."""

    spec: _VolumeSpec

    @property
    def driver(self) -> str:
        """The CSI driver whose volume it is, or nothing."""
        return self.spec.csi.driver if self.spec.csi else ""

    def allowed(self, topology_key: str) -> list[str]:
        """The values of a topology key that the volume can be used with."""
        selector = self.spec.node_affinity and self.spec.node_affinity.required
        return [
            value
            for term in (selector.node_selector_terms if selector else ())
            for expression in term.match_expressions
            if expression.key == topology_key and expression.operator == "In"
            for value in expression.values
        ]


class _Condition(_Object, frozen=True, kw_only=True):
    type: str
    status: str


class _NodeStatus(_Object, frozen=True, kw_only=True):
    conditions: list[_Condition] = []


class Node(_Object, frozen=True, kw_only=True):
    """A Node."""

    status: _NodeStatus = _NodeStatus()

    @property
    def is_ready(self) -> bool:
        """Whether its kubelet is heard of and well."""
        return any(
            each.type == "Ready" and each.status == "True" for each in self.status.conditions
        )


class ListMetadata(_Object, frozen=True, kw_only=True):
    """Where a list ends and from when a watch goes on."""

    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class Listed(_Object, Generic[T], frozen=True, kw_only=True):
    """A page of a list."""

    metadata: ListMetadata
    items: list[T]


def claim_path(namespace: str, name: str) -> str:
    """Where the API server has a claim."""
    return f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{name}"
