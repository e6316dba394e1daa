"""The watching of claims, and the queue between watcher and workers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from csi import config
from csi.cluster import api, placing
from csi.cluster.api import ApiError, ApiServer, WatchExpired
from csi.cluster.objects import SELECTED_NODE, Claim
from csi.cluster.placing import CLAIMS, Placing
from csi.cluster.waiting_claims import WaitingClaims
from csi.config_file import ConfigurationError
from tests.api_objects import (
    DRIVER,
    FROM_SNAPSHOT,
    add_claim,
    add_class,
    add_node,
    add_snapshot,
)
from tests.api_server import FakeApiServer

WAIT_S = 10.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FakeApiServer]:
    with FakeApiServer(tmp_path) as started:
        add_class(started, "ours")
        add_node(started, "node1")
        yield started


@pytest.fixture
def placed_by(server: FakeApiServer) -> Iterator[Placing]:
    running = Placing(ApiServer(server.address, str(server.credentials)), DRIVER)
    yield running
    running.stop()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def is_placed(server: FakeApiServer, path: str) -> bool:
    return server.annotations(path) == {SELECTED_NODE: "node1"}


def test_claims_that_are_there_and_claims_that_come_are_placed(
    server: FakeApiServer, placed_by: Placing
) -> None:
    add_snapshot(server, "node1")
    there = add_claim(server, FROM_SNAPSHOT, name="there")
    other = add_claim(server, None, name="other")
    placed_by.start()
    wait_for(lambda: is_placed(server, there))
    coming = [add_claim(server, FROM_SNAPSHOT, name=f"coming{number}") for number in range(20)]
    wait_for(lambda: all(is_placed(server, path) for path in coming))
    assert server.annotations(other) == {}


def test_a_conflict_is_tried_again_with_the_newer_version(
    server: FakeApiServer, placed_by: Placing
) -> None:
    add_snapshot(server, "node1")

    def scheduler_is_first(path: str) -> None:
        server.before_patch = lambda _: None
        add_claim(server, FROM_SNAPSHOT, selected="node2")

    server.before_patch = scheduler_is_first
    path = add_claim(server, FROM_SNAPSHOT)
    placed_by.start()
    wait_for(lambda: is_placed(server, path))
    assert len([method for method, _ in server.requests if method == "PATCH"]) == 2


def test_a_snapshot_that_comes_later_is_found(server: FakeApiServer, placed_by: Placing) -> None:
    path = add_claim(server, FROM_SNAPSHOT)
    placed_by.start()
    time.sleep(0.15)
    add_snapshot(server, "node1")
    wait_for(lambda: is_placed(server, path))


def test_it_lists_again_when_the_server_has_forgotten(
    server: FakeApiServer, placed_by: Placing
) -> None:
    add_snapshot(server, "node1")
    placed_by.start()
    wait_for(lambda: ("GET", CLAIMS) in server.requests)
    gone = add_claim(server, FROM_SNAPSHOT, name="gone")
    wait_for(lambda: is_placed(server, gone))
    server.expire()
    path = add_claim(server, FROM_SNAPSHOT, name="after")
    wait_for(lambda: is_placed(server, path))


def test_errors_of_the_server_are_outlived(
    server: FakeApiServer, placed_by: Placing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placing, "_RETRY_S", 0.01)
    add_snapshot(server, "node1")
    path = add_claim(server, FROM_SNAPSHOT)
    server.fail_next = 5
    placed_by.start()
    wait_for(lambda: is_placed(server, path))
    assert server.fail_next == 0


def test_lists_are_read_in_pages(server: FakeApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "PAGE", 3)
    for number in range(8):
        add_claim(server, None, name=f"claim{number}")
    client = ApiServer(server.address, str(server.credentials))
    listed, version = client.list(CLAIMS, Claim)
    assert [claim.metadata.name for claim in listed] == [f"claim{n}" for n in range(8)]
    assert version == listed[-1].metadata.resource_version


def test_a_watch_of_what_is_forgotten_says_so(server: FakeApiServer) -> None:
    client = ApiServer(server.address, str(server.credentials))
    server.expire()
    with pytest.raises(WatchExpired):
        list(client.watch(CLAIMS, Claim, "1"))


def test_a_token_that_is_renewed_is_read_again(server: FakeApiServer) -> None:
    client = ApiServer(server.address, str(server.credentials))
    token = server.credentials / "token"
    right = token.read_text()
    token.write_text("stale", encoding="ascii")
    with pytest.raises(ApiError, match="401: who are you"):
        client.list(CLAIMS, Claim)
    token.write_text(right, encoding="ascii")
    assert client.list(CLAIMS, Claim)[0] == []
    token.unlink()
    with pytest.raises(ApiError, match="token cannot be read: No such file"):
        client.list(CLAIMS, Claim)


def test_a_server_that_is_not_there_is_an_error(server: FakeApiServer) -> None:
    client = ApiServer("http://127.0.0.1:9", str(server.credentials))
    with pytest.raises(ApiError, match="GET /api/v1/x failed"):
        client.find("/api/v1/x", Claim)


def test_keys_come_when_they_are_due_and_the_sooner_wins() -> None:
    waiting = WaitingClaims()
    waiting.add("late", 30)
    waiting.add("soon", 0.05)
    waiting.add("now")
    assert waiting.take(0) == "now"
    assert waiting.take(0) is None
    assert waiting.take(5) == "soon"
    waiting.add("late")
    assert waiting.take(0) == "late"
    waiting.add("dropped")
    waiting.remove("dropped")
    assert waiting.take(0) is None


def test_a_key_is_with_one_worker_and_comes_again_after_it() -> None:
    waiting = WaitingClaims()
    waiting.add("a")
    assert waiting.take(0) == "a"
    waiting.add("a")
    assert waiting.take(0) is None
    threading.Timer(0.05, waiting.done, ["a"]).start()
    assert waiting.take(5) == "a"


def test_the_address_of_the_api_server_is_what_pods_are_told() -> None:
    told = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    assert config.cluster_address(told) == "https://10.0.0.1:443"
    assert config.cluster_address(told | {"KUBERNETES_SERVICE_HOST": "fd00::1"}) == (
        "https://[fd00::1]:443"
    )
    with pytest.raises(ConfigurationError, match="in a pod of the cluster"):
        config.cluster_address({})
