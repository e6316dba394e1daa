"""Running the driver: pools opened, sockets served, signals obeyed."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Iterator
from types import FrameType

from csi import footprint
from csi.config import Configuration, Role
from csi.linux import heap
from csi.observe.logs import configure_logging
from csi.pool.pool import Pool
from csi.rpc.server import Server
from csi.volumes.capacity import Ledger
from csi.volumes.driver import Driver
from csi.volumes.pools import Depot

_log = logging.getLogger(__name__)

_HEAPS = 2
_GRACE_S = 25.0
"""Kubernetes waits 30 s between SIGTERM and SIGKILL unless a pod says otherwise."""


def serve(configuration: Configuration) -> int:
    """Serves until SIGTERM or SIGINT, then lets the calls under way end; returns an exit code.

    Raises:
        PoolUnavailable: A pool is missing, not marked, or in use by another process.
        DriverError: The socket cannot be used.
    """
    configure_logging(configuration.log_level, configuration.log_format)
    heap.share(_HEAPS)
    with contextlib.ExitStack() as undo:
        asked_to_stop = undo.enter_context(_stop_signals())
        depots = []
        has_pools = configuration.role is Role.NODE
        for section in configuration.pools if has_pools else ():
            pool = Pool.open(section.name, section.path)
            undo.callback(pool.close)
            ledger = Ledger(pool.usage, ratio=section.ratio, margin_bytes=section.reserved_bytes)
            depots.append(Depot(pool, ledger))
        driver = Driver(configuration.settings, depots)
        server = Server(
            driver,
            configuration.endpoint,
            controller_endpoint=configuration.controller_endpoint,
            only_marks_growth=not has_pools,
        )
        undo.callback(driver.close)
        server.start()
        undo.callback(_stop, server)
        driver.start(footprint.settle)
        _log.info(
            "serving",
            extra={"endpoint": configuration.endpoint, "node_id": configuration.settings.node_id},
        )
        os.read(asked_to_stop, 1)
        _log.info("stopping")
    return 0


@contextlib.contextmanager
def _stop_signals() -> Iterator[int]:
    """Yields a descriptor that becomes readable when the process is asked to stop.

    The kernel gives a signal to any thread, and Python runs its handler on the main one alone,
    which a signal to another does not wake from waiting. What is written to a pipe does.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _note)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(-1)
        os.close(writer)
        os.close(reader)


def _note(number: int, frame: FrameType | None) -> None:
    del number, frame  # the wake-up descriptor has it already


def _stop(server: Server) -> None:
    """Lets the calls under way end.

    One that does not would keep the process, and the pool's lock, for as long as it hangs. What it
    leaves behind is what a crash leaves, and the next start mends it.
    """
    if not server.stop(_GRACE_S):
        _log.error("calls are still under way; ending without them")
        logging.shutdown()
        os._exit(1)
