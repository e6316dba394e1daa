"""The control plane: etcd, the API server, the controllers and the scheduler.

It is a machine of its own beside the nodes, so that any node can be killed.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from tests.cluster import network
from tests.cluster.certificates import Authority
from tests.cluster.kubectl import Kubectl
from tests.cluster.machine import Machine
from tests.cluster.versions import (
    ETCD_SERVER,
    KUBE_APISERVER,
    KUBE_CONTROLLER_MANAGER,
    KUBE_SCHEDULER,
    KUBECTL,
)

API_SERVER = f"https://{network.PLANE_ADDRESS}:6443"
ETCD = "http://127.0.0.1:2379"
START_TIMEOUT_S = 240.0
ADMIN = "admin"


class Plane:
    """The control plane on its machine."""

    def __init__(self, machine: Machine, programs: Mapping[str, Path]) -> None:
        self.machine = machine
        self.authority = Authority(machine.root / "pki")
        self.kubeconfig = self.authority.kubeconfig_path(ADMIN)
        self.kubectl = Kubectl(programs[KUBECTL.name], self.kubeconfig)
        self._programs = programs

    def start_machine(self) -> None:
        """Starts the machine with the bridge that joins the nodes, and makes the certificates."""
        self.machine.start()
        network.start_bridge(self.machine)
        self.authority.create()
        self.authority.kubeconfig(ADMIN, "/O=system:masters/CN=admin", API_SERVER)

    def start(self) -> None:
        """Starts the programs, and returns once pods can be made.

        Raises:
            ClusterError: One does not come up; the message has the end of its log.
        """
        self._start_etcd()
        self._start_api_server()
        self._wait_for(KUBE_APISERVER.name, self._is_ready, "the API server to be ready")
        self._start_controllers()
        self._start_scheduler()
        # The kubelet's and kube-proxy's own rights come with the API server, all but this binding.
        self.kubectl.apply(_PROXY_BINDING)
        # No pod can be made before.
        self._wait_for(
            KUBE_CONTROLLER_MANAGER.name, self._has_account, "the default service account"
        )

    def _start_etcd(self) -> None:
        peer = "http://127.0.0.1:2380"
        self._spawn(
            ETCD_SERVER.name,
            *(f"--data-dir={self.machine.root / 'etcd'}", f"--listen-client-urls={ETCD}"),
            *(f"--advertise-client-urls={ETCD}", f"--listen-peer-urls={peer}"),
            *(f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}"),
            # What a power failure would lose is thrown away anyway.
            "--unsafe-no-fsync",
        )

    def _start_api_server(self) -> None:
        issue, ca = self.authority.issue, self.authority.own.certificate
        names = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
        addresses = (network.PLANE_ADDRESS, network.API_SERVICE_ADDRESS, "127.0.0.1")
        server = issue(
            "apiserver",
            "/CN=kube-apiserver",
            [*(f"DNS:{name}" for name in names), *(f"IP:{address}" for address in addresses)],
        )
        kubelets = issue("apiserver-kubelet", "/O=system:masters/CN=kube-apiserver-kubelet-client")
        key = self.authority.token_key
        self._spawn(
            KUBE_APISERVER.name,
            *(f"--etcd-servers={ETCD}", f"--advertise-address={network.PLANE_ADDRESS}"),
            *("--secure-port=6443", f"--service-cluster-ip-range={network.SERVICES}"),
            f"--client-ca-file={ca}",
            f"--tls-cert-file={server.certificate}",
            f"--tls-private-key-file={server.key}",
            *(f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}"),
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--kubelet-certificate-authority={ca}",
            f"--kubelet-client-certificate={kubelets.certificate}",
            f"--kubelet-client-key={kubelets.key}",
            "--kubelet-preferred-address-types=InternalIP",
            *("--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction"),
            "--allow-privileged=true",
        )

    def _start_controllers(self) -> None:
        kubeconfig = self._kubeconfig("controller-manager", "system:kube-controller-manager")
        ca = self.authority.own
        self._spawn(
            KUBE_CONTROLLER_MANAGER.name,
            *(f"--kubeconfig={kubeconfig}", "--leader-elect=false", "--bind-address=127.0.0.1"),
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={self.authority.token_key}",
            f"--root-ca-file={ca.certificate}",
            # The default would have a folder made on the host.
            f"--flex-volume-plugin-dir={self.machine.root / 'volume-plugins'}",
            f"--cluster-signing-cert-file={ca.certificate}",
            f"--cluster-signing-key-file={ca.key}",
        )

    def _start_scheduler(self) -> None:
        kubeconfig = self._kubeconfig("scheduler", "system:kube-scheduler")
        self._spawn(
            KUBE_SCHEDULER.name,
            *(f"--kubeconfig={kubeconfig}", "--leader-elect=false", "--bind-address=127.0.0.1"),
        )

    def _kubeconfig(self, name: str, user: str) -> Path:
        return self.authority.kubeconfig(name, f"/CN={user}", API_SERVER)

    def _spawn(self, name: str, *arguments: str) -> None:
        self.machine.spawn(name, [str(self._programs[name]), *arguments])

    def _wait_for(self, name: str, condition: Callable[[], bool], awaited: str) -> None:
        def holds() -> bool:
            self.machine.require(ETCD_SERVER.name, str(self._programs[ETCD_SERVER.name]))
            return condition()

        program = str(self._programs[name])
        self.machine.wait_for(name, program, holds, START_TIMEOUT_S, awaited)

    def _is_ready(self) -> bool:
        return self.kubectl.try_run("get", "--raw=/readyz", timeout_s=10).returncode == 0

    def _has_account(self) -> bool:
        return self.kubectl.try_run("get", "serviceaccount", "default").returncode == 0


_PROXY_BINDING = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRoleBinding",
    "metadata": {"name": "kube-proxy"},
    "roleRef": {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "ClusterRole",
        "name": "system:node-proxier",
    },
    "subjects": [
        {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:kube-proxy"}
    ],
}
