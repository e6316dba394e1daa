"""What our own driver is measured on: pools in files of their own, and the driver over them."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import grpc

from bench.life import MIB, Kind
from csi.linux import mounts
from csi.v1 import csi_pb2 as pb
from csi.v1 import csi_pb2_grpc

_COMMAND = [sys.executable, "-m", "csi.cli"]
_POOL_SIZE = "64Gi"
_RATIO = 1000  # what is measured is no promise to anybody
_START_S, _STOP_S, _UNMOUNT_S = 300.0, 60.0, 15.0
_IMAGE_BYTES = 320 * MIB  # the least that XFS is made in, rounded up
XFS, BTRFS = "xfs", "btrfs"

KINDS = (
    Kind("directory", _IMAGE_BYTES, parameters={"kind": "directory", "pool": BTRFS}),
    Kind(
        "unenforced",
        _IMAGE_BYTES,
        parameters={"kind": "directory", "enforceSize": "false", "pool": XFS},
    ),
    Kind("ext4", _IMAGE_BYTES, "ext4", parameters={"pool": XFS}),
    Kind("xfs", _IMAGE_BYTES, "xfs", parameters={"pool": XFS}),
    Kind("btrfs", _IMAGE_BYTES, "btrfs", parameters={"pool": XFS}),
    Kind("block", _IMAGE_BYTES, block=True, parameters={"pool": XFS}),
    Kind("plain", MIB, parameters={"kind": "directory", "enforceSize": "false", "pool": XFS}),
)
"""The kinds of our own driver; "plain" is for filling a pool."""


class GroundError(Exception):
    """The measurement cannot begin or go on; the message says why."""


@contextlib.contextmanager
def place(parent: str) -> Iterator[Path]:
    """Yields a folder for all that is made, and removes it unless something is mounted there."""
    folder = Path(tempfile.mkdtemp(prefix="csi-bench-", dir=parent or "/var/tmp"))  # noqa: S108
    try:
        yield folder
    finally:
        if left := still_mounted(folder):
            print(f"left as it is, because of what is mounted: {', '.join(left)}", file=sys.stderr)
        else:
            shutil.rmtree(folder)


@contextlib.contextmanager
def pools(folder: Path, path: str) -> Iterator[Mapping[str, Path]]:
    """Yields the pools by name: one of xfs and one of btrfs, or the one at `path` as both."""
    if path:
        pool = Path(path).absolute()
        if not (pool / "pool.json").exists():
            _command("pool", "create", str(pool))
        yield {XFS: pool}
        return
    made: dict[str, Path] = {}
    try:
        for filesystem in (XFS, BTRFS):
            made[filesystem] = folder / f"pool-{filesystem}"
            file = str(folder / f"{filesystem}.img")
            options = ["--file", file, "--size", _POOL_SIZE, "--filesystem", filesystem]
            _command("pool", "create", str(made[filesystem]), *options)
        yield made
    finally:
        for pool in made.values():
            _unmount(pool)


class OwnDriver:
    """Our driver as a process, over all its starts."""

    def __init__(self, pools: Mapping[str, Path], folder: Path) -> None:
        self.endpoint = f"unix://{folder}/csi.sock"
        self._log = folder / "driver.log"
        configuration = folder / "config.yaml"
        sections = [
            f"  - {{name: {name}, path: {path}, overProvisioningRatio: {_RATIO}}}"
            for name, path in pools.items()
        ]
        head = ["apiVersion: local-path.csi.dev/v1", "kind: DriverConfiguration", "pools:"]
        configuration.write_text("\n".join([*head, *sections, ""]), encoding="utf-8")
        self._arguments = ["serve", "--config", str(configuration), "--node-id", "bench-node"]
        # Compiled once, as in the image: else each start would compile the driver again wherever
        # the environment forbids to keep what is compiled.
        self._environment = dict(os.environ, PYTHONPYCACHEPREFIX=str(folder / "bytecode"))
        self._environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, cold: bool = False) -> float:
        """Starts it and returns the seconds from then until it was ready."""
        if cold:
            os.sync()
            Path("/proc/sys/vm/drop_caches").write_text("3", encoding="ascii")
        with self._log.open("ab") as log:
            begin = time.perf_counter()
            self._process = subprocess.Popen(
                [*_COMMAND, *self._arguments, "--endpoint", self.endpoint],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )
        self._wait_ready(begin + _START_S)
        return time.perf_counter() - begin

    def restart(self, *, cold: bool = False) -> float:
        """Stops and starts it; returns the seconds from the start until it was ready."""
        self.stop()
        return self.start(cold=cold)

    def stop(self) -> None:
        """Ends it, the hard way if it must be."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def log_tail(self) -> str:
        """Returns the end of its log."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-10:])

    def _wait_ready(self, deadline: float) -> None:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        path = self.endpoint.removeprefix("unix://")
        while self._process is not None and self._process.poll() is None:
            if time.perf_counter() > deadline:
                break
            if not os.path.exists(path):
                time.sleep(0.002)
                continue
            with grpc.insecure_channel(self.endpoint, options=options) as channel:
                probe = csi_pb2_grpc.IdentityStub(channel).Probe
                with contextlib.suppress(grpc.RpcError):
                    while not probe(pb.ProbeRequest(), timeout=5, wait_for_ready=True).ready.value:
                        time.sleep(0.002)
                    return
        raise GroundError(f"the driver did not start; its log ends:\n{self.log_tail()}")


def kinds_for(pools: Mapping[str, Path]) -> dict[str, Kind]:
    """Returns the kinds that can be had in these pools."""
    if BTRFS in pools:
        return {kind.name: kind for kind in KINDS}
    alone = next(iter(pools))
    return {
        kind.name: kind._replace(parameters={**kind.parameters, "pool": alone}) for kind in KINDS
    }


def still_mounted(folder: Path) -> Sequence[str]:
    """Returns what is mounted below a folder."""
    return [m.target for m in mounts.read_mounts() if m.target.startswith(f"{folder}/")]


def _unmount(pool: Path) -> None:
    """Unmounts a pool, once the kernel has let go of the loop devices on files in it."""
    deadline = time.monotonic() + _UNMOUNT_S
    while True:
        try:
            mounts.unmount(str(pool))
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                return  # `place` says what is left
        time.sleep(0.02)


def _command(*arguments: str) -> None:
    done = subprocess.run(
        [*_COMMAND, *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode != 0:
        raise GroundError(done.stderr.strip() or done.stdout.strip())
