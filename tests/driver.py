"""Runs the real driver as a process of its own and talks to it over its real socket."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc

from csi.v1 import csi_pb2, csi_pb2_grpc
from tests.leftovers import Before, release_leftovers

NODE_ID = "node-1"
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 30.0
LOG_TAIL_LINES = 30
COMMAND = [sys.executable, "-m", "csi.cli"]

_CHANNEL_OPTIONS = [
    # A restarted driver is found again at once, not after gRPC's usual patience.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
    # Otherwise a new channel inherits the connection, and the backoff, of the one before.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
]


class DriverFailedError(AssertionError):
    """The driver did not start or did not end as it should; carries the end of its log."""


def create_pool(path: Path, *arguments: str) -> None:
    """Makes the directory a pool, by the command that an administrator uses."""
    done = subprocess.run(
        [*COMMAND, "pool", "create", str(path), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"pool create failed: {done.stderr or done.stdout}"


class Driver:
    """One driver, over all its restarts.

    The stubs belong to the process that runs now: take them from here for each call, since those
    from before a restart are closed.
    """

    channel: grpc.Channel
    controller_channel: grpc.Channel
    identity: csi_pb2_grpc.IdentityStub
    controller: csi_pb2_grpc.ControllerStub
    group: csi_pb2_grpc.GroupControllerStub
    metadata: csi_pb2_grpc.SnapshotMetadataStub
    node: csi_pb2_grpc.NodeStub

    def __init__(
        self, command: Sequence[str], endpoint: str, controller_endpoint: str, log: Path
    ) -> None:
        self.endpoint = endpoint
        self.controller_endpoint = controller_endpoint
        self._command = list(command)
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id of the driver, or of the last one that ran."""
        assert self._process is not None, "the driver was never started"
        return self._process.pid

    def log_text(self) -> str:
        """Everything the driver has written, over all its restarts."""
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""

    def log_tail(self) -> str:
        """The end of the log, for the message of a failure."""
        lines = self.log_text().splitlines()[-LOG_TAIL_LINES:]
        return "its log ends:\n  " + "\n  ".join(lines) if lines else "its log is empty"

    def start(self) -> None:
        """Starts the process and waits until it says that it is ready."""
        assert not self.running, "the driver is running already"
        with self._log.open("ab") as log:
            # A session of its own, so that Ctrl-C in the terminal reaches only the test, which then
            # stops the driver in order.
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={k: v for k, v in os.environ.items() if k != "CSI_ENDPOINT"},
            )
        self.channel = self.connect(self.endpoint)
        self.controller_channel = (
            self.channel
            if self.controller_endpoint == self.endpoint
            else self.connect(self.controller_endpoint)
        )
        self.identity = csi_pb2_grpc.IdentityStub(self.channel)
        self.node = csi_pb2_grpc.NodeStub(self.channel)
        self.controller = csi_pb2_grpc.ControllerStub(self.controller_channel)
        self.group = csi_pb2_grpc.GroupControllerStub(self.controller_channel)
        self.metadata = csi_pb2_grpc.SnapshotMetadataStub(self.controller_channel)
        deadline = time.monotonic() + START_TIMEOUT_S
        for channel in {self.channel, self.controller_channel}:
            self._wait_until_ready(csi_pb2_grpc.IdentityStub(channel), deadline)

    def connect(self, endpoint: str) -> grpc.Channel:
        """Opens one more channel, for a test that wants its own; the caller closes it."""
        return grpc.insecure_channel(endpoint, options=_CHANNEL_OPTIONS)

    def stop(self) -> int:
        """Ends the driver by SIGTERM, as the kubelet does. Returns its exit status."""
        process = self._signal(signal.SIGTERM)
        try:
            return process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            process.kill()
            process.wait()
            raise DriverFailedError(
                f"the driver did not end within {STOP_TIMEOUT_S:.0f} s of SIGTERM; "
                + self.log_tail()
            ) from error

    def stop_cleanly(self) -> None:
        """Ends the driver by SIGTERM and fails unless it says that all is well."""
        status = self.stop()
        if status != 0:
            raise DriverFailedError(
                f"the driver ended with status {status} after SIGTERM; {self.log_tail()}"
            )

    def kill(self) -> None:
        """Ends the driver by SIGKILL, as the kernel does when memory is short."""
        self._signal(signal.SIGKILL).wait()

    def restart(self) -> None:
        """Stops the driver where it runs, and starts it over the same pool and sockets."""
        if self.running:
            self.stop_cleanly()
        self.start()

    def close(self) -> None:
        """Ends the process, the hard way if it must be, and raises nothing."""
        if self.running:
            with contextlib.suppress(DriverFailedError):
                self.stop()
        self._close_channels()

    def _signal(self, number: signal.Signals) -> subprocess.Popen[bytes]:
        assert self._process is not None, "the driver was never started"
        self._close_channels()
        self._process.send_signal(number)
        return self._process

    def _close_channels(self) -> None:
        for name in ("channel", "controller_channel"):
            if (channel := getattr(self, name, None)) is not None:
                channel.close()

    def _wait_until_ready(self, identity: csi_pb2_grpc.IdentityStub, deadline: float) -> None:
        answer = "nothing"
        while time.monotonic() < deadline:
            if not self.running:
                assert self._process is not None
                raise DriverFailedError(
                    f"the driver ended with status {self._process.returncode} before it was "
                    f"ready; {self.log_tail()}"
                )
            try:
                reply = identity.Probe(csi_pb2.ProbeRequest(), timeout=1)
            except grpc.RpcError as error:
                answer = str(error)
            else:
                # Left out, it means that the driver is ready.
                if not reply.HasField("ready") or reply.ready.value:
                    return
                answer = "ready=false"
            time.sleep(0.02)
        raise DriverFailedError(
            f"the driver was not ready within {START_TIMEOUT_S:.0f} s; Probe last answered "
            f"{answer}; {self.log_tail()}"
        )


