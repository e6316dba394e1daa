"""The driver in this process, called as gRPC calls it: for tests that make very many calls.

What a request goes through is what it goes through on the wire, from the bytes on: the table of
methods, the interceptor, the verbs, real pools. Only gRPC's own transport is left out.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import grpc

from csi.config import Flags, load
from csi.pool.pool import Pool
from csi.rpc.admission import Admission
from csi.rpc.controller import Controller
from csi.rpc.group_controller import GroupController
from csi.rpc.identity import Identity
from csi.rpc.interceptors import Calls
from csi.rpc.node import Node
from csi.rpc.snapshot_metadata import SnapshotMetadata
from csi.v1 import csi_pb2 as pb
from csi.volumes.capacity import Ledger
from csi.volumes.driver import Driver
from csi.volumes.pools import Depot
from tests.driver import NODE_ID

START_TIMEOUT_S = 30.0


class Answer(NamedTuple):
    """What came of a call."""

    code: grpc.StatusCode
    message: str
    data: bytes


class _AbortedError(Exception):
    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__()
        self.code = code
        self.message = message


class _Context:
    def abort(self, code: grpc.StatusCode, message: str) -> NoReturn:
        raise _AbortedError(code, message)


class Inside:
    """Answers calls by name; see the module."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        calls = Calls(driver, Admission(16))
        services = (Identity, Controller, GroupController, SnapshotMetadata, Node)
        self._behaviours: dict[str, Callable[[bytes], bytes]] = {}
        for service in services:
            descriptor = pb.DESCRIPTOR.services_by_name[service.__name__]
            methods = calls.methods(service(driver), descriptor, always=service is Identity)
            for name, handler in methods.items():
                self._behaviours[name] = _behaviour(handler)

    def call(self, rpc: str, request: bytes) -> Answer:
        """Makes a call."""
        try:
            return Answer(grpc.StatusCode.OK, "", self._behaviours[rpc](request))
        except _AbortedError as aborted:
            return Answer(aborted.code, aborted.message, b"")


def _behaviour(handler: Any) -> Callable[[bytes], bytes]:
    context = _Context()
    if handler.response_streaming:
        return lambda request: b"".join(handler.unary_stream(request, context))
    behaviour: Callable[[bytes, Any], bytes] = handler.unary_unary
    return lambda request: behaviour(request, context)


@contextlib.contextmanager
def running(pools: Sequence[tuple[str, Path]], folder: Path) -> Iterator[Inside]:
    """Runs the driver over marked pools, the first of them the default."""
    file = folder / "config.yaml"
    sections = "".join(f"  - {{name: {name}, path: {path}}}\n" for name, path in pools)
    file.write_text(
        "apiVersion: local-path.csi.dev/v1\nkind: DriverConfiguration\n"
        f"pools:\n{sections}inlineVolumes: {{maxVolumes: 3, maxSize: 512Mi, defaultSize: 64Mi}}\n"
    )
    flags = Flags(config=str(file), endpoint=f"unix://{folder}/csi.sock", node_id=NODE_ID)
    configuration = load(flags, {})
    with contextlib.ExitStack() as stack:
        depots = []
        for section in configuration.pools:
            pool = Pool.open(section.name, section.path)
            stack.callback(pool.close)
            ledger = Ledger(pool.usage, ratio=section.ratio, margin_bytes=section.reserved_bytes)
            depots.append(Depot(pool, ledger))
        driver = Driver(configuration.settings, depots)
        driver.start()
        stack.callback(driver.close)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not driver.is_ready():
            driver.check()
            assert time.monotonic() < deadline, "the driver did not become ready"
            time.sleep(0.01)
        yield Inside(driver)
