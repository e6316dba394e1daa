"""The file of a Unix socket: named, taken over where its owner is gone, and removed."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple

from csi.errors import InvalidRequest, NotNow, Unavailable

SOCKET_MODE = 0o600
PATH_BYTES = 107
"""What fits into `sockaddr_un` (unix(7)) with the NUL at its end."""
CONNECT_TIMEOUT_S = 1.0


class FileIdentity(NamedTuple):
    """What tells a file from another one that was made at its path later."""

    device: int
    inode: int
    changed_ns: int


def parse_endpoint(endpoint: str) -> str:
    """Returns the absolute path of the socket that an endpoint names.

    It is written `unix:///run/csi/csi.sock`, `unix:/run/csi/csi.sock` or as the path alone.

    Raises:
        InvalidRequest: It names no Unix socket, or one whose path is too long.
    """
    path = endpoint
    for scheme in ("unix://", "unix:"):
        if endpoint.startswith(scheme):
            path = endpoint.removeprefix(scheme)
            break
    if not path.startswith("/") or path.endswith("/") or "\0" in path:
        raise InvalidRequest(
            f"endpoint {endpoint!r} is not the absolute path of a Unix socket, such as "
            "unix:///run/csi/csi.sock"
        )
    size = len(os.fsencode(path))
    if size > PATH_BYTES:
        raise InvalidRequest(
            f"the path of endpoint {endpoint!r} has {size} bytes; a socket's path may have "
            f"{PATH_BYTES} at most"
        )
    return path


def clear(path: str) -> None:
    """Removes a socket that a dead process has left; one that lives stays.

    gRPC itself would take over either without a word.

    Raises:
        NotNow: Another process serves it, or what is there is no socket.
        InvalidRequest: The folder it is to be in is not there.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        folder = os.path.dirname(path)
        if not os.path.isdir(folder):
            raise InvalidRequest(
                f"the folder {folder} for the socket {os.path.basename(path)} does not exist"
            ) from None
        return
    if not stat.S_ISSOCK(mode):
        raise NotNow(f"{path} exists and is no socket; remove it or name another endpoint")
    if _is_alive(path):
        raise NotNow(f"another process is serving {path}; stop it first, or name another endpoint")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _is_alive(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(CONNECT_TIMEOUT_S)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True  # a full backlog, another type of socket: somebody is there
    return True


def bind(path: str, add_port: Callable[[str], int]) -> FileIdentity:
    """Lets gRPC make the socket, for its owner alone from the first instant.

    Args:
        path: Where; nothing may be there.
        add_port: gRPC's way to bind an address.

    Raises:
        Unavailable: It could not be made.
    """
    with _umask(~SOCKET_MODE & 0o777):
        try:
            add_port(f"unix:{path}")
        except RuntimeError as error:
            raise Unavailable(f"the socket {path} could not be made: {error}") from error
    status = os.lstat(path)
    return FileIdentity(status.st_dev, status.st_ino, status.st_ctime_ns)


def remove(path: str, identity: FileIdentity) -> None:
    """Removes the socket unless another process has replaced it meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        status = os.lstat(path)
        if FileIdentity(status.st_dev, status.st_ino, status.st_ctime_ns) == identity:
            os.unlink(path)


@contextlib.contextmanager
def _umask(mask: int) -> Iterator[None]:
    # It is the whole process's; so it is held for the bind alone, and before calls are served.
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)
