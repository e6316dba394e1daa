"""Restores and clones on a cluster of several nodes: each lands where its source is."""

import pytest

from tests.cluster.cases.namespaces import Namespace
from tests.cluster.cases.objects import (
    Manifest,
    Use,
    claim,
    from_claim,
    from_snapshot,
    pod,
    shipped_class,
    snapshot,
)
from tests.cluster.installation import NAMESPACE
from tests.cluster.kubectl import Kubectl

pytestmark = pytest.mark.nodes

CLASS = shipped_class("xfs")
SIZE = "300Mi"


@pytest.fixture(autouse=True)
def _is_installed(kubectl: Kubectl) -> None:
    where = ("--namespace", NAMESPACE)
    if kubectl.try_run("get", "deployment", "csi-local-path-placement", *where).returncode != 0:
        pytest.skip("the overlay single-node-attach has one node, and no need of placement")


def test_each_copy_lands_on_the_node_of_its_source(kubectl: Kubectl, namespace: Namespace) -> None:
    nodes = [each["metadata"]["name"] for each in kubectl.get("nodes")["items"]]
    if len(nodes) < 2:
        pytest.skip("with one node there is no other place: make cluster NODES=3")
    namespace.start(
        *(_pinned(node, node) for node in nodes), *(claim(node, CLASS, SIZE) for node in nodes)
    )
    for node in nodes:
        namespace.shell(node, f"echo {node} > /data/file; sync")
    namespace.apply(*(snapshot(node, of_claim=node) for node in nodes))
    namespace.wait_snapshots(*nodes)

    copies = {f"restored-{node}": from_snapshot(node) for node in nodes}
    copies |= {f"cloned-{node}": from_claim(node) for node in nodes}
    claims = (claim(name, CLASS, SIZE, source=source) for name, source in copies.items())
    namespace.start(*(pod(name, Use(name)) for name in copies), *claims)

    for name in copies:
        node = name.partition("-")[2]
        assert namespace.get("pod", name)["spec"]["nodeName"] == node
        assert namespace.shell(name, "cat /data/file") == node


def test_a_restore_that_comes_before_its_snapshot_lands_there_too(
    kubectl: Kubectl, namespace: Namespace
) -> None:
    node = kubectl.get("nodes")["items"][-1]["metadata"]["name"]
    namespace.start(_pinned("source", node), claim("source", CLASS, SIZE))
    namespace.shell("source", "echo old > /data/file; sync")
    restored = claim("restored", CLASS, SIZE, source=from_snapshot("later"))
    namespace.apply(restored, pod("restored", Use("restored")))
    namespace.wait_event("PersistentVolumeClaim/restored", "later")

    namespace.apply(snapshot("later", of_claim="source"))
    namespace.wait_ready("restored")

    assert namespace.get("pod", "restored")["spec"]["nodeName"] == node
    assert namespace.shell("restored", "cat /data/file") == "old"


def test_a_source_on_a_node_that_is_gone_is_told_and_holds_up_nobody(
    kubectl: Kubectl, namespace: Namespace
) -> None:
    node = kubectl.get("nodes")["items"][0]["metadata"]["name"]
    namespace.start(_pinned("source", node), claim("source", CLASS, SIZE))
    namespace.apply(snapshot("kept", of_claim="source"))
    namespace.wait_snapshots("kept")
    content = namespace.get("volumesnapshot", "kept")["status"]["boundVolumeSnapshotContentName"]
    label = "snapshot.storage.kubernetes.io/managed-by"
    # As if the node had been taken out of the cluster for good.
    kubectl.run("label", "--overwrite", "volumesnapshotcontent", content, f"{label}=node-of-old")
    try:
        restored = claim("restored", CLASS, SIZE, source=from_snapshot("kept"))
        namespace.apply(restored, pod("restored", Use("restored")))
        namespace.wait_event("PersistentVolumeClaim/restored", "node-of-old", "not in the cluster")
        namespace.start(pod("other", Use("other")), claim("other", CLASS, SIZE))
    finally:
        kubectl.run("label", "--overwrite", "volumesnapshotcontent", content, f"{label}={node}")
    # It is back: the claim, which has waited for it, is looked at again.
    namespace.wait_ready("restored")


def _pinned(name: str, node: str) -> Manifest:
    made = pod(name, Use(name))
    made["spec"]["nodeSelector"] = {"kubernetes.io/hostname": node}
    return made
