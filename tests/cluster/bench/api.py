"""The cluster's API over kept connections: kubectl's start would be measured with each call.

`kubectl proxy` stands in between. It takes whatever kubeconfig there is, of any cluster, and costs
less than a millisecond a call.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import urllib3

from tests.cluster.cases.objects import Manifest
from tests.cluster.errors import ClusterError
from tests.cluster.kubectl import Kubectl

CONNECTIONS = 8
_MERGE = "application/merge-patch+json"


class Api:
    """Calls to the API server; for several threads at once."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._connections = urllib3.PoolManager(
            maxsize=CONNECTIONS, retries=False, timeout=urllib3.Timeout(connect=5, read=30)
        )

    def get(self, path: str) -> Manifest:
        """Reads an object or a list."""
        return self._call("GET", path)

    def create(self, path: str, manifest: Manifest) -> None:
        """Makes an object; a path is that of its collection."""
        self._call("POST", path, manifest)

    def change(self, path: str, change: Manifest) -> None:
        """Merges a change into an object."""
        self._call("PATCH", path, change, _MERGE)

    def delete(self, path: str) -> None:
        """Asks for an object's end, and does not wait for it."""
        self._call("DELETE", path, {"propagationPolicy": "Background"})

    def stream(self, path: str, version: str) -> urllib3.BaseHTTPResponse:
        """Opens a watch from a version on; one JSON document comes in a line."""
        return self._connections.request(
            "GET",
            self._address + path,
            fields={"watch": "true", "resourceVersion": version},
            timeout=urllib3.Timeout(connect=5, read=3600),
            preload_content=False,
        )

    def _call(
        self,
        method: str,
        path: str,
        body: Manifest | None = None,
        content_type: str = "application/json",
    ) -> Manifest:
        answer = self._connections.request(
            method,
            self._address + path,
            body=None if body is None else json.dumps(body),
            headers={"Content-Type": content_type} if body is not None else None,
        )
        read: Manifest = json.loads(answer.data)
        if answer.status >= 300:
            raise ClusterError(f"{method} {path}: {read.get('message', answer.status)}")
        return read


@contextlib.contextmanager
def connect(kubectl: Kubectl) -> Iterator[Api]:
    """Yields the API of a cluster."""
    proxy = subprocess.Popen(
        kubectl.command("proxy", "--port=0"), stdout=subprocess.PIPE, text=True
    )
    try:
        assert proxy.stdout is not None
        # "Starting to serve on 127.0.0.1:40123"
        said = proxy.stdout.readline().split()
        if not said:
            raise ClusterError("kubectl proxy did not start")
        yield Api(f"http://{said[-1]}")
    finally:
        proxy.terminate()
        proxy.wait()


@dataclass(frozen=True)
class Seen:
    """What a watch told, and when by `time.perf_counter`."""

    at: float
    kind: str
    object: Manifest

    @property
    def name(self) -> str:
        # The end of a watch is told by an object without one.
        name: str = self.object.get("metadata", {}).get("name", "")
        return name


@dataclass
class Watch:
    """Everything that happens below a path, from its beginning on."""

    api: Api
    path: str
    _seen: list[Seen] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _stream: urllib3.BaseHTTPResponse | None = None

    def __enter__(self) -> Self:
        version = self.api.get(self.path)["metadata"]["resourceVersion"]
        self._stream = self.api.stream(self.path, version)
        threading.Thread(target=self._follow, args=(self._stream,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.shutdown()

    def _follow(self, stream: urllib3.BaseHTTPResponse) -> None:
        with contextlib.suppress(urllib3.exceptions.HTTPError, OSError, ValueError):
            for line in stream:
                told = json.loads(line)
                with self._changed:
                    self._seen.append(Seen(time.perf_counter(), told["type"], told["object"]))
                    self._changed.notify_all()

    def first(
        self, names: set[str], holds: Callable[[Seen], bool], timeout_s: float
    ) -> dict[str, float]:
        """When something first held of each of several objects.

        Raises:
            ClusterError: It did not come to hold of all of them in time.
        """
        deadline = time.monotonic() + timeout_s
        found: dict[str, float] = {}
        looked_at = 0
        while True:
            with self._changed:
                for seen in self._seen[looked_at:]:
                    if seen.name in names and seen.name not in found and holds(seen):
                        found[seen.name] = seen.at
                looked_at = len(self._seen)
                if len(found) == len(names):
                    return found
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    late = ", ".join(sorted(names - set(found)))
                    raise ClusterError(f"waited {timeout_s:.0f} s in vain for {late}")
                self._changed.wait(left_s)


def condition(seen: Seen, kind: str) -> bool:
    """Whether a condition of an object's status is true."""
    listed: list[dict[str, Any]] = seen.object.get("status", {}).get("conditions", [])
    return any(each["type"] == kind and each["status"] == "True" for each in listed)
