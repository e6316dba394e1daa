"""The file of a socket: where it may be, who may use it, and whose it is."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from csi.errors import InvalidRequest, NotNow, Unavailable
from csi.rpc import endpoint as endpoints
from csi.rpc.server import Server
from csi.v1 import csi_pb2
from tests.unit.test_rpc_fake import FakeDriver, served


@pytest.mark.parametrize(
    "endpoint", ["unix:///run/csi.sock", "unix:/run/csi.sock", "/run/csi.sock"]
)
def test_endpoints(endpoint: str) -> None:
    assert endpoints.parse_endpoint(endpoint) == "/run/csi.sock"


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "unix:",
        "unix://",
        "unix://run/csi.sock",
        "csi.sock",
        "tcp://0.0.0.0:1",
        "0.0.0.0:1",
        "/run/",
        "unix:///a\0b",
        "unix-abstract:x",
    ],
)
def test_bad_endpoints(endpoint: str) -> None:
    with pytest.raises(InvalidRequest, match="is not the absolute path of a Unix socket"):
        endpoints.parse_endpoint(endpoint)


def test_the_path_of_a_socket_is_short() -> None:
    assert endpoints.parse_endpoint("/" + "x" * 106)
    with pytest.raises(InvalidRequest, match="has 108 bytes; a socket's path may have 107"):
        endpoints.parse_endpoint("/" + "x" * 107)
    with pytest.raises(InvalidRequest, match="bytes"):
        endpoints.parse_endpoint("/" + "é" * 54)


def test_the_socket_is_for_its_owner_alone_and_has_no_company(tmp_path: Path) -> None:
    before = os.umask(0)
    os.umask(before)
    driver = FakeDriver()
    with served(driver, tmp_path) as client:
        client.identity.Probe(csi_pb2.ProbeRequest())
        (file,) = tmp_path.iterdir()
        assert stat.S_ISSOCK(file.stat().st_mode)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == []
    assert os.umask(before) == before


def test_the_mode_holds_from_the_first_instant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_chmod(*_arguments: object, **_more: object) -> None:
        pytest.fail("a socket whose mode is changed later was open to others before")

    monkeypatch.setattr(os, "chmod", no_chmod)
    modes = []
    path = str(tmp_path / "csi.sock")

    def bind_by_hand(address: str) -> int:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(address.removeprefix("unix:"))
            modes.append(stat.S_IMODE(os.lstat(path).st_mode))
        return 1

    endpoints.bind(path, bind_by_hand)
    assert modes == [0o600]


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "csi.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with served(FakeDriver(), tmp_path) as client:
        assert client.identity.Probe(csi_pb2.ProbeRequest()).ready.value


def test_a_live_socket_is_left_alone(tmp_path: Path) -> None:
    with served(FakeDriver(), tmp_path) as client:
        path = tmp_path / "csi.sock"
        before = path.stat()
        with pytest.raises(NotNow, match=r"another process is serving .*csi\.sock; stop it first"):
            Server(FakeDriver(), str(path)).start()
        assert path.stat() == before
        assert client.identity.Probe(csi_pb2.ProbeRequest()).ready.value


def test_a_socket_of_another_type_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "csi.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        with pytest.raises(NotNow, match="another process is serving"):
            Server(FakeDriver(), str(path)).start()


@pytest.mark.parametrize("make", ["file", "folder", "link"])
def test_what_is_no_socket_is_left_alone(tmp_path: Path, make: str) -> None:
    path = tmp_path / "csi.sock"
    if make == "file":
        path.write_text("precious")
    elif make == "folder":
        path.mkdir()
    else:
        path.symlink_to("elsewhere")
    with pytest.raises(NotNow, match="exists and is no socket; remove it or name another"):
        Server(FakeDriver(), str(path)).start()
    assert os.path.lexists(path)


def test_the_folder_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidRequest, match=r"the folder .*/missing for the socket csi\.sock does"
    ):
        Server(FakeDriver(), str(tmp_path / "missing" / "csi.sock")).start()


def test_a_socket_that_cannot_be_made(tmp_path: Path) -> None:
    def refuse(_address: str) -> int:
        raise RuntimeError("Failed to bind to address")

    with pytest.raises(Unavailable, match="could not be made: Failed to bind"):
        endpoints.bind(str(tmp_path / "csi.sock"), refuse)


def test_only_our_own_socket_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "csi.sock"
    with socket.socket(socket.AF_UNIX) as first:

        def bind_by_hand(_address: str) -> int:
            first.bind(str(path))
            return 1

        identity = endpoints.bind(str(path), bind_by_hand)
    path.unlink()
    endpoints.remove(str(path), identity)
    with socket.socket(socket.AF_UNIX) as second:
        second.bind(str(path))
        endpoints.remove(str(path), identity)
        assert path.exists()
