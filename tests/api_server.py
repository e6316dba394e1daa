"""A small API server over real HTTP: objects by path, versions, lists in pages, watches."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

Object = dict[str, Any]

TOKEN = "of the account"
CLAIMS = "/api/v1/persistentvolumeclaims"


class FakeApiServer:
    """Serves the objects that a test puts into it.

    Attributes:
        objects: What is there, by path.
        events: The events that were made.
        requests: Method and path of each request, as they came.
        before_patch: Called with the path before an object is changed.
        fail_next: How many requests are still to be answered with 500.
        admits_anybody: Whether a request needs no token.
    """

    def __init__(self, folder: Path) -> None:
        self.objects: dict[str, Object] = {}
        self.events: list[Object] = []
        self.requests: list[tuple[str, str]] = []
        self.before_patch: Callable[[str], None] = lambda _: None
        self.fail_next = 0
        self.admits_anybody = False
        self.credentials = folder
        (folder / "token").write_text(TOKEN + "\n", encoding="ascii")
        self._history: list[tuple[int, str, Object]] = []
        self._version = 100
        self._oldest = 0
        self._changed = threading.Condition()
        self._ended = False
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def put(self, path: str, value: Object) -> Object:
        """Makes or replaces an object, and tells who watches."""
        with self._changed:
            kind = "MODIFIED" if path in self.objects else "ADDED"
            self._version += 1
            stored: Object = json.loads(json.dumps(value))
            stored.setdefault("metadata", {})["resourceVersion"] = str(self._version)
            self.objects[path] = stored
            self._history.append((self._version, kind, stored))
            self._changed.notify_all()
            return stored

    def remove(self, path: str) -> None:
        with self._changed:
            self._version += 1
            gone = self.objects.pop(path)
            gone["metadata"]["resourceVersion"] = str(self._version)
            self._history.append((self._version, "DELETED", gone))
            self._changed.notify_all()

    def expire(self) -> None:
        """Forgets what has happened so far: whoever watches from then has to list again."""
        with self._changed:
            self._version += 1
            self._oldest = self._version
            self._changed.notify_all()

    def annotations(self, path: str) -> dict[str, str]:
        found: dict[str, str] = self.objects[path]["metadata"].get("annotations", {})
        return found

    def _claims(self) -> list[Object]:
        return [each for path, each in self.objects.items() if "/persistentvolumeclaims/" in path]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *_: object) -> None:
                """Prints nothing."""

            def do_GET(self) -> None:
                if not self._is_admitted():
                    return
                url = urlsplit(self.path)
                query = {name: values[-1] for name, values in parse_qs(url.query).items()}
                if "watch" in query:
                    self._watch(int(query["resourceVersion"]))
                elif url.path == CLAIMS:
                    self._list(int(query.get("continue", "0")), int(query.get("limit", "500")))
                elif (found := server.objects.get(url.path)) is not None:
                    self._answer(200, found)
                else:
                    self._answer(404, {"message": "not found", "code": 404})

            def do_PATCH(self) -> None:
                change = self._body()
                if not self._is_admitted():
                    return
                assert self.headers["Content-Type"] == "application/merge-patch+json"
                server.before_patch(self.path)
                with server._changed:
                    found = server.objects.get(self.path)
                    wanted = change["metadata"].get("resourceVersion")
                    if found is None:
                        self._answer(404, {"message": "not found", "code": 404})
                    elif wanted not in {None, found["metadata"]["resourceVersion"]}:
                        self._answer(409, {"message": "the object has been modified"})
                    else:
                        metadata = dict(found["metadata"])
                        metadata["annotations"] = (
                            metadata.get("annotations", {}) | change["metadata"]["annotations"]
                        )
                        self._answer(200, server.put(self.path, {**found, "metadata": metadata}))

            def do_POST(self) -> None:
                event = self._body()
                if self._is_admitted():
                    server.events.append(event)
                    self._answer(201, event)

            def _body(self) -> Object:
                read: Object = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                return read

            def _is_admitted(self) -> bool:
                server.requests.append((self.command, urlsplit(self.path).path))
                if server.fail_next > 0:
                    server.fail_next -= 1
                    self._answer(500, {"message": "etcd has no leader"})
                    return False
                known = server.admits_anybody or self.headers["Authorization"] == f"Bearer {TOKEN}"
                if not known:
                    self._answer(401, {"message": "who are you?"})
                    return False
                return True

            def _answer(self, status: int, value: Object) -> None:
                data = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def _list(self, start: int, limit: int) -> None:
                with server._changed:
                    claims, version = server._claims(), server._version
                end = start + limit
                metadata = {"resourceVersion": str(version)}
                if end < len(claims):
                    metadata["continue"] = str(end)
                self._answer(200, {"metadata": metadata, "items": claims[start:end]})

            def _watch(self, version: int) -> None:
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                deadline = time.monotonic() + 30
                sent = version
                while not server._ended and time.monotonic() < deadline:
                    with server._changed:
                        expired = sent < server._oldest
                        news = [each for each in server._history if each[0] > sent]
                        if not news and not expired:
                            server._changed.wait(0.2)
                            continue
                    if expired:
                        self._line({"type": "ERROR", "object": {"code": 410, "message": "old"}})
                        break
                    for number, kind, value in news:
                        sent = number
                        if "storageClassName" in value.get("spec", {}):
                            self._line({"type": kind, "object": value})
                    bookmark = {"kind": "x", "metadata": {"resourceVersion": str(sent)}}
                    self._line({"type": "BOOKMARK", "object": bookmark})
                self.wfile.write(b"0\r\n\r\n")

            def _line(self, value: Object) -> None:
                data = json.dumps(value).encode() + b"\n"
                self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

        return Handler
