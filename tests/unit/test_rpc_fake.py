"""A driver without volumes, for the tests of the wire, and a server that serves it.

The fake records each verb with its arguments, answers with the values below, and fails or blocks
where a test says so.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import grpc

from csi.answers import Blocks, ByteRange, CapacityFigures, Page, Stats, UsageFigures
from csi.errors import DriverError
from csi.model import (
    Access,
    AccessMode,
    Capability,
    Group,
    Kind,
    LimitChanges,
    Parameters,
    Publication,
    PublishRequest,
    SizeRange,
    Snapshot,
    SnapshotParameters,
    Source,
    SourceType,
    Volume,
    VolumeRequest,
)
from csi.rpc import verbs
from csi.rpc.server import Server
from csi.v1 import csi_pb2, csi_pb2_grpc
from csi.volumes import driver as real

GIB = 1 << 30
CALL_TIMEOUT_S = 20.0

WRITER = Capability(access=Access.FILESYSTEM, mode=AccessMode.SINGLE_NODE_WRITER, fs_type="xfs")
VOLUME = Volume(
    id="vol-1",
    name="pvc-1",
    created_ns=1_700_000_000_000_000_001,
    kind=Kind.IMAGE,
    access=Access.FILESYSTEM,
    size_bytes=GIB,
    fs_type="xfs",
    parameters=Parameters(),
    capabilities=(WRITER,),
    source=Source(type=SourceType.SNAPSHOT, id="snap-0"),
    publications={
        "node-2": Publication(mode=AccessMode.SINGLE_NODE_WRITER, access=Access.FILESYSTEM),
        "node-1": Publication(mode=AccessMode.SINGLE_NODE_WRITER, access=Access.FILESYSTEM),
    },
)
SNAPSHOT = Snapshot(
    id="snap-1",
    name="snapshot-1",
    created_ns=1_700_000_001_000_000_002,
    source_volume_id="vol-1",
    kind=Kind.IMAGE,
    access=Access.FILESYSTEM,
    size_bytes=GIB,
    group_id="group-1",
)
GROUP = Group(
    id="group-1",
    name="group-1",
    created_ns=1_700_000_001_000_000_002,
    snapshot_ids=("snap-1",),
    source_volume_ids=("vol-1",),
)


class Call(NamedTuple):
    """A verb that was called, and with what."""

    verb: str
    arguments: tuple[object, ...]


class Script:
    """What the fake does at each verb."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.volume = VOLUME
        self.problem = ""
        self.ranges: Iterable[ByteRange] = ()
        self.late_error: Exception | None = None
        self.streams = 0

    def run(self, verb: str, *arguments: object) -> None:
        self.calls.append(Call(verb, arguments))
        assert self.gate.wait(CALL_TIMEOUT_S), "nobody has opened the gate"
        if self.error is not None:
            raise self.error


class FakeLifecycle:
    def __init__(self, script: Script) -> None:
        self._script = script

    def create(self, request: VolumeRequest) -> Volume:
        self._script.run("create", request)
        return self._script.volume

    def delete(self, volume_id: str) -> None:
        self._script.run("delete", volume_id)

    def expand(self, volume_id: str, size: SizeRange) -> Volume:
        self._script.run("expand", volume_id, size)
        return self._script.volume

    def modify(self, volume_id: str, changes: LimitChanges) -> None:
        self._script.run("modify", volume_id, changes)

    def get(self, volume_id: str) -> Volume:
        self._script.run("get", volume_id)
        return self._script.volume

    def page(self, token: str, limit: int) -> Page[Volume]:
        self._script.run("page", token, limit)
        return Page(items=(self._script.volume,), next_token="next")

    def unconfirmed(
        self, volume_id: str, wanted: Sequence[Capability], parameters: Parameters | None
    ) -> str:
        self._script.run("unconfirmed", volume_id, wanted, parameters)
        return self._script.problem


