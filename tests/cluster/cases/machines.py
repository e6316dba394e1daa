"""What is done to the nodes of the project's own cluster, and seen there."""

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil

from tests.cluster.cluster import Cluster
from tests.cluster.errors import ClusterError
from tests.cluster.node import Node

_VOLUMES = ("/kubernetes.io~csi/", "/plugins/kubernetes.io/csi/")


def node_of(cluster: Cluster, name: str) -> Node:
    """The node of that name.

    Raises:
        ClusterError: There is none.
    """
    found = next((node for node in cluster.nodes if node.name == name), None)
    if found is None:
        raise ClusterError(f"there is no node {name}")
    return found


def driver_process(node: Node) -> psutil.Process:
    """The driver that serves a node's volumes.

    Raises:
        ClusterError: It does not run.
    """
    init = node.machine.find_init()
    for process in init.children(recursive=True) if init else []:
        with contextlib.suppress(psutil.NoSuchProcess):
            command = process.cmdline()
            served = "serve" in command and any("csi-local-path" in word for word in command[:2])
            if served and "--role=resizer" not in command:
                return process
    raise ClusterError(f"the driver does not run on {node.name}")


@contextlib.contextmanager
def driver_frozen(node: Node) -> Iterator[None]:
    """Has the driver stand still, so that whatever is asked of it meanwhile is under way.

    For less than the half minute after which its pod counts as dead.
    """
    process = driver_process(node)
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        # Where it was restarted all the same, it is not there any more.
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGCONT)


def volume_mounts(node: Node) -> list[str]:
    """Where the kubelet has had volumes mounted; a place that is used twice is there twice."""
    text = Path(f"/proc/{node.machine.pid}/mountinfo").read_text(encoding="utf-8")
    targets = [line.split(" ")[4] for line in text.splitlines()]
    return [target for target in targets if any(part in target for part in _VOLUMES)]


def mounted_twice(node: Node) -> list[str]:
    """Places of the node's volumes where one mount hides another."""
    targets = volume_mounts(node)
    return sorted({target for target in targets if targets.count(target) > 1})
