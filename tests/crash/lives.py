"""The life of one volume as Kubernetes leads it: each step may be repeated, none is skipped."""

import hashlib
import os
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from csi.v1 import csi_pb2 as pb
from tests.contract import requests
from tests.contract.bench import read_bytes, write_synced
from tests.contract.node_fixtures import entry_of, no_loop_over
from tests.contract.requests import LEAST_BYTES, MIB, filesystem, raw_block
from tests.crash.world import ViolationError, World

DATA_BYTES = 256 << 10


class Sort(NamedTuple):
    """A sort of volume, and the pool it lies on."""

    pool: str
    size: int
    grown: int
    capability: pb.VolumeCapability
    parameters: dict[str, str]
    grows_online: bool = True
    moments_in_use: bool = True
    """Whether a snapshot can be taken of one that is in use."""


SORTS = {
    # Without CAP_SYS_RESOURCE the kernel grows no mounted ext4.
    "ext4": Sort("xfs", 64 * MIB, 96 * MIB, filesystem("ext4"), {}, grows_online=False),
    "xfs": Sort("xfs", LEAST_BYTES["xfs"], 340 * MIB, filesystem("xfs"), {}),
    "btrfs": Sort("xfs", LEAST_BYTES["btrfs"], 288 * MIB, filesystem("btrfs"), {}),
    "block": Sort("xfs", 8 * MIB, 12 * MIB, raw_block(), {}),
    "thick": Sort("xfs", 8 * MIB, 12 * MIB, raw_block(), {"allocation": "thick"}),
    "directory": Sort("btrfs", 32 * MIB, 48 * MIB, filesystem(""), {"kind": "directory"}),
    "copied": Sort(
        "ext4",
        32 * MIB,
        48 * MIB,
        filesystem("ext4"),
        {},
        grows_online=False,
        moments_in_use=False,
    ),
}
"""Images of each filesystem and raw devices on a pool that reflinks, a directory on btrfs, and an
image on a pool where every copy is made in the background."""


_CHECKS = {
    "ext4": ("e2fsck", "-f", "-n"),
    "xfs": ("xfs_repair", "-n", "-f"),
    "btrfs": ("btrfs", "check", "--readonly"),
}


