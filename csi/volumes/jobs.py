"""Long work in the background: bounded in number, stopped at shutdown, cancelled by key."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for

from csi.linux import processors
from csi.pool.image import KeepGoing

_log = logging.getLogger(__name__)


class Jobs:
    """Runs at most `workers` jobs at once; each has a key and asks now and then whether to go on.

    A job that is told to stop leaves its work so that a later run can take it up again.
    """

    def __init__(self, workers: int = 2) -> None:
        # Its threads are started by those that serve calls, and stay in the kernel for long.
        self._executor = ThreadPoolExecutor(
            workers, thread_name_prefix="job", initializer=processors.scatter
        )
        self._guard = threading.Lock()
        self._running: dict[str, tuple[Future[None], threading.Event]] = {}
        self._closed = False

    def submit(self, key: str, work: Callable[[KeepGoing], None]) -> None:
        """Starts a job, or queues it; one job a key."""
        stop = threading.Event()
        with self._guard:
            if self._closed:
                return
            future = self._executor.submit(self._run, key, work, stop)
            self._running[key] = (future, stop)
        future.add_done_callback(lambda done: self._forget(key, done))

    def is_running(self, key: str) -> bool:
        """Whether a job with that key runs or waits for its turn."""
        with self._guard:
            return key in self._running

    def wait(self, key: str, timeout_s: float) -> None:
        """Waits for a job, at most so long; no such job is no wait."""
        with self._guard:
            entry = self._running.get(key)
        if entry is not None:
            wait_for([entry[0]], timeout_s)

    def cancel(self, key: str, timeout_s: float) -> None:
        """Tells a job to stop and waits for that, at most so long."""
        with self._guard:
            entry = self._running.get(key)
        if entry is not None:
            entry[1].set()
            wait_for([entry[0]], timeout_s)

    def close(self) -> None:
        """Stops all jobs and waits until they have put down their work."""
        with self._guard:
            self._closed = True
            for _, stop in self._running.values():
                stop.set()
        self._executor.shutdown(wait=True)

    def _run(self, key: str, work: Callable[[KeepGoing], None], stop: threading.Event) -> None:
        try:
            work(lambda: not stop.is_set())
        except InterruptedError:
            _log.info("background work was stopped", extra={"job": key})
        except Exception:  # noqa: BLE001 — the thread is the last to see it: log it or lose it
            _log.exception("background work failed", extra={"job": key})

    def _forget(self, key: str, done: Future[None]) -> None:
        with self._guard:
            if self._running.get(key, (None,))[0] is done:
                del self._running[key]
