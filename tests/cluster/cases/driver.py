"""What the driver says for itself, asked in its pods."""

import json
from dataclasses import dataclass
from typing import Any

from tests.cluster.installation import NAMESPACE
from tests.cluster.kubectl import Kubectl

POOL = "/var/lib/csi-local-path"
NODE_PODS = "app.kubernetes.io/name=csi-local-path,app.kubernetes.io/component=node"
_STATVFS = "import json, os; s = os.statvfs('{pool}'); print(json.dumps([s.f_frsize * b for b in "
_CAP_SYS_RESOURCE = 24


@dataclass(frozen=True)
class DriverPod:
    """The driver on one node."""

    kubectl: Kubectl
    name: str
    node: str

    def run(self, *command: str) -> str:
        """Runs a program beside the driver."""
        where = ("--namespace", NAMESPACE, "exec", self.name, "--container=driver")
        return self.kubectl.run(*where, "--", *command)

    def log(self) -> str:
        """What it has logged since its container was started."""
        where = ("--namespace", NAMESPACE, "--container=driver")
        return self.kubectl.run("logs", self.name, *where)

    def volumes(self, pool: str = POOL) -> list[dict[str, Any]]:
        """The volumes of a pool of the node, as `csi-local-path volumes` lists them."""
        listed = json.loads(self.run("csi-local-path", "volumes", "--pool", pool, "--output=json"))
        assert not listed["damaged"]
        found: list[dict[str, Any]] = listed["volumes"]
        return found

    def image(self) -> str:
        """The name of the image that it runs from."""
        pod = self.kubectl.get("pod", self.name, "--namespace", NAMESPACE)
        listed = pod["status"]["containerStatuses"]
        return str(next(each["image"] for each in listed if each["name"] == "driver"))

    def pool_bytes(self) -> tuple[int, int]:
        """How large the filesystem of the pool is, and how much of it is free."""
        script = _STATVFS.format(pool=POOL) + "(s.f_blocks, s.f_bavail)]))"
        total, free = json.loads(self.run("python3", "-c", script))
        return total, free

    def may_grow_ext4(self) -> bool:
        """Whether the kernel lets the driver grow a mounted ext4."""
        status = self.run("cat", "/proc/self/status")
        held = next(line for line in status.splitlines() if line.startswith("CapEff:"))
        return bool(int(held.split()[1], 16) >> _CAP_SYS_RESOURCE & 1)


def driver_pods(kubectl: Kubectl) -> list[DriverPod]:
    """The driver on each node."""
    found = kubectl.get("pods", "--namespace", NAMESPACE, "--selector", NODE_PODS)["items"]
    assert found, "the driver runs on no node"
    return [DriverPod(kubectl, pod["metadata"]["name"], pod["spec"]["nodeName"]) for pod in found]


def driver_on(kubectl: Kubectl, node: str) -> DriverPod:
    """The driver on a node."""
    return next(driver for driver in driver_pods(kubectl) if driver.node == node)


def claims_in_pools(kubectl: Kubectl, namespace: str) -> set[str]:
    """The names of a namespace's claims that have volumes on any node.

    An inline volume goes by the name of its pod.
    """
    return {
        volume["claim"]["name"]
        for driver in driver_pods(kubectl)
        for volume in driver.volumes()
        if volume["claim"]["namespace"] == namespace
    }
