"""Installs the driver in a cluster from the repository's own manifests, as a user does."""

from pathlib import Path

from tests.cluster.build import snapshot_crds
from tests.cluster.kubectl import Kubectl

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
NAMESPACE = "csi-local-path"
ROLLOUT_TIMEOUT_S = 300


def install_snapshots(kubectl: Kubectl) -> None:
    """Installs the CRDs of snapshots and the snapshot-controller.

    The CRDs come from the pinned module instead of the address that the manifests name.

    Raises:
        ClusterError: The API server refused something, or the controller does not come up.
    """
    kubectl.run("apply", "--server-side", "--kustomize", str(snapshot_crds()))
    controller = DEPLOY / "snapshot-controller" / "controller.yaml"
    kubectl.run("apply", "--server-side", "--validate=strict", "--filename", str(controller))
    wait_for_rollout(kubectl, "kube-system")


def install_driver(kubectl: Kubectl, manifests: Path = DEPLOY / "sidecars") -> None:
    """Installs the driver with its sidecars, and waits until all of it is ready.

    Args:
        kubectl: The cluster, which has the driver's image and the CRDs of snapshots.
        manifests: A kustomization: the base, or an overlay of it.

    Raises:
        ClusterError: The API server refused something, or a pod does not come up.
    """
    kubectl.run("apply", "--server-side", "--validate=strict", "--kustomize", str(manifests))
    wait_for_rollout(kubectl, NAMESPACE)


def uninstall_driver(kubectl: Kubectl, manifests: Path = DEPLOY / "sidecars") -> None:
    """Takes the driver out of the cluster as a user does, and waits until nothing of it runs.

    Its volumes stay, and pods that use them run on.

    Args:
        kubectl: The cluster.
        manifests: What was installed.

    Raises:
        ClusterError: Something did not go.
    """
    bound = ("--ignore-not-found", f"--timeout={ROLLOUT_TIMEOUT_S}s")
    kubectl.run("delete", "--kustomize", str(manifests), *bound, timeout_s=ROLLOUT_TIMEOUT_S * 2)


def wait_for_rollout(kubectl: Kubectl, namespace: str) -> None:
    """Waits until the pods of all workloads in a namespace are there and ready.

    Raises:
        ClusterError: They are not in time.
    """
    where = ("--namespace", namespace)
    workloads = kubectl.run("get", "daemonsets,deployments", *where, "--output", "name").split()
    for workload in workloads:
        wait = ("rollout", "status", workload, f"--timeout={ROLLOUT_TIMEOUT_S}s")
        kubectl.run(*wait, *where, timeout_s=ROLLOUT_TIMEOUT_S * 2)
