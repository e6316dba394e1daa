"""What is pinned: the programs, the modules they come from, and their versions.

The versions stand in the go.mod files below `parts`, one for each project; this module says which
programs are made of them. To renew a project: `go get MODULE@VERSION && go mod tidy` in its folder.
Kubernetes also names its staging modules there, each at v0.X.Y for Kubernetes v1.X.Y.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.errors import ClusterError

PARTS = Path(__file__).resolve().parent / "parts"

KUBERNETES = "k8s.io/kubernetes"
ETCD = "go.etcd.io/etcd/server/v3"
_SIDECARS = "github.com/kubernetes-csi"
PROVISIONER = f"{_SIDECARS}/external-provisioner/v6"
ATTACHER = f"{_SIDECARS}/external-attacher/v4"
RESIZER = f"{_SIDECARS}/external-resizer/v2"
SNAPSHOTTER = f"{_SIDECARS}/external-snapshotter/v8"
SNAPSHOT_CLIENT = f"{_SIDECARS}/external-snapshotter/client/v8"
SNAPSHOT_METADATA = f"{_SIDECARS}/external-snapshot-metadata"
SNAPSHOT_METADATA_CLIENT = f"{SNAPSHOT_METADATA}/client"
STAND_INS = "csi-local-path/tests/cluster/parts/standins"

# A go.mod cannot name the releases of these: the tags of the first two are v2 and their module
# paths are not, the third is not to be had from every module proxy, and pause is written in C.
# Programs of our own below `parts/standins` do the same by the same flags; these are the versions
# whose place they take in a cluster of ours. A cluster that pulls its images has the real ones.
STAND_IN_VERSIONS = {
    "csi-node-driver-registrar": "v2.17.0",
    "livenessprobe": "v2.19.0",
    "csi-external-health-monitor-controller": "v0.18.0",
    "pause": "3.10",
}


@dataclass(frozen=True)
class Program:
    """A program that is compiled here.

    Attributes:
        name: What it is called.
        part: The folder below `parts` whose go.mod pins it.
        package: The Go package to compile.
        module: The module whose version is the program's.
        version_variable: The variable that tells the program its version, if there is one.
    """

    name: str
    part: str
    package: str
    module: str
    version_variable: str = ""

    @property
    def folder(self) -> Path:
        """The folder to compile it in."""
        return PARTS / self.part

    @property
    def version(self) -> str:
        """The version that is pinned, such as `v1.36.4`."""
        if self.module == STAND_INS:
            return STAND_IN_VERSIONS[self.name]
        return pinned_version(self.part, self.module)

    @property
    def linker_flags(self) -> str:
        """Flags that strip the program and tell it its version."""
        flags = ["-s", "-w"]
        if self.version_variable:
            flags += ["-X", f"{self.version_variable}={self.version}"]
        if self.module == KUBERNETES:
            major, minor, _ = self.version.removeprefix("v").split(".", 2)
            variables = self.version_variable.rpartition(".")[0]
            flags += ["-X", f"{variables}.gitMajor={major}", "-X", f"{variables}.gitMinor={minor}"]
        return " ".join(flags)


def pinned_version(part: str, module: str) -> str:
    """The version of a module that the go.mod of a part requires.

    Raises:
        ClusterError: It requires none.
    """
    path = PARTS / part / "go.mod"
    pattern = rf"^\s*(?:require\s+)?{re.escape(module)}\s+(v\S+)"
    match = re.search(pattern, path.read_text(encoding="utf-8"), re.MULTILINE)
    if match is None:
        raise ClusterError(f"{path} does not require {module}")
    return match[1]


def _kubernetes(name: str) -> Program:
    variable = "k8s.io/component-base/version.gitVersion"
    return Program(name, "kubernetes", f"{KUBERNETES}/cmd/{name}", KUBERNETES, variable)


def _sidecar(name: str, part: str, module: str) -> Program:
    return Program(name, part, f"{module}/cmd/{name}", module, "main.version")


def _stand_in(name: str) -> Program:
    variable = "" if name == "pause" else f"{STAND_INS}/internal/sidecar.version"
    return Program(name, "standins", f"{STAND_INS}/{name}", STAND_INS, variable)


KUBE_APISERVER = _kubernetes("kube-apiserver")
KUBE_CONTROLLER_MANAGER = _kubernetes("kube-controller-manager")
KUBE_SCHEDULER = _kubernetes("kube-scheduler")
KUBE_PROXY = _kubernetes("kube-proxy")
KUBELET = _kubernetes("kubelet")
KUBECTL = _kubernetes("kubectl")
ETCD_SERVER = Program("etcd", "etcd", ETCD, ETCD)
PAUSE = _stand_in("pause")
# A tool of ours that a test runs in a pod.
BACKUP = Program(
    "backup",
    "external-snapshot-metadata",
    "csi-local-path/tests/cluster/parts/external-snapshot-metadata/backup",
    SNAPSHOT_METADATA,
)

# The longest first, so that a failure shows early and the rest is quick by what it shares.
KUBERNETES_PROGRAMS = (
    KUBE_APISERVER,
    KUBELET,
    KUBE_CONTROLLER_MANAGER,
    KUBE_SCHEDULER,
    KUBE_PROXY,
    KUBECTL,
    ETCD_SERVER,
    PAUSE,
)
SIDECARS = (
    _sidecar("csi-provisioner", "external-provisioner", PROVISIONER),
    _sidecar("csi-snapshotter", "external-snapshotter", SNAPSHOTTER),
    _sidecar("snapshot-controller", "external-snapshotter", SNAPSHOTTER),
    _sidecar("csi-resizer", "external-resizer", RESIZER),
    _sidecar("csi-attacher", "external-attacher", ATTACHER),
    _sidecar("csi-snapshot-metadata", "external-snapshot-metadata", SNAPSHOT_METADATA),
    _stand_in("csi-node-driver-registrar"),
    _stand_in("livenessprobe"),
    _stand_in("csi-external-health-monitor-controller"),
)
ALL_PROGRAMS = (*KUBERNETES_PROGRAMS, *SIDECARS, BACKUP)