class FakeConditions:
    def __init__(self, script: Script) -> None:
        self._script = script

    def of(self, volumes: Sequence[Volume]) -> list[str]:
        return [self._script.problem for _ in volumes]


class FakeAttachments:
    def __init__(self, script: Script) -> None:
        self._script = script

    def publish(
        self, volume_id: str, node_id: str, capability: Capability, *, read_only: bool
    ) -> None:
        self._script.run("attach", volume_id, node_id, capability, read_only)

    def unpublish(self, volume_id: str, node_id: str) -> None:
        self._script.run("detach", volume_id, node_id)


class FakeSnapshots:
    def __init__(self, script: Script) -> None:
        self._script = script

    def create(self, name: str, source_volume_id: str, parameters: SnapshotParameters) -> Snapshot:
        self._script.run("cut", name, source_volume_id, parameters)
        return SNAPSHOT

    def delete(self, snapshot_id: str) -> None:
        self._script.run("delete_snapshot", snapshot_id)

    def get(self, snapshot_id: str) -> Snapshot:
        self._script.run("get_snapshot", snapshot_id)
        return SNAPSHOT

    def page(
        self, token: str, limit: int, *, snapshot_id: str = "", source_volume_id: str = ""
    ) -> Page[Snapshot]:
        self._script.run("page_snapshots", token, limit, snapshot_id, source_volume_id)
        return Page(items=(SNAPSHOT,))


class FoundGroup(NamedTuple):
    group: Group
    snapshots: tuple[Snapshot, ...]


class FakeGroups:
    def __init__(self, script: Script) -> None:
        self._script = script

    def create(
        self, name: str, source_volume_ids: Sequence[str], parameters: SnapshotParameters
    ) -> FoundGroup:
        self._script.run("cut_group", name, source_volume_ids, parameters)
        return FoundGroup(GROUP, (SNAPSHOT,))

    def get(self, group_id: str, snapshot_ids: Sequence[str]) -> FoundGroup:
        self._script.run("get_group", group_id, snapshot_ids)
        return FoundGroup(GROUP, (SNAPSHOT,))

    def delete(self, group_id: str, snapshot_ids: Sequence[str]) -> None:
        self._script.run("delete_group", group_id, snapshot_ids)


class FakeChangedBlocks:
    """Gives the ranges of the script, and fails behind the last of them where that says so."""

    def __init__(self, script: Script) -> None:
        self._script = script

    @contextlib.contextmanager
    def allocated(self, snapshot_id: str, start: int) -> Iterator[Blocks]:
        self._script.run("allocated", snapshot_id, start)
        with self._held():
            yield Blocks(GIB, self._ranges())

    @contextlib.contextmanager
    def delta(self, base_id: str, target_id: str, start: int) -> Iterator[Blocks]:
        self._script.run("delta", base_id, target_id, start)
        with self._held():
            yield Blocks(GIB, self._ranges())

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        self._script.streams += 1
        try:
            yield
        finally:
            self._script.streams -= 1

    def _ranges(self) -> Iterator[ByteRange]:
        yield from self._script.ranges
        if self._script.late_error is not None:
            raise self._script.late_error


class FakeMounts:
    def __init__(self, script: Script) -> None:
        self._script = script

    def stage(self, volume_id: str, staging_path: str, capability: Capability) -> None:
        self._script.run("stage", volume_id, staging_path, capability)

    def unstage(self, volume_id: str, staging_path: str) -> None:
        self._script.run("unstage", volume_id, staging_path)

    def publish(self, request: PublishRequest) -> None:
        self._script.run("publish", request)

    def unpublish(self, volume_id: str, target_path: str) -> None:
        self._script.run("unpublish", volume_id, target_path)

    def stats(self, volume_id: str, volume_path: str) -> Stats:
        self._script.run("stats", volume_id, volume_path)
        return Stats(
            size=UsageFigures(total=100, used=40, available=60),
            inodes=UsageFigures(total=10, used=4, available=6),
            problem=self._script.problem,
        )

    def expand(self, volume_id: str, volume_path: str, size: SizeRange) -> int:
        self._script.run("expand_node", volume_id, volume_path, size)
        return 2 * GIB


