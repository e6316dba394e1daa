"""Manifests of claims, pods, snapshots and classes."""

from dataclasses import dataclass
from typing import Any

Manifest = dict[str, Any]

DRIVER = "local-path.csi.dev"
SNAPSHOT_CLASS = "csi-local-path"
SNAPSHOT_GROUP = "snapshot.storage.k8s.io"


def shipped_class(fs_type: str) -> str:
    """The name of the StorageClass that comes with the driver for a filesystem."""
    return f"csi-local-path-{fs_type}"


@dataclass(frozen=True)
class Use:
    """How a pod uses a volume.

    Attributes:
        volume: A claim's name, or a pod's volume source such as an inline volume.
        path: Where it is in the pod.
        read_only: Whether the pod says so of the claim.
        sub_path: The folder of the volume that the pod sees.
        block: Whether it is a device.
    """

    volume: str | Manifest
    path: str = "/data"
    read_only: bool = False
    sub_path: str = ""
    block: bool = False


def claim(
    name: str,
    storage_class: str,
    size: str,
    *,
    block: bool = False,
    mode: str = "ReadWriteOnce",
    source: Manifest | None = None,
) -> Manifest:
    """A PersistentVolumeClaim; its source is what `from_snapshot` or `from_claim` returns."""
    spec: Manifest = {
        "storageClassName": storage_class,
        "accessModes": [mode],
        "volumeMode": "Block" if block else "Filesystem",
        "resources": {"requests": {"storage": size}},
    }
    if source is not None:
        spec["dataSource"] = source
    return _named("v1", "PersistentVolumeClaim", name, spec=spec)


def from_snapshot(name: str) -> Manifest:
    """The source of a claim that is restored."""
    return {"apiGroup": SNAPSHOT_GROUP, "kind": "VolumeSnapshot", "name": name}


def from_claim(name: str) -> Manifest:
    """The source of a claim that is a clone."""
    return {"kind": "PersistentVolumeClaim", "name": name}


def snapshot(name: str, of_claim: str) -> Manifest:
    """A VolumeSnapshot."""
    spec = {
        "volumeSnapshotClassName": SNAPSHOT_CLASS,
        "source": {"persistentVolumeClaimName": of_claim},
    }
    return _named(f"{SNAPSHOT_GROUP}/v1", "VolumeSnapshot", name, spec=spec)


def storage_class(
    name: str, parameters: dict[str, str], mount_options: tuple[str, ...] = ()
) -> Manifest:
    """A StorageClass of the driver, with what the shipped ones have besides."""
    return _named(
        "storage.k8s.io/v1",
        "StorageClass",
        name,
        provisioner=DRIVER,
        volumeBindingMode="WaitForFirstConsumer",
        allowVolumeExpansion=True,
        parameters=parameters,
        mountOptions=list(mount_options),
    )


def inline(**attributes: str) -> Manifest:
    """A volume source: a volume of the pod's own."""
    return {"csi": {"driver": DRIVER, "volumeAttributes": attributes}}


def generic_ephemeral(storage_class_name: str, size: str) -> Manifest:
    """A volume source: a claim that is made and deleted with the pod."""
    spec = claim("unused", storage_class_name, size)["spec"]
    return {"ephemeral": {"volumeClaimTemplate": {"spec": spec}}}


def pod(name: str, *uses: Use, security: Manifest | None = None, node: str = "") -> Manifest:
    """A pod that waits for what the test runs in it, on the node that is named, if one is.

    A volume that is used several times is one volume of the pod.
    """
    volumes: list[Manifest] = []
    places: dict[str, list[Manifest]] = {"volumeMounts": [], "volumeDevices": []}
    for use in uses:
        source = use.volume
        if isinstance(source, str):
            source = {"persistentVolumeClaim": {"claimName": source, "readOnly": use.read_only}}
        known = [volume["name"] for volume in volumes if source.items() <= volume.items()]
        volume_name = known[0] if known else f"volume{len(volumes)}"
        if not known:
            volumes.append({"name": volume_name, **source})
        if use.block:
            places["volumeDevices"].append({"name": volume_name, "devicePath": use.path})
        else:
            place = {"name": volume_name, "mountPath": use.path, "subPath": use.sub_path}
            places["volumeMounts"].append(place)
    container = {
        "name": "shell",
        "image": "busybox:stable",
        "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "1000000"],
        **places,
    }
    spec = {
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
        "volumes": volumes,
        "securityContext": security or {},
        # The scheduler has to see to it: a pod that is bound to a node gets no volume provisioned.
        "nodeSelector": {"kubernetes.io/hostname": node} if node else {},
    }
    return _named("v1", "Pod", name, spec=spec)


def _named(api_version: str, kind: str, name: str, **fields: Any) -> Manifest:  # noqa: ANN401
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, **fields}
