"""Pods and data outlive the end of what serves them: the driver, its image, kubelet and node."""

from collections.abc import Iterator
from functools import partial

import pytest

from csi import __version__
from tests.cluster.cases.driver import claims_in_pools, driver_pods
from tests.cluster.cases.machines import driver_process, mounted_twice, node_of, volume_mounts
from tests.cluster.cases.namespaces import Namespace
from tests.cluster.cases.objects import Use, claim, from_snapshot, pod, shipped_class, snapshot
from tests.cluster.cluster import Cluster
from tests.cluster.driver_image import DRIVER_NAME, driver_image
from tests.cluster.installation import NAMESPACE, wait_for_rollout
from tests.cluster.kubectl import Kubectl

EXT4 = shipped_class("ext4")
SIZE = "64Mi"
BEGUN_S = 60.0
# A container that ends again and again is started again after 10 s, then 20 s and so on.
RECOVERED_S = 240.0
NEXT_NAME = f"docker.io/library/csi-local-path:{__version__}-next"
_WRITER = "while :; do date +%s >> /data/log; sync /data/log; sleep 0.2; done"


def test_what_was_asked_is_done_although_the_driver_is_killed_meanwhile(
    namespace: Namespace, cluster: Cluster
) -> None:
    names = [f"volume-{number}" for number in range(8)]
    pods = [pod(name, Use(name)) for name in names]
    namespace.apply(*(claim(name, EXT4, SIZE) for name in names), *pods)
    _wait_first(namespace, "pvc", "volumeName")
    _kill_drivers(cluster)
    namespace.wait_ready(*names, timeout_s=RECOVERED_S)
    for name in names:
        namespace.shell(name, f"echo {name} > /data/file; sync")

    namespace.apply(*(snapshot(name, of_claim=name) for name in names))
    _wait_first(namespace, "volumesnapshots", "boundVolumeSnapshotContentName")
    _kill_drivers(cluster)
    namespace.wait_snapshots(*names, timeout_s=RECOVERED_S)

    namespace.delete(*(f"pod/{name}" for name in names))
    mounted = _mounts(cluster)
    namespace.apply(*pods)
    namespace.wait_until(lambda: bool(_mounts(cluster) - mounted), BEGUN_S, "the first mount")
    _kill_drivers(cluster)
    namespace.wait_ready(*names, timeout_s=RECOVERED_S)

    assert {name: namespace.shell(name, "cat /data/file") for name in names} == {
        name: name for name in names
    }
    source = namespace.get("pod", names[-1])["spec"]["nodeName"]
    restored = claim("restored", EXT4, SIZE, source=from_snapshot(names[-1]))
    namespace.start(pod("restored", Use("restored"), node=source), restored)
    assert namespace.shell("restored", "cat /data/file") == names[-1]
    # Asked last: pods run on without the driver, which can be asked once it is there again.
    assert claims_in_pools(namespace.kubectl, namespace.name) == {*names, "restored"}
    assert not _mounted_twice(cluster)


@pytest.fixture
def upgraded(kubectl: Kubectl, cluster: Cluster) -> Iterator[None]:
    """Leads to another image of the driver and back."""
    cluster.load_image(driver_image(NEXT_NAME))
    try:
        yield
    finally:
        _set_image(kubectl, DRIVER_NAME)


@pytest.mark.usefixtures("upgraded")
def test_pods_run_on_while_the_driver_is_upgraded(namespace: Namespace, cluster: Cluster) -> None:
    namespace.start(pod("writer", Use("data")), claim("data", EXT4, SIZE))
    namespace.shell("writer", f"({_WRITER}) > /dev/null 2>&1 &")
    before = _life(namespace, "writer")

    _set_image(namespace.kubectl, NEXT_NAME)

    assert {driver.image() for driver in driver_pods(namespace.kubectl)} == {NEXT_NAME}
    assert _life(namespace, "writer") == before
    written = namespace.shell("writer", "wc -l < /data/log")
    namespace.wait_until(
        lambda: int(namespace.shell("writer", "wc -l < /data/log")) > int(written),
        BEGUN_S,
        "the pod to go on writing",
    )
    # The new one unmounts what the old one has mounted, and makes what is new.
    namespace.delete("pod/writer")
    namespace.start(pod("reader", Use("data")), pod("new", Use("new")), claim("new", EXT4, SIZE))
    assert int(namespace.shell("reader", "wc -l < /data/log")) > int(written)
    assert not _mounted_twice(cluster)


