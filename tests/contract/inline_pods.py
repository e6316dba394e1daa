"""Pods that bring a volume of their own, as the kubelet hands it to the driver."""

import hashlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc

from csi.v1 import csi_pb2 as pb
from tests.contract import requests
from tests.contract.node_fixtures import force_away
from tests.contract.refusals import as_call
from tests.contract.requests import MIB, filesystem
from tests.driver import Driver
from tests.kubelet import Kubelet

KUBERNETES = "csi.storage.k8s.io"
MAX_VOLUMES = 3
DEFAULT_BYTES = 128 * MIB

CONFIGURATION = f"""\
apiVersion: local-path.csi.dev/v1
kind: DriverConfiguration
inlineVolumes:
  maxVolumes: {MAX_VOLUMES}
  maxSize: 512Mi
  defaultSize: {DEFAULT_BYTES}
  classes:
    shared: {{kind: directory}}
    flash: {{fsType: btrfs}}
"""

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Pod:
    """A pod with an inline volume."""

    uid: str
    volume_id: str
    target: Path
    folder: Path


class InlinePods:
    """Makes pods, and takes their volumes away in the end."""

    def __init__(self, driver: Driver, kubelet: Kubelet, pool: Path) -> None:
        self.driver = driver
        self.pool = pool
        self.kubelet = kubelet
        self._pods: list[Pod] = []
        self._before = self._entries()

    def pod(self, target: Path | None = None) -> Pod:
        """Returns a new pod, whose volume is not there yet; the kubelet's folder for it is."""
        uid = f"uid-{next(_numbers)}"
        place = self.kubelet.target_path("scratch", uid)
        volume_id = f"csi-{hashlib.sha256(str(place).encode()).hexdigest()}"
        pod = Pod(uid, volume_id, target or place, self.kubelet.directory / "pods" / uid)
        self._pods.append(pod)
        return pod

    def request(
        self,
        pod: Pod,
        attributes: Mapping[str, str] | None = None,
        capability: pb.VolumeCapability | None = None,
        *,
        read_only: bool = False,
    ) -> pb.NodePublishVolumeRequest:
        """Returns what the kubelet sends for a pod, with attributes of the pod's author."""
        context = {
            f"{KUBERNETES}/ephemeral": "true",
            f"{KUBERNETES}/pod.name": "web-0",
            f"{KUBERNETES}/pod.namespace": "default",
            f"{KUBERNETES}/pod.uid": pod.uid,
            f"{KUBERNETES}/serviceAccount.name": "default",
            **(attributes or {}),
        }
        return requests.publish(
            pod.volume_id,
            "",
            pod.target,
            capability or filesystem(""),
            read_only=read_only,
            context=context,
        )

    def publish(
        self,
        pod: Pod,
        attributes: Mapping[str, str] | None = None,
        capability: pb.VolumeCapability | None = None,
        *,
        read_only: bool = False,
    ) -> Path:
        """Publishes the volume of a pod; returns where."""
        request = self.request(pod, attributes, capability, read_only=read_only)
        self.driver.node.NodePublishVolume(request)
        return pod.target

    def unpublish(self, pod: Pod) -> None:
        """Ends a pod."""
        self.driver.node.NodeUnpublishVolume(requests.unpublish(pod.volume_id, pod.target))

    def made(self) -> list[str]:
        """The folders of the volumes that came into the pool since the beginning."""
        return sorted(set(self._entries()) - set(self._before))

    def _entries(self) -> list[str]:
        return sorted(path.name for path in (self.pool / "volumes").iterdir())

    def close(self) -> None:
        """Ends all pods, and fails where the driver will not or has something left."""
        failures = []
        for pod in self._pods:
            if not pod.target.parent.is_dir() or pod.target.is_symlink():
                continue
            try:
                self.unpublish(pod)
            except grpc.RpcError as error:
                failures.append(as_call(error).details())
                force_away(pod.target)
        assert not failures, f"pods could not be ended: {failures}"
        assert not self.made(), f"volumes of pods were left behind: {self.made()}"


def inline_pods_of(driver: Driver, folder: Path, pool: Path) -> Iterator[InlinePods]:
    """The body of a fixture."""
    pods = InlinePods(driver, Kubelet(folder / "kubelet"), pool)
    yield pods
    pods.close()
