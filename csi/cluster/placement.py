"""Gives restores and clones to the node where their source is.

The scheduler chooses a node for a claim that waits for its first consumer without knowing of
sources. It does respect a choice that is there already: for a claim with the annotation
`volume.kubernetes.io/selected-node` it considers that node alone (FindPodVolumes, in
pkg/scheduler/framework/plugins/volumebinding/binder.go of Kubernetes 1.36). So that annotation is
written here, as early as can be. Of scheduler and placement the later one's write is refused, since
the claim has another version by then; a wrong choice of the scheduler is then put right.

A claim that is placed is also provisioned at once, before any pod asks for it. Nothing is lost by
that: there is one node only where it can be.
"""

from __future__ import annotations

import datetime as dt
import logging
import threading
import time
from dataclasses import dataclass, field

from csi.cluster.api import ApiServer
from csi.cluster.objects import (
    SELECTED_NODE,
    WAIT_FOR_FIRST_CONSUMER,
    Claim,
    ClassOfStorage,
    Node,
    Source,
)
from csi.cluster.sources import SourceElsewhere, Sources, SourceUnknown

COMPONENT = "csi-local-path-placement"
LOOK_AGAIN_S = 15.0
"""How often a claim that is placed and has no volume is looked at: its node may have gone."""

_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 5.0
_LONGEST_PAUSE_S = 60.0
_CLASS_KEPT_S = 60.0

_log = logging.getLogger(__name__)


@dataclass
class _Progress:
    """What has happened to a claim so far.

    Attributes:
        waits: How often its source was looked for in vain.
        placings: How often it was given to a node.
        placed_at: When it was last, by the monotonic clock.
        told: The event that its owner was told last.
    """

    waits: int = 0
    placings: int = 0
    placed_at: float = 0.0
    told: str = ""


@dataclass(frozen=True)
class _KnownClass:
    """Whose a StorageClass is; both fields cannot change, but another may come by its name."""

    ours: bool
    until: float


@dataclass
class Placement:
    """Places claims of one driver.

    Attributes:
        server: The API server.
        driver_name: Whose claims.
    """

    server: ApiServer
    driver_name: str
    _progress: dict[str, _Progress] = field(default_factory=dict)
    _classes: dict[str, _KnownClass] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._sources = Sources(self.server, self.driver_name)

    @staticmethod
    def concerns(claim: Claim) -> bool:
        """Whether it is still to have a volume, and from a source that has a place."""
        source = claim.source
        return (
            source is not None
            and (source.is_snapshot or source.is_claim)
            and not claim.spec.volume_name
            and bool(claim.spec.storage_class_name)
            and claim.metadata.deletion_timestamp is None
        )

    def forget(self, claim: Claim) -> None:
        """Drops what is known of a claim that is no longer of concern."""
        with self._lock:
            self._progress.pop(claim.metadata.uid, None)

    def place(self, claim: Claim) -> float | None:
        """Sees that a claim is given to the node of its source.

        One claim is with one caller at a time.

        Returns:
            After how many seconds to look again; None if only a change of the claim can matter.

        Raises:
            ApiError: The API server cannot be asked; try again.
        """
        source = claim.source
        ours = self._is_ours(claim.spec.storage_class_name or "")
        if source is None or ours is False:
            return None
        if ours is None:
            return LOOK_AGAIN_S
        with self._lock:
            progress = self._progress.setdefault(claim.metadata.uid, _Progress())
        try:
            node = self._sources.node_of(claim, source)
        except SourceElsewhere:
            return None
        except SourceUnknown:
            progress.waits += 1
            return min(_FIRST_WAIT_S * 2.0 ** (progress.waits - 1), _LONGEST_WAIT_S)
        if claim.selected_node != node:
            pause_s = _pause_s(progress)
            if pause_s > 0:
                return pause_s
            if not self._select(claim, node):
                # It was changed by somebody, and that is news that brings it here again.
                return LOOK_AGAIN_S
            progress.placings += 1
            progress.placed_at = time.monotonic()
            _log.info(
                "placed",
                extra={"claim": claim.key, "node": node, "instead_of": claim.selected_node},
            )
        self._tell_if_gone(claim, source, node, progress)
        return LOOK_AGAIN_S

    def _is_ours(self, class_name: str) -> bool | None:
        """Whether a class is this driver's and waits for consumers; None while there is no such."""
        now = time.monotonic()
        with self._lock:
            known = self._classes.get(class_name)
        if known and now < known.until:
            return known.ours
        path = f"/apis/storage.k8s.io/v1/storageclasses/{class_name}"
        found = self.server.find(path, ClassOfStorage)
        if found is None:
            return None
        ours = (
            found.provisioner == self.driver_name
            and found.volume_binding_mode == WAIT_FOR_FIRST_CONSUMER
        )
        with self._lock:
            self._classes[class_name] = _KnownClass(ours, now + _CLASS_KEPT_S)
        return ours

    def _select(self, claim: Claim, node: str) -> bool:
        """Writes the annotation, unless the claim has changed meanwhile."""
        change = {
            "metadata": {
                "resourceVersion": claim.metadata.resource_version,
                "annotations": {SELECTED_NODE: node},
            }
        }
        return self.server.merge(claim.path, change)

    def _tell_if_gone(self, claim: Claim, source: Source, node: str, progress: _Progress) -> None:
        found = self.server.find(f"/api/v1/nodes/{node}", Node)
        if found is None:
            reason, what = "SourceNodeGone", "which is not in the cluster"
        elif not found.is_ready:
            reason, what = "SourceNodeNotReady", "which is not ready"
        else:
            progress.told = ""
            return
        if progress.told == reason:
            return
        progress.told = reason
        message = (
            f"{source.kind} {source.name} is on node {node}, {what}. Volumes of this driver are "
            "copied within a node only: the claim waits until that node is back. If it will not "
            "be, delete the claim and restore from a backup."
        )
        _log.warning("source out of reach", extra={"claim": claim.key, "node": node})
        self._tell(claim, reason, message)

    def _tell(self, claim: Claim, reason: str, message: str) -> None:
        now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        namespace, name = claim.metadata.namespace, claim.metadata.name
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{name[:200]}.", "namespace": namespace},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": namespace,
                "name": name,
                "uid": claim.metadata.uid,
            },
            "reason": reason,
            "message": message,
            "type": "Warning",
            "source": {"component": COMPONENT},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        self.server.create(f"/api/v1/namespaces/{namespace}/events", event)


def _pause_s(progress: _Progress) -> float:
    """How long to leave a claim alone that was placed before and lost its place since.

    The provisioner takes the annotation away when the node has no room; put back at once it would
    come again and again.
    """
    if progress.placings == 0:
        return 0.0
    pause_s = min(2.0 ** (progress.placings - 1), _LONGEST_PAUSE_S)
    return max(0.0, progress.placed_at + pause_s - time.monotonic())
