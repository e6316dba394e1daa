"""What Kubernetes shows of volumes: their figures in the kubelet's metrics, and their troubles."""

import re

from tests.cluster.cases.driver import driver_on
from tests.cluster.cases.namespaces import Namespace
from tests.cluster.cases.objects import Use, claim, pod, shipped_class

SIZE = "300Mi"
SIZE_BYTES = 300 << 20
WRITTEN_MIB = 32
# Once a minute by the kubelet's default.
MEASURED_S = 180.0
# The health monitor of the manifests asks once a minute.
TOLD_S = 180.0
_METRIC = re.compile(
    r'^kubelet_volume_stats_(\w+)\{namespace="(.*?)",persistentvolumeclaim="(.*?)"\} (\S+)$'
)


def test_the_kubelet_measures_each_volume(namespace: Namespace) -> None:
    uses = {name: Use(name) for name in ("ext4", "xfs", "btrfs")}
    uses["block"] = Use("block", "/dev/data", block=True)
    namespace.start(
        *(pod(name, use) for name, use in uses.items()),
        *(claim(name, shipped_class(name), SIZE) for name in ("ext4", "xfs", "btrfs")),
        claim("block", shipped_class("ext4"), SIZE, block=True),
    )
    mounted = uses.keys() - {"block"}
    for name in mounted:
        namespace.shell(name, f"dd if=/dev/urandom of=/data/file bs=1M count={WRITTEN_MIB}; sync")

    def are_told() -> bool:
        told = _metrics(namespace)
        used = [told.get((name, "used_bytes"), 0) >= WRITTEN_MIB << 20 for name in mounted]
        return all(used) and all((name, "capacity_bytes") in told for name in uses)

    namespace.wait_until(are_told, MEASURED_S, "the kubelet to tell the figures of all volumes")
    told = _metrics(namespace)
    assert told["block", "capacity_bytes"] == SIZE_BYTES
    for name in mounted:
        assert told[name, "capacity_bytes"] == namespace.size_kib(name) << 10
        assert told[name, "used_bytes"] + told[name, "available_bytes"] <= SIZE_BYTES
    for name in ("ext4", "xfs"):
        assert told[name, "inodes"] > told[name, "inodes_used"] > 0


def test_a_claim_tells_that_its_image_is_missing_and_that_it_is_back(namespace: Namespace) -> None:
    namespace.start(pod("user", Use("data")), claim("data", shipped_class("ext4"), SIZE))
    driver = driver_on(namespace.kubectl, namespace.get("pod", "user")["spec"]["nodeName"])
    volumes = driver.volumes()
    image = next(each["path"] for each in volumes if each["claim"]["namespace"] == namespace.name)

    driver.run("mv", image, f"{image}.away")
    try:
        namespace.wait_event("PersistentVolumeClaim/data", "is missing from", timeout_s=TOLD_S)
    finally:
        driver.run("mv", f"{image}.away", image)
    namespace.wait_event("PersistentVolumeClaim/data", "healthy", timeout_s=TOLD_S)


def _metrics(namespace: Namespace) -> dict[tuple[str, str], int]:
    """The figures of the namespace's claims, by the claim's name and the metric's."""
    found = {}
    nodes = {pod["spec"].get("nodeName") for pod in namespace.get("pods")["items"]} - {None}
    for node in nodes:
        text = namespace.kubectl.run("get", "--raw", f"/api/v1/nodes/{node}/proxy/metrics")
        for line in text.splitlines():
            if (match := _METRIC.match(line)) and match[2] == namespace.name:
                found[match[3], match[1]] = int(float(match[4]))
    return found
