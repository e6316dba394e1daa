"""A workbench for one test: names of its own, and everything it made taken away at its end."""

import contextlib
import functools
import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import grpc

from csi.v1 import csi_pb2 as pb
from tests.contract import requests
from tests.contract.refusals import Code, as_call
from tests.contract.requests import MIB, filesystem
from tests.driver import Driver, running_driver
from tests.kubelet import Kubelet

PATIENCE_S = 20.0

_numbers = itertools.count(1)


class Used(NamedTuple):
    """A volume that a pod uses, and where."""

    volume_id: str
    staging: Path
    target: Path


class Bench:
    """Makes volumes and snapshots, mounts them as the kubelet does, and remembers them all.

    Attributes:
        driver: The driver under test; its stubs take requests of the test's own.
        kubelet: The paths of the kubelet.
        pool: The directory that the driver keeps its volumes in.
    """

    def __init__(self, driver: Driver, kubelet: Kubelet, pool: Path) -> None:
        self.driver = driver
        self.kubelet = kubelet
        self.pool = pool
        self._prefix = f"t{next(_numbers)}"
        self._names = itertools.count(1)
        self._volumes: dict[str, None] = {}
        self._snapshots: dict[str, None] = {}
        self._groups: dict[str, tuple[str, ...]] = {}
        self._used: list[Used] = []

    def name(self, what: str = "volume") -> str:
        """A name that no other test has."""
        return f"{what}-{self._prefix}-{next(self._names)}"

    # --- volumes -----------------------------------------------------------------------------

    def create(
        self,
        name: str = "",
        *,
        size: int = 64 * MIB,
        limit: int = 0,
        capability: pb.VolumeCapability | None = None,
        parameters: Mapping[str, str] | None = None,
        source: pb.VolumeContentSource | None = None,
        topology: pb.TopologyRequirement | None = None,
    ) -> pb.Volume:
        """Creates a volume; whatever a test leaves of it is deleted in the end."""
        return self.send_create(
            requests.create_volume(
                name or self.name(),
                size=size,
                limit=limit,
                capabilities=[capability or filesystem()],
                parameters=parameters,
                source=source,
                topology=topology,
            )
        )

    def send_create(self, request: pb.CreateVolumeRequest) -> pb.Volume:
        """Sends a request of the test's own and remembers what comes of it."""
        volume = self.driver.controller.CreateVolume(request, timeout=60).volume
        self._volumes[volume.volume_id] = None
        return volume

    def delete(self, volume_id: str) -> None:
        """Deletes a volume."""
        self.driver.controller.DeleteVolume(requests.delete_volume(volume_id))
        self._volumes.pop(volume_id, None)

    def entry(self, volume_id: str) -> Path:
        """Where the pool has a volume: its record and its data, side by side."""
        return self.pool / "volumes" / volume_id.rsplit("-", 2)[1]

    # --- snapshots ---------------------------------------------------------------------------

    def snapshot(
        self, volume_id: str, name: str = "", parameters: Mapping[str, str] | None = None
    ) -> pb.Snapshot:
        """Takes a snapshot."""
        request = requests.create_snapshot(name or self.name("snapshot"), volume_id, parameters)
        snapshot = self.driver.controller.CreateSnapshot(request, timeout=60).snapshot
        self._snapshots[snapshot.snapshot_id] = None
        return snapshot

    def delete_snapshot(self, snapshot_id: str) -> None:
        """Deletes a snapshot."""
        self.driver.controller.DeleteSnapshot(requests.delete_snapshot(snapshot_id))
        self._snapshots.pop(snapshot_id, None)

    def group(self, *volume_ids: str, name: str = "") -> pb.VolumeGroupSnapshot:
        """Takes a group snapshot."""
        request = requests.create_group(name or self.name("group"), volume_ids)
        answer = self.driver.group.CreateVolumeGroupSnapshot(request, timeout=60)
        group = answer.group_snapshot
        self._groups[group.group_snapshot_id] = tuple(s.snapshot_id for s in group.snapshots)
        return group

    def delete_group(self, group: pb.VolumeGroupSnapshot) -> None:
        """Deletes a group snapshot and its members."""
        members = [snapshot.snapshot_id for snapshot in group.snapshots]
        self.driver.group.DeleteVolumeGroupSnapshot(
            requests.delete_group(group.group_snapshot_id, members)
        )
        self._groups.pop(group.group_snapshot_id, None)

    # --- pods --------------------------------------------------------------------------------

    def use(self, volume_id: str, capability: pb.VolumeCapability | None = None) -> Path:
        """Stages and publishes a volume for a new pod; returns where the pod has it.

        A copy that is not whole yet is waited for, as the kubelet does.
        """
        capability = capability or filesystem()
        if capability.HasField("block"):
            staging = self.kubelet.block_staging_path(volume_id)
            target = self.kubelet.block_target_path(volume_id, self.name("pod"))
        else:
            staging = self.kubelet.staging_path(volume_id)
            target = self.kubelet.target_path(volume_id, self.name("pod"))
        used = Used(volume_id, staging, target)
        self._used.append(used)
        request = requests.stage(volume_id, staging, capability)
        repeat_while_aborted(lambda: self.driver.node.NodeStageVolume(request))
        self.driver.node.NodePublishVolume(requests.publish(volume_id, staging, target, capability))
        return target

    def release(self, volume_id: str) -> None:
        """Unpublishes a volume from all pods that `use` gave it to, and unstages it."""
        mine = [used for used in self._used if used.volume_id == volume_id]
        for used in mine:
            self.driver.node.NodeUnpublishVolume(requests.unpublish(volume_id, used.target))
        for used in mine:
            request = requests.unstage(volume_id, used.staging)
            unstage = functools.partial(self.driver.node.NodeUnstageVolume, request)
            repeat_while_looked_at(unstage)
            self._used.remove(used)

    def forget_use(self, volume_id: str) -> None:
        """Says that no pod has a volume any more, whoever took it away."""
        self._used = [used for used in self._used if used.volume_id != volume_id]

    @contextlib.contextmanager
    def used(self, volume_id: str, capability: pb.VolumeCapability | None = None) -> Iterator[Path]:
        """Is `use` for the body of a `with`, and `release` after it."""
        yield self.use(volume_id, capability)
        self.release(volume_id)

    # --- the end -----------------------------------------------------------------------------

    def clean_up(self) -> None:
        """Takes away all that the test left, and checks that the driver has nothing more."""
        for volume_id in {used.volume_id for used in self._used}:
            self.release(volume_id)
        for volume_id in list(self._volumes):
            self._unpublish_everywhere(volume_id)
            repeat_while_aborted(functools.partial(self.delete, volume_id))
        for group_id, members in self._groups.items():
            self.driver.group.DeleteVolumeGroupSnapshot(requests.delete_group(group_id, members))
        for snapshot_id in list(self._snapshots):
            repeat_while_aborted(functools.partial(self.delete_snapshot, snapshot_id))
        self._expect_nothing()

    def _unpublish_everywhere(self, volume_id: str) -> None:
        with contextlib.suppress(grpc.RpcError):
            self.driver.controller.ControllerUnpublishVolume(
                requests.controller_unpublish(volume_id, node_id="")
            )

    def _expect_nothing(self) -> None:
        volumes = self.driver.controller.ListVolumes(requests.list_volumes()).entries
        snapshots = self.driver.controller.ListSnapshots(requests.list_snapshots()).entries
        left = [entry.volume.volume_id for entry in volumes]
        left += [entry.snapshot.snapshot_id for entry in snapshots]
        assert not left, f"the driver still has {left}, which the test did not ask for"


