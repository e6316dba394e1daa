"""Where restores and clones are sent, against an API server over real HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from csi.cluster.api import ApiError, ApiServer
from csi.cluster.objects import SELECTED_NODE, Claim
from csi.cluster.placement import LOOK_AGAIN_S, Placement
from tests.api_objects import (
    DRIVER,
    FROM_CLAIM,
    FROM_SNAPSHOT,
    add_claim,
    add_class,
    add_node,
    add_snapshot,
    add_volume,
)
from tests.api_server import FakeApiServer, Object


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FakeApiServer]:
    with FakeApiServer(tmp_path) as started:
        add_class(started, "ours")
        for name in ("node1", "node2"):
            add_node(started, name)
        yield started


@pytest.fixture
def placement(server: FakeApiServer) -> Placement:
    return Placement(ApiServer(server.address, str(server.credentials)), DRIVER)


def read(server: FakeApiServer, path: str) -> Claim:
    return msgspec.convert(server.objects[path], Claim)


def test_a_restore_is_given_to_the_node_that_manages_its_snapshot(
    server: FakeApiServer, placement: Placement
) -> None:
    add_snapshot(server, "node2")
    path = add_claim(server, FROM_SNAPSHOT)

    assert placement.place(read(server, path)) == LOOK_AGAIN_S

    assert server.annotations(path) == {SELECTED_NODE: "node2"}
    assert not server.events


def test_a_clone_is_given_to_the_node_of_its_sources_volume(
    server: FakeApiServer, placement: Placement
) -> None:
    add_volume(server, ["node1"])
    add_claim(server, None, name="orders", volume="pv-1")
    path = add_claim(server, FROM_CLAIM)

    placement.place(read(server, path))

    assert server.annotations(path) == {SELECTED_NODE: "node1"}


def test_the_schedulers_wrong_choice_is_put_right(
    server: FakeApiServer, placement: Placement
) -> None:
    add_snapshot(server, "node2")
    path = add_claim(server, FROM_SNAPSHOT, selected="node1")

    placement.place(read(server, path))

    assert server.annotations(path) == {SELECTED_NODE: "node2"}


def test_a_right_choice_is_not_written_again(server: FakeApiServer, placement: Placement) -> None:
    add_snapshot(server, "node2")
    path = add_claim(server, FROM_SNAPSHOT, selected="node2")

    placement.place(read(server, path))

    assert "PATCH" not in {method for method, _ in server.requests}


def test_a_source_in_another_namespace_is_looked_for_there(
    server: FakeApiServer, placement: Placement
) -> None:
    add_snapshot(server, "node2", namespace="vault")
    path = add_claim(server, {**FROM_SNAPSHOT, "namespace": "vault"})

    placement.place(read(server, path))

    assert server.annotations(path) == {SELECTED_NODE: "node2"}


def test_a_claim_that_has_changed_meanwhile_is_left_for_its_next_version(
    server: FakeApiServer, placement: Placement
) -> None:
    add_snapshot(server, "node2")
    path = add_claim(server, FROM_SNAPSHOT)
    seen = read(server, path)
    add_claim(server, FROM_SNAPSHOT, selected="node1")

    assert placement.place(seen) == LOOK_AGAIN_S
    assert server.annotations(path) == {SELECTED_NODE: "node1"}

    placement.place(read(server, path))
    assert server.annotations(path) == {SELECTED_NODE: "node2"}


def test_a_snapshot_that_is_not_bound_is_waited_for_longer_each_time(
    server: FakeApiServer, placement: Placement
) -> None:
    path = add_claim(server, FROM_SNAPSHOT)

    waits = [placement.place(read(server, path)) for _ in range(8)]

    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    add_snapshot(server, None)
    assert placement.place(read(server, path)) == 5.0, "it has no node yet"
    add_snapshot(server, "node1")
    placement.place(read(server, path))
    assert server.annotations(path) == {SELECTED_NODE: "node1"}


def test_a_source_claim_without_a_volume_is_waited_for(
    server: FakeApiServer, placement: Placement
) -> None:
    path = add_claim(server, FROM_CLAIM)
    assert placement.place(read(server, path)) == 0.1
    add_claim(server, None, name="orders")
    assert placement.place(read(server, path)) == 0.2
    assert server.annotations(path) == {}


@pytest.mark.parametrize(
    ("driver", "nodes"), [("another.csi.example", ["node1"]), (DRIVER, ["node1", "node2"])]
)
def test_a_source_that_tells_no_one_node_is_left_to_the_scheduler(
    server: FakeApiServer, placement: Placement, driver: str, nodes: list[str]
) -> None:
    add_volume(server, nodes, driver)
    add_claim(server, None, name="orders", volume="pv-1")
    path = add_claim(server, FROM_CLAIM)

    assert placement.place(read(server, path)) is None
    assert server.annotations(path) == {}


def test_a_snapshot_of_another_driver_is_left_to_the_scheduler(
    server: FakeApiServer, placement: Placement
) -> None:
    add_snapshot(server, "node1", driver="another.csi.example")
    path = add_claim(server, FROM_SNAPSHOT)

    assert placement.place(read(server, path)) is None
    assert server.annotations(path) == {}


def test_only_classes_of_the_driver_that_wait_are_placed(
    server: FakeApiServer, placement: Placement
) -> None:
    add_snapshot(server, "node1")
    add_class(server, "theirs", provisioner="another.csi.example")
    add_class(server, "at-once", mode="Immediate")

    for name in ("theirs", "at-once"):
        path = add_claim(server, FROM_SNAPSHOT, class_name=name)
        assert placement.place(read(server, path)) is None
        assert server.annotations(path) == {}


def test_a_class_that_is_made_later_is_waited_for(
    server: FakeApiServer, placement: Placement
) -> None:
    add_snapshot(server, "node1")
    path = add_claim(server, FROM_SNAPSHOT, class_name="later")
    assert placement.place(read(server, path)) == LOOK_AGAIN_S
    add_class(server, "later")

    placement.place(read(server, path))

    assert server.annotations(path) == {SELECTED_NODE: "node1"}


@pytest.mark.parametrize(
    ("source", "volume", "class_name", "concerned"),
    [
        (FROM_SNAPSHOT, "", "ours", True),
        (FROM_CLAIM, "", "ours", True),
        (None, "", "ours", False),
        (FROM_SNAPSHOT, "pv-9", "ours", False),
        (FROM_SNAPSHOT, "", "", False),
        ({"kind": "Populator", "apiGroup": "example.org", "name": "x"}, "", "ours", False),
    ],
)
def test_what_is_of_concern(
    server: FakeApiServer, source: Object, volume: str, class_name: str, concerned: bool
) -> None:
    path = add_claim(server, source, volume=volume, class_name=class_name)
    assert Placement.concerns(read(server, path)) is concerned


def test_a_claim_under_deletion_is_of_no_concern(server: FakeApiServer) -> None:
    path = add_claim(server, FROM_SNAPSHOT)
    server.objects[path]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert not Placement.concerns(read(server, path))


@pytest.mark.parametrize(
    ("ready", "reason", "words"),
    [
        (None, "SourceNodeGone", "not in the cluster"),
        ("Unknown", "SourceNodeNotReady", "not ready"),
    ],
)
def test_a_node_out_of_reach_is_told_once_and_waited_for(
    server: FakeApiServer, placement: Placement, ready: str | None, reason: str, words: str
) -> None:
    if ready:
        add_node(server, "node9", ready)
    add_snapshot(server, "node9")
    path = add_claim(server, FROM_SNAPSHOT)

    for _ in range(3):
        assert placement.place(read(server, path)) == LOOK_AGAIN_S

    # It waits for that node alone, and sends no other one into a try that must fail.
    assert server.annotations(path) == {SELECTED_NODE: "node9"}
    (event,) = server.events
    assert (event["reason"], event["type"]) == (reason, "Warning")
    assert event["involvedObject"]["name"] == "restored"
    assert "VolumeSnapshot monday is on node node9" in event["message"]
    assert words in event["message"]

    add_node(server, "node9")
    placement.place(read(server, path))
    server.remove("/api/v1/nodes/node9")
    placement.place(read(server, path))
    assert [each["reason"] for each in server.events] == [reason, "SourceNodeGone"]


def test_a_node_without_room_is_tried_more_and_more_rarely(
    server: FakeApiServer, placement: Placement, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("csi.cluster.placement.time.monotonic", lambda: now)
    add_snapshot(server, "node1")
    path = add_claim(server, FROM_SNAPSHOT)
    placement.place(read(server, path))

    pauses = []
    for _ in range(8):
        # The provisioner was told that there is no room, and takes the annotation away.
        add_claim(server, FROM_SNAPSHOT)
        pause_s = placement.place(read(server, path))
        assert server.annotations(path) == {}
        assert pause_s is not None
        pauses.append(pause_s)
        now += pause_s
        placement.place(read(server, path))
        assert server.annotations(path) == {SELECTED_NODE: "node1"}

    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_forgotten_claim_begins_anew(server: FakeApiServer, placement: Placement) -> None:
    add_snapshot(server, "node1")
    path = add_claim(server, FROM_SNAPSHOT)
    placement.place(read(server, path))
    placement.forget(read(server, path))
    add_claim(server, FROM_SNAPSHOT)

    placement.place(read(server, path))

    assert server.annotations(path) == {SELECTED_NODE: "node1"}


def test_a_server_that_fails_is_an_error_that_says_what_was_asked(
    server: FakeApiServer, placement: Placement
) -> None:
    path = add_claim(server, FROM_SNAPSHOT)
    claim = read(server, path)
    server.fail_next = 1
    with pytest.raises(ApiError, match=r"storageclasses/ours was answered with 500: etcd has no"):
        placement.place(claim)
