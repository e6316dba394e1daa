"""What the tour stands on: a pool of its own, and the driver as a process."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import grpc

from csi.linux import mounts
from csi.v1 import csi_pb2 as pb
from csi.v1 import csi_pb2_grpc

POOL_SIZE = "20Gi"
NODE_ID = "demo-node"
_COMMAND = [sys.executable, "-m", "csi.cli"]
_START_S = 20.0
_STOP_S = 30.0


class DemoError(Exception):
    """The tour cannot go on; the message says why."""


class Services:
    """The driver's services behind one channel."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.identity = csi_pb2_grpc.IdentityStub(channel)
        self.controller = csi_pb2_grpc.ControllerStub(channel)
        self.node = csi_pb2_grpc.NodeStub(channel)


@contextlib.contextmanager
def pool(path: str) -> Iterator[Path]:
    """Yields the pool at `path`, made if it is none yet; with no path, one for this run alone."""
    if path:
        folder = Path(path).absolute()
        if not (folder / "pool.json").exists():
            _command("pool", "create", str(folder))
        yield folder
        return
    place = Path(tempfile.mkdtemp(prefix="demo-pool-", dir=Path.cwd()))
    folder = place / "pool"
    try:
        _command(
            "pool", "create", str(folder), "--file", str(place / "pool.img"), "--size", POOL_SIZE
        )
        yield folder
    finally:
        with contextlib.suppress(OSError):
            mounts.unmount(str(folder))
        shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def driver(pool_path: Path, log_path: Path) -> Iterator[Services]:
    """Runs the driver over a pool and yields its services once it is ready."""
    folder = Path(tempfile.mkdtemp(prefix="csi-demo-"))
    endpoint = f"unix://{folder}/csi.sock"
    arguments = ["--endpoint", endpoint, "--node-id", NODE_ID, "--pool", str(pool_path)]
    with contextlib.ExitStack() as undo:
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        log = undo.enter_context(log_path.open("ab"))
        process = subprocess.Popen(
            [*_COMMAND, "serve", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        undo.callback(_stop, process)
        channel = undo.enter_context(grpc.insecure_channel(endpoint))
        services = Services(channel)
        _wait_ready(process, services, log_path)
        yield services


def serve(pool_path: Path, endpoint: str) -> int:
    """Runs the driver in the foreground until it is told to stop; returns its exit status."""
    process = subprocess.Popen(
        [*_COMMAND, "serve", "--endpoint", endpoint, "--node-id", NODE_ID, "--pool", str(pool_path)]
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: process.send_signal(received))
    return process.wait()


def still_attached(folder: Path) -> list[str]:
    """Returns what is mounted below a folder, or attached from it."""
    below = [mount.target for mount in mounts.read_mounts() if f"{folder}/" in mount.target]
    for name in os.listdir("/sys/block"):
        file = Path(f"/sys/block/{name}/loop/backing_file")
        with contextlib.suppress(OSError):
            if f"{folder}/volumes" in file.read_text():
                below.append(f"/dev/{name}")
    return below


def _command(*arguments: str) -> None:
    done = subprocess.run(
        [*_COMMAND, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode != 0:
        raise DemoError(done.stderr.strip() or done.stdout.strip())


def _wait_ready(process: subprocess.Popen[bytes], services: Services, log_path: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(grpc.RpcError):
            if services.identity.Probe(pb.ProbeRequest(), timeout=1).ready.value:
                return
        time.sleep(0.05)
    tail = "\n".join(log_path.read_text(errors="replace").splitlines()[-10:])
    raise DemoError(f"the driver did not start; its log ends:\n{tail}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
