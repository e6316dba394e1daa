"""The cluster, and a namespace for each test."""

import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.build import build
from tests.cluster.cases.driver import driver_pods
from tests.cluster.cases.namespaces import Namespace
from tests.cluster.cases.objects import DRIVER
from tests.cluster.cluster import Cluster
from tests.cluster.errors import ClusterError
from tests.cluster.kubectl import Kubectl
from tests.cluster.versions import KUBECTL
from tests.cluster.waiting import WaitedInVain, wait_until

LEAVING_S = 120.0


@pytest.fixture(scope="session")
def kubectl() -> Kubectl:
    """The kubectl of the cluster that KUBECONFIG names, or else the project's own."""
    if configuration := os.environ.get("KUBECONFIG"):
        program = shutil.which("kubectl") or build([KUBECTL])[KUBECTL.name]
        found = Kubectl(Path(program), Path(configuration))
    else:
        try:
            found = Cluster.running().kubectl
        except ClusterError as error:
            pytest.fail(
                f"{error}: `make cluster` starts one and installs the driver", pytrace=False
            )
    if found.try_run("get", "csidriver", DRIVER).returncode != 0:
        pytest.fail(
            f"the cluster of {found.kubeconfig} does not answer or has no driver {DRIVER}: "
            "`make cluster` starts one and installs the driver",
            pytrace=False,
        )
    return found


@pytest.fixture(scope="session")
def left_namespaces(kubectl: Kubectl) -> Iterator[list[str]]:
    """Namespaces that tests have deleted; nothing of them may be there at the end."""
    left: list[str] = []
    yield left

    names = set(left)
    try:
        wait_until(lambda: not _of_namespaces(kubectl, names), LEAVING_S, "namespaces to be gone")
        wait_until(lambda: not _volumes(kubectl, names), LEAVING_S, "volumes to be gone")
    except WaitedInVain as error:
        there = sorted(_of_namespaces(kubectl, names)) + _volumes(kubectl, names)
        pytest.fail(f"{error}: {', '.join(there)}", pytrace=False)


@pytest.fixture
def namespace(kubectl: Kubectl, left_namespaces: list[str]) -> Iterator[Namespace]:
    """A namespace; it is deleted with everything in it while the next test runs."""
    made = Namespace(kubectl, f"cases-{secrets.token_hex(3)}")
    kubectl.run("create", "namespace", made.name)
    left_namespaces.append(made.name)
    made.wait_until(
        lambda: made.kubectl.try_run("-n", made.name, "get", "sa", "default").returncode == 0,
        30,
        "the service account of pods",
    )
    yield made
    kubectl.run("delete", "namespace", made.name, "--wait=false")
    if made.classes:
        kubectl.run("delete", "storageclass", *made.classes)


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
        found += [
            f"volume {volume['name']} on {driver.node}"
            for volume in driver.volumes()
            if volume["claim"]["namespace"] in namespaces
        ]
    return found
