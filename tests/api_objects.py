"""Objects for the small API server, as placement meets them."""

from csi.cluster.objects import SELECTED_NODE
from tests.api_server import FakeApiServer, Object

DRIVER = "local-path.csi.dev"
NAMESPACE = "/api/v1/namespaces/shop"
SNAPSHOTS = "/apis/snapshot.storage.k8s.io/v1"
CLASSES = "/apis/storage.k8s.io/v1/storageclasses"
FROM_SNAPSHOT = {
    "apiGroup": "snapshot.storage.k8s.io",
    "kind": "VolumeSnapshot",
    "name": "monday",
}
FROM_CLAIM = {"kind": "PersistentVolumeClaim", "name": "orders"}


def add_class(
    server: FakeApiServer,
    name: str,
    provisioner: str = DRIVER,
    mode: str = "WaitForFirstConsumer",
) -> None:
    server.put(f"{CLASSES}/{name}", {"provisioner": provisioner, "volumeBindingMode": mode})


def add_node(server: FakeApiServer, name: str, ready: str = "True") -> None:
    conditions = [{"type": "Ready", "status": ready}]
    server.put(f"/api/v1/nodes/{name}", {"status": {"conditions": conditions}})


def add_snapshot(
    server: FakeApiServer, node: str | None, *, driver: str = DRIVER, namespace: str = "shop"
) -> None:
    snapshot = {"status": {"boundVolumeSnapshotContentName": "content-1"}}
    server.put(f"{SNAPSHOTS}/namespaces/{namespace}/volumesnapshots/monday", snapshot)
    labels = {"snapshot.storage.kubernetes.io/managed-by": node} if node else {}
    content = {"metadata": {"labels": labels}, "spec": {"driver": driver}}
    server.put(f"{SNAPSHOTS}/volumesnapshotcontents/content-1", content)


def add_volume(server: FakeApiServer, values: list[str], driver: str = DRIVER) -> None:
    expression = {"key": f"{DRIVER}/node", "operator": "In", "values": values}
    required = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    spec = {"csi": {"driver": driver}, "nodeAffinity": {"required": required}}
    server.put("/api/v1/persistentvolumes/pv-1", {"spec": spec})


def add_claim(
    server: FakeApiServer,
    source: Object | None,
    *,
    name: str = "restored",
    class_name: str = "ours",
    selected: str = "",
    volume: str = "",
) -> str:
    spec: Object = {"storageClassName": class_name, "volumeName": volume}
    if source is not None:
        spec["dataSourceRef"] = source
    metadata: Object = {"name": name, "namespace": "shop", "uid": f"uid-{name}"}
    if selected:
        metadata["annotations"] = {SELECTED_NODE: selected}
    path = f"{NAMESPACE}/persistentvolumeclaims/{name}"
    server.put(path, {"metadata": metadata, "spec": spec})
    return path
