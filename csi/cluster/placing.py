"""Running placement: one thread watches claims, a few place them, until the process is stopped."""

from __future__ import annotations

import logging
import signal
import threading
import time

from csi.cluster.api import ApiError, ApiServer, WatchExpired
from csi.cluster.objects import Claim
from csi.cluster.placement import Placement
from csi.cluster.waiting_claims import WaitingClaims

CLAIMS = "/api/v1/persistentvolumeclaims"
WORKERS = 4

_RETRY_S = 1.0
_IDLE_S = 5.0

_log = logging.getLogger(__name__)


class Placing:
    """Watches all claims of a cluster and places those that placement concerns."""

    def __init__(self, server: ApiServer, driver_name: str) -> None:
        """Prepares; nothing runs yet.

        Args:
            server: The API server.
            driver_name: Whose claims are placed.
        """
        self._server = server
        self._placement = Placement(server, driver_name)
        self._claims: dict[str, Claim] = {}
        self._waiting = WaitingClaims()
        self._stopping = threading.Event()

    def start(self) -> None:
        """Starts the threads; they end with the process, or soon after `stop`."""
        for target in (self._watch, *([self._work] * WORKERS)):
            threading.Thread(target=target, name=target.__name__.strip("_"), daemon=True).start()

    def stop(self) -> None:
        """Has the threads end after what they do now."""
        self._stopping.set()

    def _watch(self) -> None:
        while not self._stopping.is_set():
            try:
                self._follow()
            except WatchExpired:
                _log.debug("listing claims again")
            except ApiError as error:
                _log.warning("claims cannot be watched", extra={"reason": str(error)})
                self._stopping.wait(_RETRY_S)

    def _follow(self) -> None:
        listed, version = self._server.list(CLAIMS, Claim)
        there = {claim.key for claim in listed}
        for key in set(self._claims) - there:
            self._drop(self._claims[key])
        for claim in listed:
            self._note(claim)
        while not self._stopping.is_set():
            for kind, claim in self._server.watch(CLAIMS, Claim, version):
                version = claim.metadata.resource_version
                if kind == "DELETED":
                    self._drop(claim)
                elif kind != "BOOKMARK":
                    self._note(claim)

    def _note(self, claim: Claim) -> None:
        if self._placement.concerns(claim):
            self._claims[claim.key] = claim
            self._waiting.add(claim.key)
        else:
            self._drop(claim)

    def _drop(self, claim: Claim) -> None:
        if self._claims.pop(claim.key, None):
            self._waiting.remove(claim.key)
            self._placement.forget(claim)

    def _work(self) -> None:
        while not self._stopping.is_set():
            key = self._waiting.take(_IDLE_S)
            if key is None:
                continue
            try:
                self._place(key)
            except Exception:  # noqa: BLE001 - one claim must not hold up all others
                _log.exception("placing failed", extra={"claim": key})
                self._waiting.add(key, _RETRY_S * 10)
            finally:
                self._waiting.done(key)

    def _place(self, key: str) -> None:
        claim = self._claims.get(key)
        if claim is None:
            return
        started = time.monotonic()
        try:
            again_s = self._placement.place(claim)
        except ApiError as error:
            _log.warning("a claim cannot be placed", extra={"claim": key, "reason": str(error)})
            again_s = _RETRY_S
        _log.debug("looked", extra={"claim": key, "ms": 1000 * (time.monotonic() - started)})
        if again_s is not None:
            self._waiting.add(key, again_s)


def run(server: ApiServer, driver_name: str) -> int:
    """Places claims until SIGTERM or SIGINT; returns an exit code."""
    signals = {signal.SIGTERM, signal.SIGINT}
    # Before any thread is there, so that all of them leave the signals to this one.
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    placing = Placing(server, driver_name)
    placing.start()
    _log.info("placing", extra={"driver": driver_name})
    signal.sigwait(signals)
    # Each write stands by itself, so nothing has to be waited for.
    placing.stop()
    _log.info("stopping")
    return 0
