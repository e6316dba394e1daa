"""What the bench of a cluster makes of what it is told; it needs no cluster."""

import threading
import time
from pathlib import Path

import pytest

from tests.api_objects import add_claim
from tests.api_server import CLAIMS, FakeApiServer
from tests.cluster.bench.api import Api, Seen, Watch, condition
from tests.cluster.errors import ClusterError


def test_a_watch_tells_when_something_first_held_of_each(tmp_path: Path) -> None:
    with FakeApiServer(tmp_path) as server:
        # As behind kubectl proxy, which says who asks.
        server.admits_anybody = True
        add_claim(server, None, name="old")
        with Watch(Api(server.address), CLAIMS) as watch:
            start = time.perf_counter()
            later = threading.Timer(0.3, add_claim, (server, None), {"name": "b", "volume": "v"})
            later.start()
            add_claim(server, None, name="a", volume="v")
            add_claim(server, None, name="b")
            found = watch.first({"a", "b"}, lambda seen: bool(seen.object["spec"]["volumeName"]), 5)
            later.join()
            add_claim(server, None, name="a", volume="another")
            assert watch.first({"a"}, lambda seen: seen.kind != "BOOKMARK", 5) == {"a": found["a"]}
            with pytest.raises(ClusterError, match="in vain for old"):
                watch.first({"a", "old"}, lambda _: True, 0.1)
    assert start < found["a"] < start + 0.3 <= found["b"] < start + 5


@pytest.mark.parametrize(("status", "holds"), [("True", True), ("False", False)])
def test_a_condition_holds_when_its_status_says_so(status: str, holds: bool) -> None:
    conditions = [{"type": "Ready", "status": status}]
    pod = {"metadata": {"name": "p"}, "status": {"conditions": conditions}}
    assert condition(Seen(0, "MODIFIED", pod), "Ready") is holds
    assert not condition(Seen(0, "ADDED", {"metadata": {"name": "p"}}), "Ready")