class FakeDriver:
    """All fakes together."""

    def __init__(self) -> None:
        self.script = Script()
        self.name = "local-path.csi.dev"
        self.node_id = "node-1"
        self.topology = {"local-path.csi.dev/node": "node-1"}
        self.max_volumes = 7
        self.ready = True
        self.sickness: DriverError | None = None
        self.lifecycle = FakeLifecycle(self.script)
        self.conditions = FakeConditions(self.script)
        self.attachments = FakeAttachments(self.script)
        self.snapshots = FakeSnapshots(self.script)
        self.groups = FakeGroups(self.script)
        self.changed_blocks = FakeChangedBlocks(self.script)
        self.mounts = FakeMounts(self.script)

    @property
    def calls(self) -> list[Call]:
        return self.script.calls

    def is_ready(self) -> bool:
        return self.ready

    def check(self) -> None:
        if self.sickness is not None:
            raise self.sickness

    def capacity(
        self, parameters: Parameters, segments: Mapping[str, str] | None
    ) -> CapacityFigures:
        self.script.run("capacity", parameters, segments)
        return CapacityFigures(available_bytes=9 * GIB, maximum_bytes=8 * GIB, minimum_bytes=4096)


class Client:
    """Stubs of all services over one socket."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel
        self.identity = csi_pb2_grpc.IdentityStub(channel)
        self.controller = csi_pb2_grpc.ControllerStub(channel)
        self.group = csi_pb2_grpc.GroupControllerStub(channel)
        self.metadata = csi_pb2_grpc.SnapshotMetadataStub(channel)
        self.node = csi_pb2_grpc.NodeStub(channel)

    def raw(self, method: str, data: bytes) -> bytes:
        """Calls a method with bytes that need not be a message."""
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes]
        call = self.channel.unary_unary(f"/csi.v1.{method}")
        return call(data, timeout=CALL_TIMEOUT_S)


@contextlib.contextmanager
def connected(path: Path) -> Iterator[Client]:
    """Connects to a socket, by a connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(f"unix:{path}", options=options) as channel:
        yield Client(channel)


@contextlib.contextmanager
def served(driver: FakeDriver, folder: Path) -> Iterator[Client]:
    """Serves a fake on one socket and connects to it."""
    path = folder / "csi.sock"
    server = Server(driver, str(path))
    server.start()
    try:
        with connected(path) as client:
            yield client
    finally:
        driver.script.gate.set()
        server.stop(CALL_TIMEOUT_S)


@contextlib.contextmanager
def captured_log(level: int = logging.DEBUG) -> Iterator[list[logging.LogRecord]]:
    """Collects the records of the wire's own logger."""
    records: list[logging.LogRecord] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    logger, handler = logging.getLogger("csi.rpc"), Collector()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        yield records
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def mount_capability(**fields: str) -> csi_pb2.VolumeCapability:
    """A capability of a filesystem with one writer."""
    return csi_pb2.VolumeCapability(
        mount=csi_pb2.VolumeCapability.MountVolume(**fields),
        access_mode=csi_pb2.VolumeCapability.AccessMode(
            mode=csi_pb2.VolumeCapability.AccessMode.SINGLE_NODE_WRITER
        ),
    )


def block_capability() -> csi_pb2.VolumeCapability:
    """A capability of a block device with one writer."""
    return csi_pb2.VolumeCapability(
        block=csi_pb2.VolumeCapability.BlockVolume(),
        access_mode=csi_pb2.VolumeCapability.AccessMode(
            mode=csi_pb2.VolumeCapability.AccessMode.SINGLE_NODE_WRITER
        ),
    )


def test_the_fake_and_the_real_driver_have_the_verbs() -> None:
    def takes(driver: type[verbs.Driver]) -> None:
        """The type checker does the work; it runs over tests too."""

    takes(FakeDriver)
    takes(real.Driver)
