"""A node: a machine with containerd, a kubelet, kube-proxy and the pools of its volumes."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.cluster import cgroups, network, pools
from tests.cluster.configuration import (
    containerd_configuration,
    kubelet_configuration,
    network_configuration,
)
from tests.cluster.errors import ClusterError
from tests.cluster.machine import Machine
from tests.cluster.plane import API_SERVER, Plane
from tests.cluster.versions import KUBE_PROXY, KUBELET

START_TIMEOUT_S = 240.0
IMPORT_TIMEOUT_S = 300.0

# What a node keeps over its reboots, and has instead of the host's.
KEPT = {
    "/var/lib/kubelet": "kubelet",
    "/var/lib/containerd": "containerd",
    "/var/log/pods": "pods",
    "/var/log/containers": "containers",
    "/etc/cni/net.d": "cni",
}
# What it loses at a reboot.
LOST = ("/run/containerd", "/run/netns", "/var/lib/cni")
MOUNT_POINTS = (*KEPT, *LOST, *(pool.path for pool in pools.POOLS))


class Node:
    """A node by its number, counted from 1; it may be running or not.

    Attributes:
        name: Its name in the cluster.
        machine: The machine that it is.
    """

    def __init__(
        self,
        number: int,
        nodes: int,
        machine: Machine,
        plane: Plane,
        programs: Mapping[str, Path],
    ) -> None:
        self.name = machine.name
        self.machine = machine
        self._number = number
        self._nodes = nodes
        self._plane = plane
        self._kubelet = str(programs[KUBELET.name])
        self._proxy = str(programs[KUBE_PROXY.name])

    def prepare(self) -> None:
        """Does all that needs no API server: namespaces, network, pools, containerd."""
        self.machine.start()
        for target, folder in KEPT.items():
            self.machine.mount_fresh(target, self.machine.root / folder)
        for target in LOST:
            self.machine.mount_fresh(target)
        network.connect_node(self._plane.machine, self.machine, self._number, self._nodes)
        pools.mount_pools(self.machine)
        self._start_containerd()

    def join(self) -> None:
        """Starts the kubelet and kube-proxy, which take the node into the cluster."""
        self._write_kubelet_configuration()
        self._start_kubelet()
        self._start_proxy()

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Waits until the node has told the cluster, since its kubelet started, that it is ready.

        Raises:
            ClusterError: It does not; the message has the end of the kubelet's log.
        """
        kubelet = self.machine.find(self._kubelet)
        started_s = kubelet.create_time() if kubelet else 0.0
        # The times of a Node are whole seconds.
        since = datetime.fromtimestamp(int(started_s), UTC)

        def ready() -> bool:
            found = self._plane.kubectl.try_run("get", "node", self.name, "--output", "json")
            return found.returncode == 0 and is_ready(json.loads(found.stdout), since)

        self.machine.wait_for(
            "kubelet", self._kubelet, ready, timeout_s, f"{self.name} to be ready"
        )

    def start(self) -> None:
        """Starts a node again that was killed, and waits until it is ready."""
        self.prepare()
        self.join()
        self.wait_ready()

    def kill(self) -> None:
        """Pulls the node's plug: no process of it goes on, no mount or loop device stays."""
        self.machine.kill()
        pools.detach_loops(self.machine.root)
        # A reboot would clear them; the kubelet would look for their containers for a long time.
        cgroups.remove_groups(self.name)

    def restart_kubelet(self) -> None:
        """Stops the kubelet as an upgrade does, starts it again and waits until it is ready."""
        self.machine.stop(self._kubelet)
        self._start_kubelet()
        self.wait_ready()

    def stop_kubelet(self) -> None:
        """Stops the kubelet; the pods run on."""
        self.machine.stop(self._kubelet)

    def run(
        self, *command: str, text_in: str | None = None, timeout_s: float = 60.0, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program on the node, outside its pods, to its end.

        Raises:
            ClusterError: It failed, unless `check` is off; the message has what it printed.
        """
        return self.machine.run(*command, text_in=text_in, timeout_s=timeout_s, check=check)

    def load_image(self, archive: Path) -> None:
        """Gives the node the images of an archive, under the names in it."""
        self.machine.run(
            *("ctr", "--namespace", "k8s.io", "images", "import", str(archive)),
            timeout_s=IMPORT_TIMEOUT_S,
        )

    def _start_containerd(self) -> None:
        root = self.machine.root
        network_file = root / "cni" / "10-cluster.conflist"
        network_file.write_text(
            json.dumps(network_configuration(self._number, root / "addresses")), encoding="utf-8"
        )
        configuration = root / "containerd.toml"
        configuration.write_text(containerd_configuration(), encoding="utf-8")
        program = shutil.which("containerd", path="/usr/local/bin:/usr/bin:/usr/sbin")
        if program is None:
            raise ClusterError("there is no containerd; tests/cluster/system-packages installs it")
        self.machine.spawn("containerd", [program, "--config", str(configuration)])
        self.machine.wait_for(
            "containerd",
            program,
            lambda: self.machine.run("ctr", "version", check=False).returncode == 0,
            START_TIMEOUT_S,
            f"containerd on {self.name} to answer",
        )

    def _write_kubelet_configuration(self) -> None:
        authority = self._plane.authority
        address = network.node_address(self._number)
        server = authority.issue(
            f"{self.name}-server", f"/CN={self.name}", [f"DNS:{self.name}", f"IP:{address}"]
        )
        (self.machine.root / "resolv.conf").write_text("nameserver 127.0.0.1\n", encoding="ascii")
        configuration = kubelet_configuration(
            group=cgroups.ensure_group(self.name),
            resolver=self.machine.root / "resolv.conf",
            server=server,
            authority=authority.own.certificate,
        )
        self._configuration.write_text(json.dumps(configuration, indent=1), encoding="utf-8")
        authority.kubeconfig(self.name, f"/O=system:nodes/CN=system:node:{self.name}", API_SERVER)
        authority.kubeconfig(f"{self.name}-proxy", "/CN=system:kube-proxy", API_SERVER)

    @property
    def _configuration(self) -> Path:
        return self.machine.root / "kubelet.json"

    def _start_kubelet(self) -> None:
        self.machine.spawn(
            "kubelet",
            [
                *(self._kubelet, f"--config={self._configuration}", "--v=2"),
                f"--kubeconfig={self._plane.authority.kubeconfig_path(self.name)}",
                f"--hostname-override={self.name}",
                f"--node-ip={network.node_address(self._number)}",
            ],
        )

    def _start_proxy(self) -> None:
        kubeconfig = self._plane.authority.kubeconfig_path(f"{self.name}-proxy")
        self.machine.spawn(
            "kube-proxy",
            [
                *(self._proxy, f"--kubeconfig={kubeconfig}", f"--hostname-override={self.name}"),
                *("--proxy-mode=iptables", f"--cluster-cidr={network.PODS}"),
                f"--bind-address={network.node_address(self._number)}",
                # Both would change what belongs to the host, and not every host lets them.
                *("--conntrack-max-per-core=0", "--oom-score-adj=0"),
            ],
        )


def is_ready(node: Mapping[str, Any], since: datetime) -> bool:
    """Whether a Node object says that it is ready, and has said so since a moment."""
    return any(
        condition["type"] == "Ready"
        and condition["status"] == "True"
        and datetime.fromisoformat(condition["lastHeartbeatTime"]) >= since
        for condition in node["status"].get("conditions", [])
    )