def write_synced(path: Path, data: bytes) -> None:
    """Writes a file, or to a device, and returns when it is on disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_bytes(path: Path, length: int) -> bytes:
    """Reads the beginning of a file or device."""
    with path.open("rb") as file:
        return file.read(length)


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = PATIENCE_S) -> None:
    """Waits until something is so, and fails if it does not become so."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {timeout_s:g} s"
        time.sleep(0.02)


def repeat_while_looked_at(call: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
    """Makes a call again while a process of another's has a device open, as the kubelet would.

    Whoever looks at all devices of a machine (another driver, blkid) has each open for a moment,
    which on a busy machine may be long.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            call()
            return
        except grpc.RpcError as error:
            answer = as_call(error)
            looked_at = "keeps it open" in (answer.details() or "")
            if answer.code() is not Code.UNAVAILABLE or not looked_at:
                raise
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def repeat_while_aborted(call: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
    """Makes a call again and again while the driver says that something else is under way."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            call()
            return
        except grpc.RpcError as error:
            if as_call(error).code() is not Code.ABORTED or time.monotonic() > deadline:
                raise
        time.sleep(0.05)


@contextlib.contextmanager
def bench_of(pool: Path, folder: Path) -> Iterator[Bench]:
    """A bench over a driver of its own, which the test may leave stopped."""
    with running_driver(pool, folder) as driver:
        bench = Bench(driver, Kubelet(folder / "kubelet"), pool)
        yield bench
        if not driver.running:
            driver.start()
        bench.clean_up()
