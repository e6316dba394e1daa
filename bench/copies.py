"""Snapshot, restore and clone: by how much real data there is, and by how many extents."""

from __future__ import annotations

import itertools
import mmap
import os
import threading
import time
from pathlib import Path

import grpc

from bench.cases import Subject
from bench.figures import Samples
from bench.life import MIB, Kind, Life
from csi.v1 import csi_pb2 as pb

_ROOM = 1.25
_EXTENT_BYTES = 4096
_PROBE_EVERY_S = 0.01
_STILL_S, _FREED_S = 0.5, 60.0
_numbers = itertools.count(1)


class Copies:
    """Copies of a volume that is in use; its data is written and flushed beforehand."""

    def __init__(self, kind: str, rounds: int, *, mib: int = 0, extents: int = 0) -> None:
        """Prepares a case.

        Args:
            kind: The kind of volume.
            rounds: How often each copy is made.
            mib: How much data there is, in one file; or
            extents: how many pieces of 4 KiB, each an extent of the image; for block volumes.
        """
        self.name = f"copy, {kind}, " + (f"{mib} MiB" if mib else f"{extents} extents")
        self.rounds = rounds
        self._kind = kind
        self._mib = mib
        self._extents = extents
        self._sources: dict[str, Life] = {}

    def problem(self, subject: Subject) -> str:
        """The driver has to snapshot."""
        if self._kind not in subject.kinds:
            return "there is no such kind"
        return "" if subject.client.snapshots else "it takes no snapshots"

    def prepare(self, subject: Subject) -> None:
        """Makes the source and writes its data."""
        source = Life(subject.client, self._sized(subject), _name("source"), subject.folder)
        self._sources[subject.name] = source.__enter__()
        for _, call in source.beginning(attach=False):
            call()
        path = source.target if self._wants_device(subject) else source.target / "data"
        if self._extents:
            _write_extents(path, self._extents)
        else:
            _write(path, self._mib)

    def measure(self, subject: Subject, samples: Samples) -> None:
        """Copies, and calls Probe all the while."""
        source = self._sources[subject.name]
        copies: list[Life] = []
        with _Probing(subject, samples):
            with samples.timed("snapshot"):
                snapshot = self._snapshot(subject, source)
            try:
                from_snapshot = pb.VolumeContentSource(
                    snapshot=pb.VolumeContentSource.SnapshotSource(snapshot_id=snapshot)
                )
                copies.append(self._copy(subject, samples, "restore", from_snapshot))
                if subject.client.clones:
                    from_volume = pb.VolumeContentSource(
                        volume=pb.VolumeContentSource.VolumeSource(volume_id=source.volume_id)
                    )
                    copies.append(self._copy(subject, samples, "clone", from_volume))
            finally:
                with samples.timed("delete snapshot"):
                    subject.client.delete_snapshot(snapshot)
                for copy in copies:
                    copy.delete()
        _wait_until_freed(subject)

    def finish(self, subject: Subject) -> None:
        """Takes the source away."""
        source = self._sources.pop(subject.name, None)
        if source is not None:
            source.undo()
            source.__exit__()

    def _copy(
        self, subject: Subject, samples: Samples, series: str, source: pb.VolumeContentSource
    ) -> Life:
        life = Life(subject.client, self._sized(subject), _name(series), subject.folder)
        with samples.timed(series):
            life.create(source)
        return life

    def _snapshot(self, subject: Subject, source: Life) -> str:
        name = _name("snapshot")
        while True:  # one that is not whole yet is asked for again, as the snapshotter does
            answer = subject.client.controller.CreateSnapshot(
                pb.CreateSnapshotRequest(name=name, source_volume_id=source.volume_id), timeout=600
            )
            if answer.snapshot.ready_to_use:
                return answer.snapshot.snapshot_id

    def _sized(self, subject: Subject) -> Kind:
        kind = subject.kinds[self._kind]
        data = 2 * self._extents * _EXTENT_BYTES if self._extents else self._mib * MIB
        size = max(kind.size_bytes, int(data * _ROOM))
        return kind._replace(size_bytes=size - size % MIB)

    def _wants_device(self, subject: Subject) -> bool:
        return subject.kinds[self._kind].block


class _Probing:
    """Calls Probe again and again beside the block: what takes long must not delay it."""

    def __init__(self, subject: Subject, samples: Samples) -> None:
        self._subject = subject
        self._samples = samples
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(_PROBE_EVERY_S):
            try:
                with self._samples.timed("Probe meanwhile"):
                    self._subject.client.identity.Probe(pb.ProbeRequest(), timeout=60)
            except grpc.RpcError as error:
                self._samples.fail(f"Probe {error.code().name}")


def _wait_until_freed(subject: Subject) -> None:
    """Waits until the capacity stands still: freeing many extents would slow the next copy."""
    deadline = time.monotonic() + _FREED_S
    before, since = -1, time.monotonic()
    while time.monotonic() - since < _STILL_S and time.monotonic() < deadline:
        try:
            answer = subject.client.controller.GetCapacity(pb.GetCapacityRequest(), timeout=60)
        except grpc.RpcError:
            return  # it does not tell
        if answer.available_capacity != before:
            before, since = answer.available_capacity, time.monotonic()
        time.sleep(_PROBE_EVERY_S)


def _name(what: str) -> str:
    return f"{what}-{next(_numbers)}"


def _write(path: Path, mib: int) -> None:
    """Writes that much that no filesystem can leave out or compress, and flushes it."""
    piece = os.urandom(MIB)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        for number in range(mib):
            os.write(descriptor, number.to_bytes(8, "big") + piece[8:])
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_extents(device: Path, extents: int) -> None:
    """Writes every second block of a device past the page cache: each is an extent of its own."""
    block = mmap.mmap(-1, _EXTENT_BYTES)  # direct I/O wants memory that begins with a page
    block.write(os.urandom(_EXTENT_BYTES))
    descriptor = os.open(device, os.O_WRONLY | os.O_DIRECT)
    try:
        for number in range(extents):
            os.pwrite(descriptor, block, 2 * number * _EXTENT_BYTES)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
        block.close()
