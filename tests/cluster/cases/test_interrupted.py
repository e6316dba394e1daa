"""What is deleted while it is being made leaves nothing behind."""

import time

from tests.cluster.cases.driver import claims_in_pools
from tests.cluster.cases.leaving import wait_gone
from tests.cluster.cases.machines import driver_frozen, mounted_twice, node_of, volume_mounts
from tests.cluster.cases.namespaces import Namespace
from tests.cluster.cases.objects import Use, claim, pod, shipped_class, snapshot
from tests.cluster.cluster import Cluster

EXT4 = shipped_class("ext4")
SIZE = "64Mi"
SEEN_S = 60.0
GONE_S = 120.0
# By then the sidecar or the kubelet, which acts at once, waits for the driver's answer.
UNDER_WAY_S = 2.0
SELECTED_NODE = "volume.kubernetes.io/selected-node"


def test_a_claim_deleted_while_its_volume_is_made_leaves_no_volume(
    namespace: Namespace, cluster: Cluster
) -> None:
    node = cluster.nodes[0]
    with driver_frozen(node):
        namespace.apply(claim("gone", EXT4, SIZE), pod("gone", Use("gone"), node=node.name))
        namespace.wait_until(lambda: _selected(namespace, "gone"), SEEN_S, "a node for the claim")
        time.sleep(UNDER_WAY_S)
        namespace.run("delete", "--wait=false", "pod/gone", "pvc/gone")
    # What was asked before this one has been answered when it is there.
    namespace.start(claim("next", EXT4, SIZE), pod("next", Use("next"), node=node.name))
    _wait_left(namespace, {"next"})


def test_a_pod_deleted_while_its_volume_is_mounted_leaves_no_mount(
    namespace: Namespace, cluster: Cluster
) -> None:
    namespace.start(pod("first", Use("data")), claim("data", EXT4, SIZE))
    namespace.shell("first", "echo kept > /data/file; sync")
    node = node_of(cluster, namespace.get("pod", "first")["spec"]["nodeName"])
    namespace.delete("pod/first")

    with driver_frozen(node):
        namespace.apply(pod("short", Use("data")))
        namespace.wait_until(
            lambda: namespace.get("pod", "short")["spec"].get("nodeName") == node.name,
            SEEN_S,
            "the pod to get to its node",
        )
        time.sleep(UNDER_WAY_S)
        uid = namespace.get("pod", "short")["metadata"]["uid"]
        namespace.run("delete", "--wait=false", "pod/short")
    namespace.wait_until(
        lambda: not any(uid in target for target in volume_mounts(node)),
        GONE_S,
        "the mount of the pod that was deleted to be gone",
    )
    namespace.wait_until(lambda: not namespace.get("pods")["items"], GONE_S, "the pod to be gone")

    namespace.start(pod("next", Use("data")))
    assert namespace.shell("next", "cat /data/file") == "kept"
    assert not mounted_twice(node)


def test_a_namespace_deleted_while_all_in_it_is_made_leaves_nothing(namespace: Namespace) -> None:
    source = claim("source", EXT4, SIZE)
    namespace.start(pod("source", Use("source")), source)
    names = [f"volume-{number}" for number in range(8)]
    namespace.apply(
        *(claim(name, EXT4, SIZE) for name in names),
        *(pod(name, Use(name)) for name in names),
        *(snapshot(f"snapshot-{number}", of_claim="source") for number in range(4)),
    )
    # Now some are there and some are not.
    namespace.wait_until(
        lambda: any(_selected(namespace, name) for name in names), SEEN_S, "the first of them"
    )
    namespace.kubectl.run("delete", "namespace", namespace.name, "--wait=false")

    wait_gone(namespace.kubectl, [namespace.name])


def _selected(namespace: Namespace, name: str) -> bool:
    annotations = namespace.get("pvc", name)["metadata"].get("annotations", {})
    return SELECTED_NODE in annotations


def _wait_left(namespace: Namespace, claims: set[str]) -> None:
    """Waits until these are all claims of the namespace that have a volume anywhere."""
    namespace.wait_until(
        lambda: (
            _of_volumes(namespace) == claims == claims_in_pools(namespace.kubectl, namespace.name)
        ),
        GONE_S,
        f"the claims with volumes to be {sorted(claims)}",
    )


def _of_volumes(namespace: Namespace) -> set[str]:
    volumes = namespace.kubectl.get("persistentvolumes")["items"]
    references = [volume["spec"]["claimRef"] for volume in volumes]
    return {each["name"] for each in references if each["namespace"] == namespace.name}
