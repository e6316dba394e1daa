"""The gRPC servers of the driver: their sockets, which services are on them, start and stop."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from csi.linux import processors
from csi.rpc import endpoint as endpoints
from csi.rpc.admission import Admission
from csi.rpc.controller import Controller
from csi.rpc.endpoint import FileIdentity
from csi.rpc.group_controller import GroupController
from csi.rpc.identity import Identity
from csi.rpc.interceptors import Calls
from csi.rpc.marking import MarkingController, MarkingNode
from csi.rpc.node import Node
from csi.rpc.snapshot_metadata import SnapshotMetadata
from csi.rpc.verbs import Driver
from csi.v1 import csi_pb2

WORKERS = 160
"""Threads for calls: the sidecars of a node make up to 130 at once."""
RESERVE = 16
"""Threads that are kept for Identity and health."""
MESSAGE_BYTES = 4 << 20
READINESS_POLL_S = 0.05
LAST_ANSWERS_S = 0.5
"""How long an answer may take to leave once its call has been worked on."""

_SERVICES = csi_pb2.DESCRIPTOR.services_by_name
IDENTITY = _SERVICES["Identity"]
CONTROLLER = _SERVICES["Controller"]
GROUP_CONTROLLER = _SERVICES["GroupController"]
SNAPSHOT_METADATA = _SERVICES["SnapshotMetadata"]
NODE = _SERVICES["Node"]

_log = logging.getLogger("csi.rpc")


_ALL: Mapping[str, Callable[[Driver], object]] = {
    IDENTITY.name: Identity,
    CONTROLLER.name: Controller,
    GROUP_CONTROLLER.name: GroupController,
    SNAPSHOT_METADATA.name: SnapshotMetadata,
    NODE.name: Node,
}
_MARKING: Mapping[str, Callable[[Driver], object]] = {
    IDENTITY.name: Identity,
    CONTROLLER.name: MarkingController,
    GROUP_CONTROLLER.name: MarkingController,
    SNAPSHOT_METADATA.name: MarkingController,
    NODE.name: MarkingNode,
}


class Socket(NamedTuple):
    """A socket that is served."""

    path: str
    identity: FileIdentity
    server: grpc.Server


class Server:
    """Serves the driver on one socket, or on one for the node and one for the controller."""

    def __init__(
        self,
        driver: Driver,
        endpoint: str,
        controller_endpoint: str = "",
        *,
        only_marks_growth: bool = False,
        workers: int = WORKERS,
        reserve: int = RESERVE,
    ) -> None:
        """Prepares to serve.

        Args:
            driver: What is served; it may still be starting.
            endpoint: The socket of all services, or of Identity and Node.
            controller_endpoint: The socket of Identity, Controller, GroupController and
                SnapshotMetadata; none means that `endpoint` has them.
            only_marks_growth: Whether this is the role that leaves growth to the nodes.
            workers: Calls that are worked on at once, those kept in reserve included.
            reserve: Workers that only Identity and health may use.

        Raises:
            InvalidRequest: An endpoint names no Unix socket.
        """
        self._driver = driver
        self._classes = _MARKING if only_marks_growth else _ALL
        path = endpoints.parse_endpoint(endpoint)
        controller_path = endpoints.parse_endpoint(controller_endpoint or endpoint)
        self._paths: dict[str, list[ServiceDescriptor]] = {path: [IDENTITY, NODE]}
        at_controller = self._paths.setdefault(controller_path, [IDENTITY])
        at_controller += [CONTROLLER, GROUP_CONTROLLER, SNAPSHOT_METADATA]
        self._admission = Admission(workers - reserve)
        # Threads start with the calls that need them; an idle driver has none.
        self._pool = ThreadPoolExecutor(
            workers, thread_name_prefix="rpc", initializer=processors.gather
        )
        self._sockets: list[Socket] = []
        self._health = health.HealthServicer()
        self._stopping = threading.Event()

    def start(self) -> None:
        """Makes the sockets and serves them; then the driver may start its own work.

        While a socket is made, files that other threads make get its narrow mode too.

        Raises:
            NotNow: Another process serves one of them, or what is there is no socket.
            InvalidRequest: The folder of one does not exist.
            Unavailable: One could not be made.
        """
        for path in self._paths:
            endpoints.clear(path)
        self._announce(health_pb2.HealthCheckResponse.NOT_SERVING)
        try:
            for path, services in self._paths.items():
                self._sockets.append(self._bind(path, services))
        except BaseException:
            self.stop(0)
            raise
        if self._driver.is_ready():
            self._announce(health_pb2.HealthCheckResponse.SERVING)
        else:
            threading.Thread(target=self._await_ready, name="readiness", daemon=True).start()
        with processors.gathered():
            for socket in self._sockets:
                socket.server.start()
        for socket in self._sockets:
            _log.info("serving", extra={"endpoint": socket.path})

    def stop(self, grace_s: float) -> bool:
        """Takes no more calls, lets those under way end, and removes the sockets.

        Args:
            grace_s: How long calls may go on.

        Returns:
            Whether all of them ended. One that did not goes on in its thread; its caller was told
            that the call is cancelled.
        """
        deadline = time.monotonic() + grace_s
        self._stopping.set()
        self._health.enter_graceful_shutdown()
        sockets, self._sockets = self._sockets, []
        ended = [socket.server.stop(grace_s) for socket in sockets]
        drained = self._admission.wait_idle(grace_s)
        for event in ended:
            event.wait(max(0.0, min(LAST_ANSWERS_S, deadline - time.monotonic())))
        for socket in sockets:
            # What is left are calls that did not end, and watchers of health, which never do.
            socket.server.stop(None)
            endpoints.remove(socket.path, socket.identity)
            _log.info("stopped", extra={"endpoint": socket.path, "drained": drained})
        self._pool.shutdown(wait=False, cancel_futures=True)
        return drained

    def _bind(self, path: str, services: Iterable[ServiceDescriptor]) -> Socket:
        server = grpc.server(
            self._pool, options=[("grpc.max_receive_message_length", MESSAGE_BYTES)]
        )
        calls = Calls(self._driver, self._admission)
        for service in services:
            methods = calls.methods(
                self._implementation(service), service, always=service is IDENTITY
            )
            # Known by name, a call is not looked for in one service after the other.
            server.add_registered_method_handlers(service.full_name, methods)
            handlers = grpc.method_handlers_generic_handler(service.full_name, methods)
            server.add_generic_rpc_handlers((handlers,))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        return Socket(path, endpoints.bind(path, server.add_insecure_port), server)

    def _implementation(self, service: ServiceDescriptor) -> object:
        return self._classes[service.name](self._driver)

    def _await_ready(self) -> None:
        while not self._stopping.wait(READINESS_POLL_S):
            if self._driver.is_ready():
                self._announce(health_pb2.HealthCheckResponse.SERVING)
                return

    def _announce(self, status: int) -> None:
        self._health.set("", status)
        for services in self._paths.values():
            for service in services:
                self._health.set(service.full_name, status)
