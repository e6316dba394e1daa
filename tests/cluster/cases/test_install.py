"""What an installed driver is in the cluster: pods, nodes, topology and published capacity."""

import time
from decimal import Decimal
from typing import Any

import pytest

from tests.cluster.cases.driver import DriverPod, driver_pods
from tests.cluster.cases.namespaces import Namespace
from tests.cluster.cases.objects import DRIVER, claim, shipped_class
from tests.cluster.installation import NAMESPACE
from tests.cluster.kubectl import Kubectl
from tests.cluster.waiting import wait_until

TOPOLOGY_KEY = f"{DRIVER}/node"
CAPACITY_POLL_S = 30
READY_S = 180.0
# Whoever cannot work ends within that.
STEADY_S = 5.0
MIB = 1 << 20
_UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "k": 10**3, "M": 10**6}


def test_every_pod_is_ready(kubectl: Kubectl) -> None:
    pods = kubectl.get("pods", "--namespace", NAMESPACE)["items"]
    components = {pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in pods}
    assert {"node", "provisioner", "resizer", "snapshotter", "health-monitor"} <= components
    # A sidecar that was there before the driver's socket ends, and is started again.
    wait_until(lambda: not _unready(kubectl), READY_S, "all pods of the driver to be ready")
    time.sleep(STEADY_S)
    assert not _unready(kubectl)


def test_the_driver_runs_on_every_node_and_is_registered_there(kubectl: Kubectl) -> None:
    nodes = {node["metadata"]["name"]: node for node in kubectl.get("nodes")["items"]}
    assert sorted(driver.node for driver in driver_pods(kubectl)) == sorted(nodes)
    for name, node in nodes.items():
        assert node["metadata"]["labels"][TOPOLOGY_KEY] == name
        drivers = kubectl.get("csinode", name)["spec"]["drivers"]
        registered = next(driver for driver in drivers if driver["name"] == DRIVER)
        assert registered["nodeID"] == name
        assert registered["topologyKeys"] == [TOPOLOGY_KEY]


def test_the_capacity_of_each_class_is_what_its_pool_can_promise(kubectl: Kubectl) -> None:
    # It is published within the poll interval, and others may be at work in the meantime.
    deadline = time.monotonic() + 5 * CAPACITY_POLL_S
    while problem := _wrong_capacity(kubectl):
        assert time.monotonic() < deadline, problem
        time.sleep(2)


def test_a_claim_says_from_the_start_which_driver_makes_its_volume(
    kubectl: Kubectl, namespace: Namespace
) -> None:
    if kubectl.try_run("get", "mutatingadmissionpolicies").returncode != 0:
        # Such a cluster takes the overlay before-1.36; on any other the policy has to be there.
        pytest.skip("before Kubernetes 1.36 the API server has no such policies")
    bound = claim("bound", shipped_class("xfs"), "300Mi")
    bound["spec"]["volumeName"] = "a-volume-that-is-made-by-hand"
    namespace.apply(claim("new", shipped_class("xfs"), "300Mi"), bound)

    said = {
        name: namespace.get("pvc", name)["metadata"].get("annotations", {})
        for name in ("new", "bound")
    }

    key = "volume.kubernetes.io/storage-provisioner"
    assert said["new"].get(key) == DRIVER
    assert key not in said["bound"], "nothing is to be made for it"


def _unready(kubectl: Kubectl) -> list[str]:
    """The pods of the driver that are not ready."""
    return [
        pod["metadata"]["name"]
        for pod in kubectl.get("pods", "--namespace", NAMESPACE)["items"]
        if not any(
            each["type"] == "Ready" and each["status"] == "True"
            for each in pod["status"].get("conditions", [])
        )
    ]


def _wrong_capacity(kubectl: Kubectl) -> str:
    """Says which class has another capacity than it should on which node, or nothing."""
    capacities = kubectl.get("csistoragecapacities", "--namespace", NAMESPACE)["items"]
    published = {
        (each["nodeTopology"]["matchLabels"][TOPOLOGY_KEY], each["storageClassName"]): each
        for each in capacities
    }
    for driver in driver_pods(kubectl):
        least, most = _promise(kubectl, driver)
        assert most > 0, f"the pool on {driver.node} is full: nothing can be told"
        for fs_type in ("ext4", "xfs", "btrfs"):
            found = published.get((driver.node, shipped_class(fs_type)))
            size = _bytes(found) if found else -1
            if not least <= size <= most:
                return f"{fs_type} on {driver.node}: {size}, not from {least} to {most}"
        directories = published.get((driver.node, shipped_class("directory")))
        if _is_xfs_without_quotas(driver) and directories and _bytes(directories) != 0:
            return f"directories on {driver.node}: {_bytes(directories)}, not 0"
    return ""


def _is_xfs_without_quotas(driver: DriverPod) -> bool:
    """Whether the pool holds no directory to its size."""
    mounts = [line.split() for line in driver.run("cat", "/proc/mounts").splitlines()]
    return any(
        target == "/var/lib/csi-local-path" and fs_type == "xfs" and "prjquota" not in options
        for _, target, fs_type, options, *_ in mounts
    )


def _promise(kubectl: Kubectl, driver: DriverPod) -> tuple[int, int]:
    """The least and the most that a pool can promise, by the formula in csi/volumes/capacity.py.

    What the driver keeps for snapshots, and what clones share, is seen from outside only as an
    upper bound; without any of them the two figures are nearly the same.
    """
    total, free = driver.pool_bytes()
    volumes = driver.volumes()
    promised = sum(volume["sizeBytes"] for volume in volumes)
    taken = sum(min(volume["allocatedBytes"], volume["sizeBytes"]) for volume in volumes)
    margin = max(16 * MIB, min(1 << 30, total // 100))
    expected = min(total - promised, free - (promised - taken) - margin)
    snapshots = sum(
        content.get("status", {}).get("restoreSize", 0)
        for content in kubectl.get("volumesnapshotcontents")["items"]
        if content["spec"]["driver"] == DRIVER
    )
    return max(0, expected - snapshots - taken - 64 * MIB), max(0, expected + 64 * MIB)


def _bytes(capacity: dict[str, Any]) -> int:
    text = str(capacity["capacity"])
    for suffix, unit in _UNITS.items():
        if text.endswith(suffix):
            return int(Decimal(text.removesuffix(suffix)) * unit)
    return int(text)
