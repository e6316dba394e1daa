"""Takes the driver out, puts the overlay in, and leaves the cluster as it was."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.cases.attached.witness import Witness
from tests.cluster.cases.leaving import wait_gone
from tests.cluster.cases.namespaces import make_namespace
from tests.cluster.cases.objects import Use, claim, pod, shipped_class, snapshot
from tests.cluster.cluster import Cluster
from tests.cluster.installation import install_driver, uninstall_driver
from tests.cluster.kubectl import Kubectl

OVERLAY = Path(__file__).parent


@pytest.fixture(scope="package", autouse=True)
def witness(kubectl: Kubectl, cluster: Cluster, left_namespaces: list[str]) -> Iterator[Witness]:
    """Puts the overlay into the place of the driver; nothing of other cases is there any more."""
    if len(cluster.nodes) != 1:
        pytest.skip("the overlay single-node-attach is for one node: make cluster")
    wait_gone(kubectl, left_namespaces)
    namespace = make_namespace(kubectl)
    namespace.start(pod("witness", Use("witness")), claim("witness", shipped_class("ext4"), "64Mi"))
    namespace.shell("witness", "echo before > /data/file; sync")
    namespace.apply(snapshot("witness", of_claim="witness"))
    namespace.wait_snapshots("witness")

    try:
        uninstall_driver(kubectl)
        namespace.shell("witness", "echo meanwhile >> /data/file; sync")
        written = namespace.shell("witness", "cat /data/file")
        install_driver(kubectl, OVERLAY)
        yield Witness(namespace, written)
    finally:
        kubectl.run("delete", "namespace", namespace.name, "--wait=false")
        left_namespaces.append(namespace.name)
        wait_gone(kubectl, left_namespaces)
        uninstall_driver(kubectl, OVERLAY)
        install_driver(kubectl)
