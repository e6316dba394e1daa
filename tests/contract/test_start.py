"""Starting: what the driver refuses to start over, and what it says while it starts."""

import json
import os
import shutil
import socket
import stat
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from csi.v1 import csi_pb2 as pb
from csi.v1 import csi_pb2_grpc
from tests.contract import requests
from tests.contract.bench import Bench, wait_until
from tests.contract.command import FAILED, csi_local_path, fails
from tests.contract.node_fixtures import entry_of, run
from tests.contract.refusals import Code, refused
from tests.contract.requests import MIB, raw_block
from tests.driver import COMMAND, Driver, create_pool, running_driver
from tests.kubelet import Kubelet

pytestmark = pytest.mark.kernel


@pytest.fixture
def bench(xfs_pool: Path, tmp_path: Path) -> Iterator[Bench]:
    with running_driver(xfs_pool, tmp_path) as driver:
        bench = Bench(driver, Kubelet(tmp_path / "kubelet"), xfs_pool)
        yield bench
        if not driver.running:
            driver.start()
        bench.clean_up()


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A folder with a path short enough for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="csi-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


def _serve(pool: Path, endpoint: Path | str) -> str:
    """Serves, expects that this is refused, and returns the complaint."""
    text = fails(FAILED, "serve", "--pool", pool, "--endpoint", f"unix://{endpoint}")
    return text.splitlines()[-1]


def test_a_second_driver_over_the_same_pool_is_refused(bench: Bench, sockets: Path) -> None:
    complaint = _serve(bench.pool, sockets / "other.sock")

    assert str(bench.pool) in complaint
    assert "in use by another driver" in complaint
    assert not (sockets / "other.sock").exists()
    assert bench.driver.identity.Probe(pb.ProbeRequest()).ready.value


def test_a_second_driver_on_a_live_socket_is_refused(bench: Bench, tmp_path: Path) -> None:
    pool = tmp_path / "other-pool"
    create_pool(pool)
    path = bench.driver.endpoint.removeprefix("unix://")

    complaint = _serve(pool, path)

    assert path in complaint
    assert "another process is serving" in complaint
    assert bench.driver.identity.Probe(pb.ProbeRequest()).ready.value


def test_a_socket_that_a_dead_driver_left_is_replaced(bench: Bench) -> None:
    path = Path(bench.driver.endpoint.removeprefix("unix://"))
    bench.driver.kill()
    assert path.is_socket()

    bench.driver.start()

    assert bench.driver.identity.Probe(pb.ProbeRequest()).ready.value