def test_pods_run_on_while_the_kubelet_is_restarted(namespace: Namespace, cluster: Cluster) -> None:
    namespace.start(pod("before", Use("data")), claim("data", EXT4, SIZE))
    namespace.shell("before", "echo kept > /data/file; sync")
    before = _life(namespace, "before")
    node = node_of(cluster, namespace.get("pod", "before")["spec"]["nodeName"])
    uid, _ = before

    node.restart_kubelet()

    namespace.start(pod("after", Use("after"), node=node.name), claim("after", EXT4, SIZE))
    assert _life(namespace, "before") == before
    assert namespace.shell("before", "cat /data/file") == "kept"
    assert not mounted_twice(node)
    # It still knows what it had mounted.
    namespace.delete("pod/before")
    namespace.wait_until(
        lambda: not any(uid in target for target in volume_mounts(node)),
        BEGUN_S,
        "the mount of the pod to be gone",
    )


def test_pods_come_back_with_their_data_when_their_node_has_lost_its_power(
    namespace: Namespace, cluster: Cluster
) -> None:
    node = cluster.nodes[-1]
    uses = {name: Use(name) for name in ("ext4", "xfs", "btrfs")}
    uses["block"] = Use("block", "/dev/data", block=True)
    namespace.start(
        *(pod(name, use, node=node.name) for name, use in uses.items()),
        *(claim(name, shipped_class(name), "300Mi") for name in ("ext4", "xfs", "btrfs")),
        claim("block", EXT4, "64Mi", block=True),
    )
    sums = {}
    for name, use in uses.items():
        path = use.path if use.block else f"{use.path}/file"
        namespace.shell(name, f"dd if=/dev/urandom of={path} bs=1M count=8 conv=fsync")
        sums[name] = namespace.shell(name, f"head -c 8388608 {path} | sha256sum")
    lives = {name: _life(namespace, name) for name in uses}

    node.kill()
    node.start()

    for name, (uid, restarts) in lives.items():
        # Until the kubelet has started it again, the cluster thinks that it runs.
        namespace.wait_until(
            partial(_has_started_again, namespace, name, restarts),
            RECOVERED_S,
            f"the pod {name} to be started again",
        )
        namespace.wait_ready(name, timeout_s=RECOVERED_S)
        assert _life(namespace, name)[0] == uid
    for name, use in uses.items():
        path = use.path if use.block else f"{use.path}/file"
        assert namespace.shell(name, f"head -c 8388608 {path} | sha256sum") == sums[name]
    assert not mounted_twice(node)
    namespace.start(pod("new", Use("new"), node=node.name), claim("new", EXT4, SIZE))
    wait_for_rollout(namespace.kubectl, NAMESPACE)


def _kill_drivers(cluster: Cluster) -> None:
    for node in cluster.nodes:
        driver_process(node).kill()


def _set_image(kubectl: Kubectl, name: str) -> None:
    for workload in ("daemonset/csi-local-path-node", "deployment/csi-local-path-resizer"):
        kubectl.run("--namespace", NAMESPACE, "set", "image", workload, f"driver={name}")
    wait_for_rollout(kubectl, NAMESPACE)


def _wait_first(namespace: Namespace, kind: str, field: str) -> None:
    """Waits until the first object of a kind has a field in its specification or status."""

    def is_there() -> bool:
        found = namespace.get(kind)["items"]
        return any(field in each["spec"] or field in each.get("status", {}) for each in found)

    namespace.wait_until(is_there, BEGUN_S, f"the first of {kind} to have {field}")


def _has_started_again(namespace: Namespace, pod_name: str, restarts: int) -> bool:
    return _life(namespace, pod_name)[1] > restarts


def _life(namespace: Namespace, name: str) -> tuple[str, int]:
    """A pod's identity, and how often it was restarted."""
    found = namespace.get("pod", name)
    return found["metadata"]["uid"], found["status"]["containerStatuses"][0]["restartCount"]


def _mounts(cluster: Cluster) -> set[str]:
    return {target for node in cluster.nodes for target in volume_mounts(node)}


def _mounted_twice(cluster: Cluster) -> list[str]:
    return [target for node in cluster.nodes for target in mounted_twice(node)]
