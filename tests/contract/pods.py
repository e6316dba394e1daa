"""The node's calls one by one, as the kubelet makes them, with their clean-up."""

import functools
from collections.abc import Iterator
from pathlib import Path

import grpc

from csi.v1 import csi_pb2 as pb
from tests.contract import requests
from tests.contract.bench import Bench, repeat_while_looked_at
from tests.contract.node_fixtures import force_away
from tests.contract.refusals import as_call


class Pods:
    """The kubelet's part, step by step; what a test leaves mounted is taken away by `close`."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self._staged: dict[Path, str] = {}
        self._published: dict[Path, str] = {}

    def stage(
        self,
        volume_id: str,
        capability: pb.VolumeCapability | None = None,
        path: Path | None = None,
    ) -> Path:
        """Stages a volume, where the kubelet would unless told where; returns that."""
        kubelet = self.bench.kubelet
        if path is None and capability is not None and capability.HasField("block"):
            path = kubelet.block_staging_path(volume_id)
        elif path is None:
            path = kubelet.staging_path(volume_id)
        self._staged[path] = volume_id
        self.bench.driver.node.NodeStageVolume(requests.stage(volume_id, path, capability))
        return path

    def unstage(self, volume_id: str, path: Path) -> None:
        """Unstages a volume."""
        self.bench.driver.node.NodeUnstageVolume(requests.unstage(volume_id, path))
        self._staged.pop(path, None)

    def target(self, volume_id: str, capability: pb.VolumeCapability | None = None) -> Path:
        """Returns the target path for a new pod, its parent made."""
        pod = self.bench.name("pod")
        if capability is not None and capability.HasField("block"):
            return self.bench.kubelet.block_target_path(volume_id, pod)
        return self.bench.kubelet.target_path(volume_id, pod)

    def publish(
        self,
        volume_id: str,
        staging: Path,
        capability: pb.VolumeCapability | None = None,
        *,
        target: Path | None = None,
        read_only: bool = False,
    ) -> Path:
        """Publishes a staged volume, for a new pod unless told where; returns where."""
        target = target or self.target(volume_id, capability)
        self._published[target] = volume_id
        self.bench.driver.node.NodePublishVolume(
            requests.publish(volume_id, staging, target, capability, read_only=read_only)
        )
        return target

    def unpublish(self, volume_id: str, target: Path) -> None:
        """Unpublishes a volume."""
        self.bench.driver.node.NodeUnpublishVolume(requests.unpublish(volume_id, target))
        self._published.pop(target, None)

    def close(self) -> None:
        """Takes away what is left, by force where the driver will not, which fails the test."""
        failures = []
        for calls, undo in ((self._published, self.unpublish), (self._staged, self.unstage)):
            for path, volume_id in list(calls.items()):
                try:
                    repeat_while_looked_at(functools.partial(undo, volume_id, path))
                except grpc.RpcError as error:
                    failures.append(f"{path}: {as_call(error).details()}")
                    force_away(path)
        assert not failures, f"what the test left could not be taken away: {failures}"


def pods_of(bench: Bench) -> Iterator[Pods]:
    """The body of a fixture that hands out pods of a bench."""
    pods = Pods(bench)
    yield pods
    pods.close()
