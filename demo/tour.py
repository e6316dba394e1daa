"""The tour itself: a filesystem volume, a raw block volume and an inline one, start to end."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

from csi.v1 import csi_pb2 as pb
from demo.ground import DemoError
from demo.kubelet import GIB, Kubelet, filesystem, raw_block
from demo.steps import Tour, gib

OLD, NEW = b"written before the snapshot", b"written after the snapshot"


def filesystem_volume(tour: Tour, kubelet: Kubelet, fs_type: str) -> None:
    """Create, use, snapshot, restore, clone, grow, fill up, and delete."""
    tour.title(f"A volume with {fs_type} in it")
    capability = filesystem(fs_type)
    volume = tour.step("create 1 GiB", lambda: kubelet.create(f"data-{fs_type}", GIB, capability))
    tour.seen(volume.volume_id)
    name, volume_id = fs_type, volume.volume_id
    tour.step("controller publish", lambda: kubelet.attach(volume_id, capability))
    tour.step("stage", lambda: kubelet.stage(name, volume_id, capability))
    target = tour.step("publish", lambda: kubelet.publish(name, volume_id, capability))
    tour.step("write data and sync", lambda: _write(target / "file", OLD))
    snapshot = tour.step(
        "snapshot while mounted", lambda: kubelet.snapshot(f"snap-{fs_type}", volume_id)
    )
    tour.step("change the data", lambda: _write(target / "file", NEW))

    source = pb.VolumeContentSource(
        snapshot=pb.VolumeContentSource.SnapshotSource(snapshot_id=snapshot.snapshot_id)
    )
    _copy(tour, kubelet, f"restore-{fs_type}", "restore the snapshot", source, OLD, capability)
    source = pb.VolumeContentSource(volume=pb.VolumeContentSource.VolumeSource(volume_id=volume_id))
    _copy(tour, kubelet, f"clone-{fs_type}", "clone the volume", source, NEW, capability)

    if fs_type != "ext4":  # growing a mounted ext4 takes a privilege that not every machine has
        before = _size(target)
        tour.step(
            "expand to 2 GiB while mounted",
            lambda: kubelet.expand(name, volume_id, 2 * GIB, capability),
        )
        tour.seen(f"the filesystem grew from {gib(before)} to {gib(_size(target))}")
        _require(_size(target) > before + GIB // 2, "the filesystem did not grow")
    written = tour.step("write until the volume is full", lambda: _fill(target / "ballast"))
    tour.seen(f"ENOSPC after {gib(written)}, as it should be")
    usage = tour.step("volume stats", lambda: kubelet.stats(volume_id, target))
    size = usage[pb.VolumeUsage.BYTES]
    tour.seen(f"{gib(size.used)} of {gib(size.total)} used, {gib(size.available)} available")
    tour.step("unpublish and unstage", lambda: kubelet.stop_pod(name, volume_id))
    tour.step("delete the volume", lambda: kubelet.delete(volume_id))
    tour.step("delete the snapshot", lambda: kubelet.delete_snapshot(snapshot.snapshot_id))


def block_volume(tour: Tour, kubelet: Kubelet) -> None:
    """A raw device of exactly the size asked for."""
    tour.title("A raw block volume")
    capability = raw_block()
    volume = tour.step("create 1 GiB", lambda: kubelet.create("raw", GIB, capability))
    target = tour.step(
        "publish as a device", lambda: kubelet.start_pod("raw", volume.volume_id, capability)
    )
    device = os.open(target, os.O_RDWR)
    try:
        size = os.lseek(device, 0, os.SEEK_END)
        tour.step("write and sync", lambda: _write_device(device))
    finally:
        os.close(device)
    tour.seen(f"the device has exactly {size} bytes")
    _require(size == GIB, "the device has another size than asked for")
    tour.step("unpublish and unstage", lambda: kubelet.stop_pod("raw", volume.volume_id))
    tour.step("delete", lambda: kubelet.delete(volume.volume_id))


def inline_volume(tour: Tour, kubelet: Kubelet) -> None:
    """A volume that lives and dies with its pod."""
    tour.title("An inline ephemeral volume")
    volume_id = f"csi-{hashlib.sha256(b'demo').hexdigest()}"
    target = tour.step(
        "publish: made and mounted at once",
        lambda: kubelet.publish_inline("scratch", volume_id, "256Mi"),
    )
    tour.seen(f"{gib(_size(target))} at the pod's path")
    tour.step("write data and sync", lambda: _write(target / "file", OLD))
    tour.step("unpublish: unmounted and gone", lambda: kubelet.unpublish(volume_id, target))
    _require(not target.exists(), "the target path is still there")


def _copy(
    tour: Tour,
    kubelet: Kubelet,
    name: str,
    text: str,
    source: pb.VolumeContentSource,
    expected: bytes,
    capability: pb.VolumeCapability,
) -> None:
    volume = tour.step(text, lambda: kubelet.create(name, GIB, capability, source))
    target = tour.step(
        "mount it beside its source", lambda: kubelet.start_pod(name, volume.volume_id, capability)
    )
    found = (target / "file").read_bytes()
    tour.seen(f"it holds {found.decode()!r}")
    _require(found == expected, f"{name} holds other data than expected")
    kubelet.stop_pod(name, volume.volume_id)
    kubelet.delete(volume.volume_id)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _write_device(device: int) -> None:
    os.pwrite(device, OLD, 4096)
    os.fsync(device)


def _fill(path: Path) -> int:
    """Writes until the volume is full; returns the bytes written."""
    chunk, written = os.urandom(1 << 20) * 8, 0
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        while written < 8 * GIB:
            written += os.write(file, chunk)
        raise DemoError("the volume took more than its size")
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return written
    finally:
        os.close(file)


def _size(path: Path) -> int:
    status = os.statvfs(path)
    return status.f_blocks * status.f_frsize


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise DemoError(otherwise)
