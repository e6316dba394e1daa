"""Sockets, readiness, admission, start and stop of the server."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from csi.answers import CapacityFigures
from csi.errors import PoolUnavailable, Unavailable
from csi.model import Parameters
from csi.rpc import endpoint as endpoints
from csi.rpc.server import RESERVE, WORKERS, Server
from csi.v1 import csi_pb2
from tests.unit.test_rpc_fake import CALL_TIMEOUT_S, Client, FakeDriver, connected, served

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
DELETE = csi_pb2.DeleteVolumeRequest(volume_id="vol-1")


def health(client: Client, service: str = "") -> int:
    stub = health_pb2_grpc.HealthStub(client.channel)
    status: int = stub.Check(health_pb2.HealthCheckRequest(service=service)).status
    return status


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + CALL_TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.005)


@contextlib.contextmanager
def running(server: Server) -> Iterator[None]:
    server.start()
    try:
        yield
    finally:
        server.stop(CALL_TIMEOUT_S)


# --- sockets ---------------------------------------------------------------------------------


def test_two_sockets(tmp_path: Path) -> None:
    node, controller = tmp_path / "node.sock", tmp_path / "controller.sock"
    driver = FakeDriver()
    with (
        running(Server(driver, str(node), f"unix://{controller}")),
        connected(node) as at_node,
        connected(controller) as at_controller,
    ):
        for client in (at_node, at_controller):
            assert client.identity.Probe(csi_pb2.ProbeRequest()).ready.value
            assert health(client) == SERVING
        assert at_node.node.NodeGetInfo(csi_pb2.NodeGetInfoRequest()).node_id == "node-1"
        at_controller.controller.DeleteVolume(DELETE)
        at_controller.group.GroupControllerGetCapabilities(
            csi_pb2.GroupControllerGetCapabilitiesRequest()
        )
        for call in (
            lambda: at_node.controller.DeleteVolume(DELETE),
            lambda: at_controller.node.NodeGetInfo(csi_pb2.NodeGetInfoRequest()),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                call()
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        for path in (node, controller):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == []


def test_a_start_that_fails_halfway_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = endpoints.bind

    def bind_one(path: str, add_port: Callable[[str], int]) -> endpoints.FileIdentity:
        if path.endswith("controller.sock"):
            raise Unavailable("no")
        return original(path, add_port)

    monkeypatch.setattr(endpoints, "bind", bind_one)
    node, controller = tmp_path / "node.sock", tmp_path / "controller.sock"
    with pytest.raises(Unavailable):
        Server(FakeDriver(), str(node), str(controller)).start()
    assert list(tmp_path.iterdir()) == []


# --- readiness -------------------------------------------------------------------------------


def test_while_the_driver_starts(tmp_path: Path) -> None:
    driver = FakeDriver()
    driver.ready = False
    with served(driver, tmp_path) as client:
        probe = client.identity.Probe(csi_pb2.ProbeRequest())
        assert probe.HasField("ready")
        assert not probe.ready.value
        assert client.identity.GetPluginInfo(csi_pb2.GetPluginInfoRequest()).name
        client.identity.GetPluginCapabilities(csi_pb2.GetPluginCapabilitiesRequest())
        assert health(client) == NOT_SERVING
        assert health(client, "csi.v1.Controller") == NOT_SERVING
        with pytest.raises(grpc.RpcError) as caught:
            client.controller.DeleteVolume(DELETE)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "starting" in (caught.value.details() or "")
        assert driver.calls == []

        watch = health_pb2_grpc.HealthStub(client.channel).Watch(
            health_pb2.HealthCheckRequest(service="")
        )
        assert next(watch).status == NOT_SERVING
        driver.ready = True
        assert next(watch).status == SERVING
        for service in ("", "csi.v1.Identity", "csi.v1.Controller", "csi.v1.Node"):
            assert health(client, service) == SERVING
        watch.cancel()
        assert client.identity.Probe(csi_pb2.ProbeRequest()).ready.value
        client.controller.DeleteVolume(DELETE)


@pytest.mark.parametrize("ready", [True, False])
def test_a_driver_that_cannot_work(tmp_path: Path, ready: bool) -> None:
    driver = FakeDriver()
    driver.ready = ready
    driver.sickness = PoolUnavailable("pool fast carries no mark")
    with served(driver, tmp_path) as client:
        with pytest.raises(grpc.RpcError) as caught:
            client.identity.Probe(csi_pb2.ProbeRequest())
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert caught.value.details() == "the driver is not healthy: pool fast carries no mark"


def test_a_start_that_failed_is_told_to_every_caller(tmp_path: Path) -> None:
    driver = FakeDriver()
    driver.ready = False
    driver.sickness = PoolUnavailable("pool fast carries no mark")
    with served(driver, tmp_path) as client:
        with pytest.raises(grpc.RpcError) as caught:
            client.controller.DeleteVolume(DELETE)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert caught.value.details() == "pool fast carries no mark"


# --- admission -------------------------------------------------------------------------------


def test_blocked_calls_never_starve_probe(tmp_path: Path) -> None:
    limit = WORKERS - RESERVE
    driver = FakeDriver()
    driver.script.gate.clear()
    with served(driver, tmp_path) as client, ThreadPoolExecutor(limit) as callers:
        blocked = [callers.submit(client.controller.DeleteVolume, DELETE) for _ in range(limit)]
        wait_for(lambda: len(driver.calls) == limit)

        with pytest.raises(grpc.RpcError) as caught:
            client.controller.DeleteVolume(DELETE)
        assert caught.value.code() is grpc.StatusCode.ABORTED
        assert caught.value.details() == (
            "the driver is working on 144 calls, as many as it takes at once; try again"
        )
        durations = []
        for _ in range(50):
            started = time.perf_counter()
            client.identity.Probe(csi_pb2.ProbeRequest(), timeout=CALL_TIMEOUT_S)
            assert health(client) == SERVING
            durations.append(time.perf_counter() - started)
        assert sorted(durations)[len(durations) // 2] < 0.1

        driver.script.gate.set()
        for call in blocked:
            call.result(CALL_TIMEOUT_S)
        client.controller.DeleteVolume(DELETE)
        assert len(driver.calls) == limit + 1


def test_a_failed_call_gives_its_place_back(tmp_path: Path) -> None:
    driver = FakeDriver()
    path = tmp_path / "csi.sock"
    with running(Server(driver, str(path), workers=3, reserve=2)), connected(path) as client:
        driver.script.error = RuntimeError("odd")
        for _ in range(5):
            with pytest.raises(grpc.RpcError) as caught:
                client.controller.DeleteVolume(DELETE)
            assert caught.value.code() is grpc.StatusCode.INTERNAL


def test_both_sockets_share_the_places(tmp_path: Path) -> None:
    driver = FakeDriver()
    driver.script.gate.clear()
    node, controller = tmp_path / "node.sock", tmp_path / "controller.sock"
    server = Server(driver, str(node), str(controller), workers=3, reserve=2)
    with running(server), connected(node) as at_node, connected(controller) as at_controller:
        blocked = at_controller.controller.DeleteVolume.future(DELETE)
        wait_for(lambda: len(driver.calls) == 1)
        with pytest.raises(grpc.RpcError) as caught:
            at_node.node.NodeGetInfo(csi_pb2.NodeGetInfoRequest())
        assert caught.value.code() is grpc.StatusCode.ABORTED
        driver.script.gate.set()
        blocked.result(CALL_TIMEOUT_S)


def test_calls_take_turns_on_one_processor(tmp_path: Path) -> None:
    allowed = os.sched_getaffinity(0)
    seen: list[set[int]] = []

    class Watched(FakeDriver):
        def capacity(
            self, parameters: Parameters, segments: Mapping[str, str] | None
        ) -> CapacityFigures:
            seen.append(os.sched_getaffinity(0))
            return super().capacity(parameters, segments)

    with served(Watched(), tmp_path) as client, ThreadPoolExecutor(4) as callers:
        request = csi_pb2.GetCapacityRequest()
        for call in [callers.submit(client.controller.GetCapacity, request) for _ in range(8)]:
            call.result(CALL_TIMEOUT_S)
    assert len(seen) == 8
    assert {len(each) for each in seen} == {1}
    assert len(set().union(*seen)) == 1
    assert os.sched_getaffinity(0) == allowed


# --- stop ------------------------------------------------------------------------------------


def test_stop_lets_calls_end_and_takes_no_more(tmp_path: Path) -> None:
    driver = FakeDriver()
    driver.script.gate.clear()
    path = tmp_path / "csi.sock"
    server = Server(driver, str(path))
    server.start()
    with connected(path) as client, ThreadPoolExecutor(1) as stopping:
        watch = health_pb2_grpc.HealthStub(client.channel).Watch(
            health_pb2.HealthCheckRequest(service="")
        )
        assert next(watch).status == SERVING
        call = client.controller.DeleteVolume.future(DELETE)
        wait_for(lambda: len(driver.calls) == 1)
        stopped = stopping.submit(server.stop, CALL_TIMEOUT_S)
        assert next(watch).status == NOT_SERVING
        wait_for(lambda: not path.exists())
        with connected(path) as late, pytest.raises(grpc.RpcError) as caught:
            late.controller.DeleteVolume(DELETE)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert not stopped.done()
        driver.script.gate.set()
        call.result(CALL_TIMEOUT_S)
        # The watcher of health, who never ends, does not use up the grace.
        started = time.monotonic()
        assert stopped.result(CALL_TIMEOUT_S)
        assert time.monotonic() - started < CALL_TIMEOUT_S / 4
    assert len(driver.calls) == 1


def test_stop_does_not_wait_for_ever(tmp_path: Path) -> None:
    driver = FakeDriver()
    driver.script.gate.clear()
    path = tmp_path / "csi.sock"
    server = Server(driver, str(path))
    server.start()
    with connected(path) as client:
        call = client.controller.DeleteVolume.future(DELETE)
        wait_for(lambda: len(driver.calls) == 1)
        started = time.monotonic()
        assert not server.stop(0.2)
        assert time.monotonic() - started < CALL_TIMEOUT_S / 4
        assert isinstance(call.exception(CALL_TIMEOUT_S), grpc.RpcError)
    driver.script.gate.set()


def test_stop_is_not_held_up_by_a_silent_connection(tmp_path: Path) -> None:
    path = tmp_path / "csi.sock"
    server = Server(FakeDriver(), str(path))
    server.start()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(str(path))
        started = time.monotonic()
        assert server.stop(CALL_TIMEOUT_S)
        assert time.monotonic() - started < CALL_TIMEOUT_S / 4


def test_stop_twice_and_without_start(tmp_path: Path) -> None:
    server = Server(FakeDriver(), str(tmp_path / "csi.sock"))
    assert server.stop(0)
    assert server.stop(1)


def test_a_new_server_follows_at_once(tmp_path: Path) -> None:
    for _ in range(3):
        with served(FakeDriver(), tmp_path) as client:
            assert client.identity.Probe(csi_pb2.ProbeRequest()).ready.value


def test_no_thread_is_left_behind(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    driver = FakeDriver()
    driver.ready = False
    with served(driver, tmp_path) as client:
        client.identity.Probe(csi_pb2.ProbeRequest())
    wait_for(lambda: not [t for t in set(threading.enumerate()) - before if not t.daemon])