def test_the_socket_is_the_owners_alone_and_goes_with_the_driver(bench: Bench) -> None:
    path = Path(bench.driver.endpoint.removeprefix("unix://"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == [path.name]

    bench.driver.stop_cleanly()

    assert os.listdir(path.parent) == []


def test_what_is_no_socket_is_not_replaced(tmp_path: Path, sockets: Path) -> None:
    pool = tmp_path / "pool"
    create_pool(pool)
    (sockets / "csi.sock").write_text("somebody's")

    complaint = _serve(pool, sockets / "csi.sock")

    assert str(sockets / "csi.sock") in complaint
    assert "no socket" in complaint
    assert (sockets / "csi.sock").read_text() == "somebody's"


def test_a_socket_whose_folder_is_missing_is_refused(tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    create_pool(pool)

    complaint = _serve(pool, "/nowhere/at/all/csi.sock")

    assert "/nowhere/at/all" in complaint


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1:1", "csi.sock", "unix://", "/" + "x" * 200])
def test_an_endpoint_that_is_no_socket_is_refused(tmp_path: Path, endpoint: str) -> None:
    pool = tmp_path / "pool"
    create_pool(pool)

    assert endpoint[:50] in fails(FAILED, "serve", "--pool", pool, "--endpoint", endpoint)


@pytest.mark.parametrize("content", ["nothing", "somebody-elses"])
def test_a_directory_without_a_mark_is_refused(tmp_path: Path, sockets: Path, content: str) -> None:
    """It may be the mount point of a disk that is not mounted: volumes made there would vanish."""
    pool = tmp_path / "pool"
    pool.mkdir()
    if content != "nothing":
        (pool / content).write_text("data")
    before = os.listdir(pool)

    complaint = _serve(pool, sockets / "csi.sock")

    assert str(pool) in complaint
    assert "mark" in complaint
    assert "mount" in complaint
    assert f"pool create {pool}" in complaint
    assert os.listdir(pool) == before


def test_a_pool_that_is_not_mounted_is_refused(sockets: Path, tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    created = csi_local_path("pool", "create", pool, "--file", tmp_path / "img", "--size", "300Mi")
    assert created.returncode == 0
    run("umount", str(pool))

    assert "mark" in _serve(pool, sockets / "csi.sock")
    assert os.listdir(pool) == []


def test_a_pool_that_is_not_there_is_refused(tmp_path: Path, sockets: Path) -> None:
    complaint = _serve(tmp_path / "nowhere", sockets / "csi.sock")

    assert str(tmp_path / "nowhere") in complaint
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("damage", ["empty", "noise", "newer", "no uuid"])
def test_a_mark_that_makes_no_sense_is_refused(tmp_path: Path, sockets: Path, damage: str) -> None:
    pool = tmp_path / "pool"
    create_pool(pool)
    mark = pool / "pool.json"
    known = json.loads(mark.read_text())
    mark.write_text(
        {
            "empty": "",
            "noise": "\x00\x01",
            "newer": json.dumps(known | {"apiVersion": "local-path.csi.dev/v2"}),
            "no uuid": json.dumps(known | {"uuid": "../../etc"}),
        }[damage]
    )

    complaint = _serve(pool, sockets / "csi.sock")

    assert str(pool) in complaint
    assert ("version" if damage == "newer" else "damaged") in complaint


def test_while_it_starts_it_says_that_it_is_not_ready(bench: Bench) -> None:
    """Sidecars wait for ready=false to pass, and exit at any error."""
    volume_id = bench.create(size=MIB, capability=raw_block()).volume_id
    record = entry_of(bench.pool, volume_id) / "record.json"
    bench.driver.stop_cleanly()
    content = record.read_bytes()
    record.unlink()
    # Whoever reads this waits until somebody writes: so the start takes as long as we like.
    os.mkfifo(record)
    starting = threading.Thread(target=bench.driver.start)
    starting.start()
    try:
        _expect_not_ready(bench.driver)
    finally:
        record.write_bytes(content)
        starting.join()
    record.unlink()
    record.write_bytes(content)

    assert bench.driver.identity.Probe(pb.ProbeRequest()).ready.value
    found = bench.driver.controller.ControllerGetVolume(requests.get_volume(volume_id))
    assert found.volume.volume_id == volume_id


def _expect_not_ready(driver: Driver) -> None:
    path = Path(driver.endpoint.removeprefix("unix://"))
    wait_until(path.is_socket, "that the socket was made")
    with driver.connect(driver.endpoint) as channel:
        grpc.channel_ready_future(channel).result(timeout=10)
        answer = csi_pb2_grpc.IdentityStub(channel).Probe(pb.ProbeRequest())
        assert answer.HasField("ready")
        assert not answer.ready.value
        plugin = csi_pb2_grpc.IdentityStub(channel).GetPluginInfo(pb.GetPluginInfoRequest())
        assert plugin.name
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert health.status == health_pb2.HealthCheckResponse.NOT_SERVING
        with refused(Code.UNAVAILABLE, "starting"):
            csi_pb2_grpc.ControllerStub(channel).CreateVolume(requests.create_volume("early"))


def test_health_is_serving_once_it_is_ready(bench: Bench) -> None:
    stub = health_pb2_grpc.HealthStub(bench.driver.channel)

    def is_serving(service: str) -> bool:
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service))
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    for service in ("", "csi.v1.Identity", "csi.v1.Controller", "csi.v1.Node"):
        wait_until(partial(is_serving, service), f"that {service!r} is served")


def test_a_pool_that_is_mounted_read_only_is_refused(tmp_path: Path, sockets: Path) -> None:
    pool = tmp_path / "pool"
    create_pool(pool, "--file", str(tmp_path / "img"), "--size", "300Mi")
    run("mount", "-o", "remount,ro", str(pool))
    try:
        complaint = _serve(pool, sockets / "csi.sock")

        assert str(pool) in complaint
        assert "Read-only" in complaint
    finally:
        run("umount", str(pool))


def test_a_driver_that_is_asked_to_stop_at_once_ends_well(tmp_path: Path, sockets: Path) -> None:
    pool = tmp_path / "pool"
    create_pool(pool)
    endpoint = sockets / "csi.sock"
    process = subprocess.Popen(
        [*COMMAND, "serve", "--pool", str(pool), "--endpoint", str(endpoint)],
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(endpoint.is_socket, "that the socket was made")
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
    with pytest.raises(FileNotFoundError), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(endpoint))
