"""Volumes grow while pods use them."""

import time
from collections.abc import Callable

from tests.cluster.cases.driver import driver_pods
from tests.cluster.cases.namespaces import Namespace
from tests.cluster.cases.objects import Use, claim, pod, shipped_class

SEEN_S = 240.0
# The kubelet comes by about once a minute, and at once when something changes about the pod.
NUDGED_EVERY_S = 5.0
OLD, NEW = "512Mi", "1Gi"
OLD_KIB, NEW_KIB = 512 << 10, 1 << 20
OVERHEAD = 0.1


def test_pods_see_their_volumes_grow_without_a_restart(namespace: Namespace) -> None:
    uses = {name: Use(name) for name in ("xfs", "btrfs", "ext4")}
    uses["block"] = Use("block", "/dev/data", block=True)
    claims = [
        claim(name, shipped_class("ext4" if use.block else name), OLD, block=use.block)
        for name, use in uses.items()
    ]
    namespace.start(*(pod(name, use) for name, use in uses.items()), *claims)
    pods = _lives(namespace)
    for name in ("xfs", "btrfs", "ext4"):
        namespace.shell(name, "echo before > /data/file; sync")
    namespace.shell("block", "echo before | dd of=/dev/data conv=fsync")
    assert all(_size_kib(namespace, use) <= OLD_KIB for use in uses.values())

    for name in uses:
        size = f'{{"spec": {{"resources": {{"requests": {{"storage": "{NEW}"}}}}}}}}'
        namespace.run("patch", "pvc", name, "--patch", size)
    refused = not _may_grow_ext4(namespace)
    if refused:
        # Kubernetes makes a condition of the claim of it, and no event.
        _wait_seen(
            namespace,
            lambda: "CAP_SYS_RESOURCE" in _resize_error(namespace, "ext4"),
            "the claim ext4 to tell why its filesystem does not grow",
        )
        del uses["ext4"]
    for use in uses.values():
        _wait_grown(namespace, use)

    assert namespace.shell("block", "blockdev --getsize64 /dev/data") == str(NEW_KIB << 10)
    assert namespace.shell("block", "head -n 1 /dev/data") == "before"
    namespace.shell("block", "dd if=/dev/zero of=/dev/data bs=1M seek=1000 count=24 conv=fsync")
    for name in uses.keys() - {"block"}:
        assert namespace.shell(name, "cat /data/file") == "before"
        namespace.shell(name, "fallocate -l 600M /data/more")
    assert _lives(namespace) == pods

    if refused:
        # It grows when the volume is mounted again.
        namespace.delete("pod/ext4")
        namespace.start(pod("ext4", Use("ext4")))
        _wait_grown(namespace, Use("ext4"))
        assert namespace.shell("ext4", "cat /data/file") == "before"


def _may_grow_ext4(namespace: Namespace) -> bool:
    node = namespace.get("pod", "ext4")["spec"]["nodeName"]
    on_nodes = {driver.node: driver for driver in driver_pods(namespace.kubectl)}
    return on_nodes[node].may_grow_ext4()


def _resize_error(namespace: Namespace, name: str) -> str:
    conditions = namespace.get("pvc", name)["status"].get("conditions", [])
    return " ".join(each["message"] for each in conditions if each["type"] == "NodeResizeError")


def _wait_grown(namespace: Namespace, use: Use) -> None:
    name = use.volume
    assert isinstance(name, str)
    _wait_seen(
        namespace,
        lambda: _size_kib(namespace, use) > NEW_KIB * (1 - OVERHEAD),
        f"the pod to see that {name} has grown",
    )
    namespace.wait_until(
        lambda: namespace.get("pvc", name)["status"]["capacity"]["storage"] == NEW,
        SEEN_S,
        f"the claim {name} to tell its new size",
    )


def _wait_seen(namespace: Namespace, condition: Callable[[], bool], awaited: str) -> None:
    """Waits for what the kubelet does when it comes by, and has it come by more often."""
    nudged_s = 0.0

    def holds() -> bool:
        nonlocal nudged_s
        if time.monotonic() > nudged_s + NUDGED_EVERY_S:
            nudged_s = time.monotonic()
            namespace.run("annotate", "--overwrite", "pods", "--all", f"nudged={nudged_s}")
        return condition()

    namespace.wait_until(holds, SEEN_S, awaited)


def _size_kib(namespace: Namespace, use: Use) -> int:
    assert isinstance(use.volume, str)
    if use.block:
        return int(namespace.shell(use.volume, f"blockdev --getsize64 {use.path}")) >> 10
    return namespace.size_kib(use.volume, use.path)


def _lives(namespace: Namespace) -> dict[str, tuple[str, int]]:
    """The identity of each pod and how often it was restarted."""
    return {
        each["metadata"]["name"]: (
            each["metadata"]["uid"],
            each["status"]["containerStatuses"][0]["restartCount"],
        )
        for each in namespace.get("pods")["items"]
    }
