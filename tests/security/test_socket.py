"""Callers that mean ill, on the socket: the driver goes on answering the others."""

import contextlib
import os
import resource
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil
import pytest

from csi.v1 import csi_pb2 as pb
from csi.v1 import csi_pb2_grpc
from tests.contract import requests
from tests.contract.bench import wait_until
from tests.contract.refusals import Code, as_call
from tests.driver import Driver
from tests.security import scale

pytestmark = pytest.mark.kernel

PROBE_S = 1.0
IDLE = 1000
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
EMPTY_SETTINGS = b"\0\0\0\4\0\0\0\0\0"
HEADERS_WITHOUT_END = b"\0\0\4\1\0\0\0\0\1\x82\x86"
"""A frame that says it has four bytes, and two of them."""
NOBODY = 65534


@pytest.fixture
def driver(xfs_driver: Driver) -> Iterator[Driver]:
    yield xfs_driver
    expect_service(xfs_driver)


def path_of(driver: Driver) -> Path:
    return Path(driver.endpoint.removeprefix("unix://"))


def expect_service(driver: Driver) -> None:
    """A new caller gets Probe and a call that works on the pool in time."""
    with contextlib.closing(driver.connect(driver.endpoint)) as channel:
        started = time.monotonic()
        csi_pb2_grpc.IdentityStub(channel).Probe(pb.ProbeRequest(), timeout=PROBE_S)
        assert time.monotonic() - started < PROBE_S
    assert driver.identity.Probe(pb.ProbeRequest(), timeout=PROBE_S).ready.value
    assert driver.controller.ListVolumes(requests.list_volumes(), timeout=20) is not None


@contextlib.contextmanager
def connections(driver: Driver, number: int, first: bytes = b"") -> Iterator[list[socket.socket]]:
    """Opens connections, and says the same on each."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard == resource.RLIM_INFINITY or hard > number + 200, "too few descriptors"
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, number + 200), hard))
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        opened = []
        for _ in range(number):
            connection = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            connection.settimeout(20)
            connection.connect(str(path_of(driver)))
            if first:
                connection.sendall(first)
            opened.append(connection)
        yield opened


def test_the_socket_is_its_owners_alone(driver: Driver) -> None:
    status = path_of(driver).stat()
    assert stat.S_ISSOCK(status.st_mode)
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o600, os.geteuid())


def test_another_user_is_refused(driver: Driver) -> None:
    """Also one who can reach the folder that the socket is in."""
    folder = path_of(driver).parent
    mode = stat.S_IMODE(folder.stat().st_mode)
    script = (
        "import errno, os, socket, sys\n"
        # By itself: that user may not be able to read the interpreter.
        "os.setgroups([]), os.setgid(int(sys.argv[2])), os.setuid(int(sys.argv[2]))\n"
        "try: socket.socket(socket.AF_UNIX).connect(sys.argv[1])\n"
        "except OSError as error: print(errno.errorcode[error.errno])\n"
        "else: print('connected')"
    )
    folder.chmod(0o755)
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", script, str(path_of(driver)), str(NOBODY)],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    finally:
        folder.chmod(mode)
    assert done.stdout.strip() == "EACCES"


@pytest.mark.parametrize("first", [b"", PREFACE + EMPTY_SETTINGS], ids=["silent", "greeting"])
def test_a_thousand_idle_connections(driver: Driver, first: bytes) -> None:
    process = psutil.Process(driver.pid)
    before = process.num_fds()
    with connections(driver, IDLE, first) as opened:
        wait_until(lambda: process.num_fds() >= before + IDLE * 0.9, "that all were accepted")
        for _ in range(5):
            expect_service(driver)
        scale.FIGURES["idle connections"] += len(opened)
    wait_until(lambda: process.num_fds() <= before + 20, "that they were let go", 60)


@pytest.mark.parametrize(
    "said",
    [
        PREFACE[:10],
        PREFACE + EMPTY_SETTINGS + HEADERS_WITHOUT_END,
        PREFACE + b"\xff\xff\xff\0\0\0\0\0\1",
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(range(256)) * 4,
    ],
    ids=["half a greeting", "half a frame", "a huge frame", "another protocol", "noise"],
)
def test_half_open_connections(driver: Driver, said: bytes) -> None:
    with connections(driver, 100, said) as opened:
        for connection in opened[:50]:
            # They may be hung up on already.
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
        expect_service(driver)
        scale.FIGURES["half-open connections"] += len(opened)


def test_slow_writers(driver: Driver) -> None:
    """A byte at a time, on many connections at once."""
    text = PREFACE + EMPTY_SETTINGS + HEADERS_WITHOUT_END
    with connections(driver, 50) as opened:
        for place in range(len(text)):
            for connection in opened:
                with contextlib.suppress(OSError):
                    connection.send(text[place : place + 1])
            if place % 10 == 0:
                expect_service(driver)
        scale.FIGURES["slow writers"] += len(opened)


@pytest.mark.parametrize("size", [(4 << 20) + 1, 16 << 20, 64 << 20])
def test_a_message_that_is_too_large(driver: Driver, size: int) -> None:
    memory = psutil.Process(driver.pid).memory_info().rss
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = driver.channel.unary_unary(
        "/csi.v1.Controller/CreateVolume"
    )
    for _ in range(3):
        with pytest.raises(grpc.RpcError) as caught:
            call(b"\0" * size, timeout=60)
        assert as_call(caught.value).code() is Code.RESOURCE_EXHAUSTED
        assert as_call(caught.value).details()
        expect_service(driver)
    grown = psutil.Process(driver.pid).memory_info().rss - memory
    assert grown < 64 << 20, f"the driver kept {grown >> 20} MiB"


def test_callers_who_hang_up_halfway(driver: Driver) -> None:
    """With their calls under way; each place among the workers comes back."""
    for _ in range(200):
        with contextlib.closing(driver.connect(driver.endpoint)) as channel:
            stub = csi_pb2_grpc.ControllerStub(channel)
            stub.ListVolumes.future(requests.list_volumes(), timeout=20).cancel()
    scale.FIGURES["calls cancelled by hanging up"] += 200
    expect_service(driver)
