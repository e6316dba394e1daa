"""Where the source of a claim is: the node whose pool holds the snapshot or the volume."""

from __future__ import annotations

from csi.cluster.api import ApiServer
from csi.cluster.objects import (
    MANAGED_BY,
    SNAPSHOT_GROUP,
    Claim,
    Snapshot,
    SnapshotContent,
    Source,
    Volume,
    claim_path,
)


class SourceUnknown(Exception):
    """It cannot be told yet where the source is: it is not there, or not bound."""


class SourceElsewhere(Exception):
    """The source is not this driver's, or belongs to no node: nothing to place by."""


class Sources:
    """Finds the nodes of sources, by asking each time: there are few, and they change."""

    def __init__(self, server: ApiServer, driver_name: str) -> None:
        """Prepares to look.

        Args:
            server: The API server.
            driver_name: Whose volumes and snapshots are looked for.
        """
        self._server = server
        self._driver_name = driver_name
        self._topology_key = f"{driver_name}/node"

    def node_of(self, claim: Claim, source: Source) -> str:
        """The name of the node where a claim's source is.

        Raises:
            SourceUnknown: Ask again later.
            SourceElsewhere: There is no such node, and there will not be.
            ApiError: The API server cannot be asked.
        """
        namespace = source.namespace or claim.metadata.namespace
        if source.is_snapshot:
            return self._node_of_snapshot(namespace, source.name)
        return self._node_of_claim(namespace, source.name)

    def _node_of_snapshot(self, namespace: str, name: str) -> str:
        base = f"/apis/{SNAPSHOT_GROUP}/v1"
        path = f"{base}/namespaces/{namespace}/volumesnapshots/{name}"
        snapshot = self._server.find(path, Snapshot)
        if snapshot is None or not snapshot.content:
            raise SourceUnknown
        path = f"{base}/volumesnapshotcontents/{snapshot.content}"
        content = self._server.find(path, SnapshotContent)
        if content is None:
            raise SourceUnknown
        if content.spec.driver != self._driver_name:
            raise SourceElsewhere
        # Set by the snapshot-controller for the snapshotters on the nodes, before the snapshot is
        # taken; without it none of them takes care of the snapshot. An administrator may set it
        # for a snapshot that was brought in by hand.
        node = content.metadata.labels.get(MANAGED_BY)
        if not node:
            raise SourceUnknown
        return node

    def _node_of_claim(self, namespace: str, name: str) -> str:
        source = self._server.find(claim_path(namespace, name), Claim)
        if source is None or not source.spec.volume_name:
            raise SourceUnknown
        path = f"/api/v1/persistentvolumes/{source.spec.volume_name}"
        volume = self._server.find(path, Volume)
        if volume is None:
            raise SourceUnknown
        nodes = volume.allowed(self._topology_key)
        if volume.driver != self._driver_name or len(nodes) != 1:
            raise SourceElsewhere
        return nodes[0]