class Life:
    """One volume; its snapshots live and die with it."""

    def __init__(
        self,
        world: World,
        sort: Sort,
        *,
        source: Callable[[], pb.VolumeContentSource] | None = None,
        data: bytes | None = None,
        larger: bool = False,
    ) -> None:
        number = next(world.numbers)
        self.world = world
        self.sort = sort
        self.name = f"pvc-{number}"
        self.data = data
        self.volume_id = ""
        self._pod = f"pod-{number}"
        self._size = sort.grown if larger else sort.size
        self._source = source
        self._snapshots: dict[str, str] = {}
        self._context: dict[str, str] = {}
        self._is_block = sort.capability.HasField("block")

    # --- the controller ----------------------------------------------------------------------

    def create(self) -> None:
        """CreateVolume, and waits until the contents are whole."""
        request = requests.create_volume(
            self.name,
            size=self.sort.size if self._source is None else self._size,
            capabilities=[self.sort.capability],
            parameters=self.sort.parameters,
            source=None if self._source is None else self._source(),
        )
        world = self.world
        volume = world.call(lambda: world.driver.controller.CreateVolume(request)).volume
        self.volume_id = volume.volume_id
        world.wait_for_background()

    def attach(self) -> None:
        """ControllerPublishVolume."""
        request = requests.controller_publish(self.volume_id, self.sort.capability)
        self.world.call(lambda: self.world.driver.controller.ControllerPublishVolume(request))

    def detach(self) -> None:
        """ControllerUnpublishVolume."""
        request = requests.controller_unpublish(self.volume_id)
        self.world.call(lambda: self.world.driver.controller.ControllerUnpublishVolume(request))

    def expand(self) -> None:
        """ControllerExpandVolume."""
        request = requests.controller_expand(self.volume_id, self.sort.grown)
        world = self.world
        answer = world.call(lambda: world.driver.controller.ControllerExpandVolume(request))
        if answer.capacity_bytes != self.sort.grown:
            raise ViolationError(f"grown to {answer.capacity_bytes}, not {self.sort.grown}")
        self._size = self.sort.grown

    def modify(self) -> None:
        """ControllerModifyVolume."""
        request = requests.modify(self.volume_id, {"writeIOPS": "5000"})
        self.world.call(lambda: self.world.driver.controller.ControllerModifyVolume(request))

    def delete(self) -> None:
        """DeleteVolume, and waits until its bytes are free."""
        self._expect_sound_filesystem()
        request = requests.delete_volume(self.volume_id)
        self.world.call(lambda: self.world.driver.controller.DeleteVolume(request))
        self.world.wait_for_background()

    def snapshot(self) -> None:
        """CreateSnapshot until it is ready."""
        name = f"snapshot-{self.name}"
        request = requests.create_snapshot(name, self.volume_id)
        controller = self.world.driver.controller
        snapshot = self.world.call(lambda: controller.CreateSnapshot(request)).snapshot
        self._snapshots[name] = snapshot.snapshot_id
        self.world.wait_for_background()
        ready = self.world.call(lambda: controller.CreateSnapshot(request)).snapshot.ready_to_use
        if not ready and self.world.patient:
            raise ViolationError(f"{snapshot.snapshot_id} is whole and not said to be ready")

    @property
    def snapshot_ids(self) -> list[str]:
        """Those of its snapshots."""
        return list(self._snapshots.values())

    def delete_snapshots(self) -> None:
        """DeleteSnapshot of all there are, and waits until their bytes are free."""
        for snapshot_id in self._snapshots.values():
            request = requests.delete_snapshot(snapshot_id)
            self.world.call(partial(self.world.driver.controller.DeleteSnapshot, request))
        self.world.wait_for_background()

    def forget_snapshots(self) -> None:
        """Says that there are none any more."""
        self._snapshots.clear()

    def be_inline(self) -> None:
        """Makes it a volume that its pod brings along: made by publishing, gone with the pod."""
        self.volume_id = f"csi-{hashlib.sha256(self.name.encode()).hexdigest()}"
        self._context = {
            "csi.storage.k8s.io/ephemeral": "true",
            "csi.storage.k8s.io/pod.name": "web-0",
            "csi.storage.k8s.io/pod.namespace": "default",
            "csi.storage.k8s.io/pod.uid": self._pod,
            "csi.storage.k8s.io/serviceAccount.name": "default",
            "size": str(self.sort.size),
        }

    def from_snapshot(self) -> pb.VolumeContentSource:
        """The source of a restore of the only snapshot."""
        (snapshot_id,) = self._snapshots.values()
        return requests.from_snapshot(snapshot_id)

    def from_volume(self) -> pb.VolumeContentSource:
        """The source of a clone."""
        return requests.from_volume(self.volume_id)

    # --- the node ----------------------------------------------------------------------------

    def stage(self) -> None:
        """NodeStageVolume."""
        request = requests.stage(self.volume_id, self._staging(), self.sort.capability)
        self.world.call(lambda: self.world.driver.node.NodeStageVolume(request))

    def publish(self) -> None:
        """NodePublishVolume."""
        request = requests.publish(
            self.volume_id,
            "" if self._context else self._staging(),
            self.target(),
            self.sort.capability,
            context=self._context,
        )
        self.world.call(lambda: self.world.driver.node.NodePublishVolume(request))

    def grow(self) -> None:
        """NodeExpandVolume."""
        request = requests.node_expand(self.volume_id, self.target(), self.sort.grown)
        self.world.call(lambda: self.world.driver.node.NodeExpandVolume(request))

    def unpublish(self) -> None:
        """NodeUnpublishVolume."""
        request = requests.unpublish(self.volume_id, self.target())
        self.world.call(lambda: self.world.driver.node.NodeUnpublishVolume(request))

    def unstage(self) -> None:
        """NodeUnstageVolume."""
        request = requests.unstage(self.volume_id, self._staging())
        self.world.call(lambda: self.world.driver.node.NodeUnstageVolume(request))

    def target(self) -> Path:
        """Where the pod has it."""
        if self._is_block:
            return self.world.kubelet.block_target_path(self.name, self._pod)
        return self.world.kubelet.target_path(self.name, self._pod)

    def _staging(self) -> Path:
        if self._is_block:
            return self.world.kubelet.block_staging_path(self.name)
        return self.world.kubelet.staging_path(self.volume_id)

    # --- the pod -----------------------------------------------------------------------------

    def write(self) -> None:
        """Writes what from now on must not be lost."""
        self.data = os.urandom(DATA_BYTES)
        write_synced(self._file(), self.data)

    def check(self) -> None:
        """Expects that the data is there and the volume as large as it should be."""
        if self.data is not None:
            found = read_bytes(self._file(), len(self.data))
            if found != self.data:
                raise ViolationError(f"{self.name}: the data is not what was written and synced")
        if self._is_block:
            with self.target().open("rb") as device:
                size = device.seek(0, os.SEEK_END)
            if size != self._size:
                raise ViolationError(f"{self.name}: the device has {size}, not {self._size} bytes")
            return
        write_synced(self.target() / "probe", b"it takes writes")
        if self.sort.parameters.get("kind") != "directory":
            status = os.statvfs(self.target())
            size = status.f_blocks * status.f_frsize
            if not self._size * 0.7 < size <= self._size:
                raise ViolationError(f"{self.name}: its filesystem has {size} of {self._size}")

    def _file(self) -> Path:
        return self.target() if self._is_block else self.target() / "data"

    def _expect_sound_filesystem(self) -> None:
        """Expects that fsck finds nothing in the image, if it is there and unused."""
        image = entry_of(self.world.pool, self.volume_id) / "disk.img"
        fs_type = self.sort.capability.mount.fs_type
        if not fs_type or not image.exists() or not no_loop_over(image):
            return
        done = subprocess.run(
            [*_CHECKS[fs_type], str(image)], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise ViolationError(f"{self.name} is damaged: {done.stdout}{done.stderr}")

    # --- the whole ---------------------------------------------------------------------------

    def bring_up(self) -> None:
        """All steps to a running pod."""
        self.create()
        self.attach()
        self.stage()
        self.publish()

    def take_down(self) -> None:
        """All steps from a running pod to an unused volume."""
        self.unpublish()
        self.unstage()
        self.detach()

    def fill(self) -> None:
        """Comes to a running pod that has written something."""
        self.bring_up()
        self.write()

    def rest(self) -> None:
        """Comes to an unused volume that something was written to."""
        self.fill()
        self.take_down()

    def finish(self) -> None:
        """From wherever it is to its end: used, checked, its snapshots restored, deleted."""
        self.bring_up()
        self.check()
        self.take_down()
        for snapshot_id in self._snapshots.values():
            source = partial(requests.from_snapshot, snapshot_id)
            Life(self.world, self.sort, source=source, data=self.data, larger=self._grown).finish()
        self.delete_snapshots()
        self.delete()

    @property
    def _grown(self) -> bool:
        return self._size != self.sort.size
