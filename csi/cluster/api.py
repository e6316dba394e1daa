"""The cluster's API server: a few verbs over HTTPS, as the pod's own account.

It does what placement needs and no more: a client with all of Kubernetes' types takes tens of
megabytes, and of those objects a handful of fields is read here.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import msgspec
import urllib3

from csi.cluster.objects import Listed
from csi.errors import Unavailable

CREDENTIALS = "/var/run/secrets/kubernetes.io/serviceaccount"
TIMEOUT_S = 10.0
PAGE = 500
WATCH_S = 60
"""The server ends a watch after this long, so that a connection that died unseen costs no more."""

_log = logging.getLogger(__name__)
_MERGE = "application/merge-patch+json"
_QUOTED_BYTES = 300

T = TypeVar("T")


class ApiError(Unavailable):
    """The API server could not be reached, or refused; the message says what it was asked."""


class WatchExpired(Exception):
    """The server no longer knows what has happened since: list again."""


class _Line(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


class _Status(msgspec.Struct, frozen=True):
    code: int = 0
    message: str = ""


class ApiServer:
    """The API server, for any number of threads at once."""

    def __init__(self, address: str, credentials: str = CREDENTIALS) -> None:
        """Prepares for calls; none is made yet.

        Args:
            address: Such as https://10.96.0.1:443.
            credentials: Folder with `token`, and with `ca.crt` where the address is https.
        """
        self._address = address
        self._token = f"{credentials}/token"
        self._connections = urllib3.PoolManager(
            maxsize=8,
            retries=False,
            cert_reqs="CERT_REQUIRED",
            ca_certs=f"{credentials}/ca.crt" if address.startswith("https:") else None,
        )

    def find(self, path: str, kind: type[T]) -> T | None:
        """Reads an object; None where there is none.

        Raises:
            ApiError: The server cannot be reached or refuses.
        """
        answer = self._call("GET", path)
        if answer.status == 404:
            return None
        _check(answer.status == 200, "GET", path, answer)
        return _decode(answer.data, kind, path)

    def list(self, path: str, kind: type[T]) -> tuple[list[T], str]:
        """Reads all objects of a path, and the version to watch from.

        Raises:
            ApiError: The server cannot be reached or refuses.
        """
        found: list[T] = []
        page = ""
        while True:
            fields = {"limit": str(PAGE)} | ({"continue": page} if page else {})
            answer = self._call("GET", path, fields=fields)
            _check(answer.status == 200, "GET", path, answer)
            # A type made at run time, of which mypy cannot know.
            listed = _decode(answer.data, Listed[kind], path)  # type: ignore[valid-type]
            found += listed.items
            page = listed.metadata.continue_
            if not page:
                return found, listed.metadata.resource_version

    def watch(self, path: str, kind: type[T], version: str) -> Iterator[tuple[str, T]]:
        """Yields what happens from a version on, as ADDED, MODIFIED, DELETED or BOOKMARK.

        It ends after a while by itself; the last object's version is where to go on.

        Raises:
            WatchExpired: The version is too old.
            ApiError: The server cannot be reached or refuses.
        """
        fields = {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_S),
        }
        answer = self._call("GET", path, fields=fields, stream=True)
        try:
            if answer.status == 410:
                raise WatchExpired
            if answer.status != 200:
                answer.read()
                _check(False, "watch", path, answer)
            for text in answer:
                if not text.strip():
                    continue
                line = _decode(text, _Line, path)
                if line.type == "ERROR":
                    status = _decode(bytes(line.object), _Status, path)
                    if status.code == 410:
                        raise WatchExpired
                    raise ApiError(f"watching {path} ended: {status.message}")
                yield line.type, _decode(bytes(line.object), kind, path)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ApiError(f"watching {path} broke off: {error}") from error
        finally:
            answer.close()

    def merge(self, path: str, change: Mapping[str, Any]) -> bool:
        """Changes an object; whether it was still there, and still of the version that is named.

        Raises:
            ApiError: The server cannot be reached or refuses.
        """
        answer = self._call("PATCH", path, body=json.dumps(change), content_type=_MERGE)
        if answer.status in {404, 409}:
            return False
        _check(answer.status == 200, "PATCH", path, answer)
        return True

    def create(self, path: str, manifest: Mapping[str, Any]) -> None:
        """Makes an object.

        Raises:
            ApiError: The server cannot be reached or refuses.
        """
        answer = self._call("POST", path, body=json.dumps(manifest))
        _check(answer.status in {200, 201, 202}, "POST", path, answer)

    def _call(
        self,
        method: str,
        path: str,
        *,
        fields: Mapping[str, str] | None = None,
        body: str | None = None,
        content_type: str = "application/json",
        stream: bool = False,
    ) -> urllib3.BaseHTTPResponse:
        # Read each time: the kubelet renews it.
        try:
            with open(self._token, encoding="ascii") as file:
                token = file.read().strip()
        except OSError as error:
            raise ApiError(f"the account's token cannot be read: {error.strerror}") from error
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = content_type
        read_s = WATCH_S + TIMEOUT_S if stream else TIMEOUT_S
        try:
            return self._connections.request(
                method,
                self._address + path,
                fields=fields,
                body=body,
                headers=headers,
                timeout=urllib3.Timeout(connect=TIMEOUT_S, read=read_s),
                redirect=False,
                preload_content=not stream,
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ApiError(f"{method} {path} failed: {error}") from error


def _check(well: bool, method: str, path: str, answer: urllib3.BaseHTTPResponse) -> None:
    if well:
        return
    try:
        said = msgspec.json.decode(answer.data, type=_Status).message
    except msgspec.DecodeError:
        said = answer.data[:_QUOTED_BYTES].decode(errors="replace")
    raise ApiError(f"{method} {path} was answered with {answer.status}: {said}")


def _decode(data: bytes, kind: type[T], path: str) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError as error:
        raise ApiError(f"what {path} answered cannot be read: {error}") from error
