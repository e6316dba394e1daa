"""On several nodes: volumes are made where there is room, and a lost node holds up no other.

That copies are made where their sources are is test_placement.py's subject.
"""

from collections.abc import Iterator

import pytest

from tests.cluster.cases.driver import DriverPod, driver_pods
from tests.cluster.cases.machines import mounted_twice, node_of
from tests.cluster.cases.namespaces import Namespace
from tests.cluster.cases.objects import Use, claim, from_snapshot, pod, shipped_class
from tests.cluster.cases.objects import snapshot as volume_snapshot
from tests.cluster.cluster import Cluster
from tests.cluster.kubectl import Kubectl
from tests.cluster.node import Node

pytestmark = pytest.mark.nodes

EXT4 = shipped_class("ext4")
SIZE = "64Mi"
# Of the smallest pool: after a volume of the first there is no room for one of the second.
MOST, SOME = 0.8, 0.25
RECOVERED_S = 300.0


@pytest.fixture(scope="module")
def drivers(kubectl: Kubectl) -> list[DriverPod]:
    """The driver on each of at least three nodes."""
    found = driver_pods(kubectl)
    if len(found) < 3:
        pytest.skip("these cases need three nodes: make cluster NODES=3")
    return found


def test_a_node_without_room_is_passed_over(namespace: Namespace, drivers: list[DriverPod]) -> None:
    smallest = min(driver.pool_bytes()[0] for driver in drivers)
    full = drivers[0].node
    filler = claim("filler", EXT4, str(int(smallest * MOST)))
    namespace.start(pod("filler", Use("filler"), node=full), filler)

    # At once, while the capacity from before is still published: then the driver itself refuses.
    names = [f"volume-{number}" for number in range(2 * (len(drivers) - 1))]
    size = str(int(smallest * SOME))
    namespace.start(
        *(pod(name, Use(name)) for name in names), *(claim(name, EXT4, size) for name in names)
    )
    nodes = {name: _node(namespace, name) for name in names}
    assert full not in nodes.values()
    assert set(nodes.values()) == {driver.node for driver in drivers[1:]}


@pytest.fixture
def lost(cluster: Cluster, kubectl: Kubectl, drivers: list[DriverPod]) -> Iterator[Node]:
    """A node that can be killed; afterwards it is there in any case."""
    node = node_of(cluster, _leader(kubectl) or drivers[-1].node)
    try:
        yield node
    finally:
        if node.machine.find_init() is None:
            node.start()


def test_the_others_go_on_while_a_node_is_lost_and_its_pods_come_back_with_it(
    namespace: Namespace, drivers: list[DriverPod], lost: Node
) -> None:
    others = [driver.node for driver in drivers if driver.node != lost.name]
    namespace.start(
        pod("on-lost", Use("on-lost"), node=lost.name),
        claim("on-lost", EXT4, SIZE),
        *(pod(f"old-{node}", Use(f"old-{node}"), node=node) for node in others),
        *(claim(f"old-{node}", EXT4, SIZE) for node in others),
    )
    namespace.shell("on-lost", "echo kept > /data/file; sync")
    restarts = _restarts(namespace, "on-lost")

    lost.kill()

    for node in others:
        namespace.shell(f"old-{node}", f"echo {node} > /data/file; sync")
    namespace.apply(*(volume_snapshot(node, of_claim=f"old-{node}") for node in others))
    # Who leads the controllers of snapshots may have been on that node.
    namespace.wait_snapshots(*others)
    # The same goes for the resizer, which marks what the kubelet is to grow.
    grown = f"old-{others[0]}"
    more_room = '{"spec": {"resources": {"requests": {"storage": "128Mi"}}}}'
    namespace.run("patch", "pvc", grown, "--patch", more_room)
    namespace.wait_until(
        lambda: "allocatedResources" in namespace.get("pvc", grown)["status"],
        RECOVERED_S,
        f"{grown} to be marked for growth",
    )
    more = []
    for node in others:
        restored = claim(f"restored-{node}", EXT4, SIZE, source=from_snapshot(node))
        more += [restored, pod(f"restored-{node}", Use(f"restored-{node}"), node=node)]
        more += [
            claim(f"new-{node}", EXT4, SIZE),
            pod(f"new-{node}", Use(f"new-{node}"), node=node),
        ]
    namespace.start(*more)
    for node in others:
        assert namespace.shell(f"restored-{node}", "cat /data/file") == node
    namespace.delete(
        *(f"pod/new-{node}" for node in others), *(f"pvc/new-{node}" for node in others)
    )

    lost.start()

    namespace.wait_until(
        lambda: _restarts(namespace, "on-lost") > restarts, RECOVERED_S, "its pod to start again"
    )
    namespace.wait_ready("on-lost", timeout_s=RECOVERED_S)
    assert namespace.shell("on-lost", "cat /data/file") == "kept"
    assert not mounted_twice(lost)
    namespace.start(pod("new", Use("new"), node=lost.name), claim("new", EXT4, SIZE))


def _leader(kubectl: Kubectl) -> str:
    """The node whose snapshot-controller leads, so that losing it is the worst that can happen."""
    leases = kubectl.get("leases", "--namespace", "kube-system")["items"]
    holders = [
        each["spec"].get("holderIdentity", "")
        for each in leases
        if each["metadata"]["name"].startswith("snapshot-controller")
    ]
    for found in kubectl.get("pods", "--namespace", "kube-system")["items"]:
        if any(found["metadata"]["name"] in holder for holder in holders):
            return str(found["spec"]["nodeName"])
    return ""


def _node(namespace: Namespace, pod_name: str) -> str:
    return str(namespace.get("pod", pod_name)["spec"]["nodeName"])


def _restarts(namespace: Namespace, pod_name: str) -> int:
    statuses = namespace.get("pod", pod_name)["status"]["containerStatuses"]
    return int(statuses[0]["restartCount"])
