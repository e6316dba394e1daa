"""What namespaces that were deleted leave behind, which has to be nothing."""

from collections.abc import Iterable

import pytest

from tests.cluster.cases.driver import driver_pods
from tests.cluster.errors import ClusterError
from tests.cluster.kubectl import Kubectl
from tests.cluster.waiting import WaitedInVain, wait_until

# Of a node that was lost for a while, volumes go by the next try of their deletion.
LEAVING_S = 400.0


def wait_gone(kubectl: Kubectl, left: Iterable[str]) -> None:
    """Waits until nothing of some namespaces is there, in Kubernetes or in a pool."""
    names = set(left)
    waited = (LEAVING_S, "all of the namespaces to be gone")
    try:
        wait_until(lambda: not _of_namespaces(kubectl, names), *waited, pause_s=1)
        wait_until(lambda: not _volumes(kubectl, names), *waited, pause_s=1)
    except WaitedInVain as error:
        there = sorted(_of_namespaces(kubectl, names)) + _volumes(kubectl, names)
        pytest.fail(f"{error}: {', '.join(there)}", pytrace=False)


def _of_namespaces(kubectl: Kubectl, names: set[str]) -> set[str]:
    return names & {each["metadata"]["name"] for each in kubectl.get("namespaces")["items"]}


def _volumes(kubectl: Kubectl, namespaces: set[str]) -> list[str]:
    """What is left of the namespaces: volumes, snapshots, and what the driver has in its pools."""
    found = [
        f"{volume['kind']} {volume['metadata']['name']}"
        for kind, reference in (
            ("persistentvolumes", "claimRef"),
            ("volumesnapshotcontents", "volumeSnapshotRef"),
        )
        for volume in kubectl.get(kind)["items"]
        if volume["spec"].get(reference, {}).get("namespace") in namespaces
    ]
    for driver in driver_pods(kubectl):
        try:
            volumes = driver.volumes()
        except ClusterError as error:
            # A case before may have killed it, and it is on its way back.
            found.append(f"whatever the driver on {driver.node} has, which does not say: {error}")
            continue
        found += [
            f"volume {volume['name']} on {driver.node}"
            for volume in volumes
            if volume["claim"]["namespace"] in namespaces
        ]
    return found