@contextlib.contextmanager
def running_driver(
    pool: Path,
    directory: Path,
    *,
    arguments: Sequence[str] = (),
    config: str | None = None,
    split: bool = False,
    program: Sequence[str] = (),
) -> Iterator[Driver]:
    """Runs the driver over a pool and ends it afterwards, whatever happened meanwhile.

    Args:
        pool: A directory that `csi-local-path pool create` has marked.
        directory: The test's own folder: the log and the configuration go there, and whatever is
            mounted below it meanwhile belongs to the test.
        arguments: More arguments for `serve`; one given twice counts as given last.
        config: The text of a configuration file.
        split: Whether the controller gets a socket of its own.
        program: What to run in place of the command, such as one with shorter intervals.

    Raises:
        DriverFailedError: It did not start, or its last end was not a clean one.
        AssertionError: The test passed but left something mounted or attached. After a test that
            failed the same is cleared away in silence.
    """
    # A socket's path holds 107 bytes at most; a test's own folder alone can be longer.
    sockets = Path(tempfile.mkdtemp(prefix="csi-", dir="/tmp"))
    endpoint = f"unix://{sockets}/csi.sock"
    controller_endpoint = f"unix://{sockets}/controller.sock" if split else endpoint
    program = program or COMMAND
    command = [*program, "serve", "--endpoint", endpoint, "--node-id", NODE_ID, "--pool", str(pool)]
    if split:
        command += ["--controller-endpoint", controller_endpoint]
    if config is not None:
        file = directory / "config.yaml"
        file.write_text(config, encoding="utf-8")
        command += ["--config", str(file)]
    driver = Driver([*command, *arguments], endpoint, controller_endpoint, directory / "driver.log")
    before = Before.now()
    try:
        driver.start()
        yield driver
        if driver.running:
            driver.stop_cleanly()
    except BaseException:
        driver.close()
        release_leftovers(before, directory, pool)
        raise
    else:
        left = release_leftovers(before, directory, pool)
        assert not left, f"the test left behind, and this removed: {', '.join(left)}"
    finally:
        driver.close()
        shutil.rmtree(sockets, ignore_errors=True)
