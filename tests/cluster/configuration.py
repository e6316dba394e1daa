"""The configuration of a node's programs."""

from pathlib import Path

from tests.cluster import network
from tests.cluster.certificates import Certificate
from tests.cluster.images import PAUSE_NAME

CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
# Debian's folder, and everybody else's.
NETWORK_PLUGINS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))


def kubelet_configuration(
    group: str, resolver: Path, server: Certificate, authority: Path
) -> dict[str, object]:
    """The kubelet's.

    Args:
        group: The control group that its pods go below.
        resolver: The pods' resolv.conf.
        server: Its certificate as a server.
        authority: The certificate of the authority that its clients' are of.
    """
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": group,
        "failCgroupV1": False,
        "failSwapOn": False,
        # A lower one takes a right that a virtual machine or a container may lack.
        "oomScoreAdj": 0,
        "tlsCertFile": str(server.certificate),
        "tlsPrivateKeyFile": str(server.key),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(authority)},
        },
        "authorization": {"mode": "Webhook"},
        "resolvConf": str(resolver),
        "clusterDomain": "cluster.local",
        # The host's disk is no business of the tests, and an image is never to be had again.
        "evictionHard": {
            "memory.available": "100Mi",
            **{
                f"{disk}.{what}": "0%"
                for disk in ("nodefs", "imagefs")
                for what in ("available", "inodesFree")
            },
        },
        "imageGCHighThresholdPercent": 100,
        "imageMinimumGCAge": "1000h",
        # The default would have a folder made on the host.
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        # Once a minute by default, which a test of the figures would have to wait for.
        "volumeStatsAggPeriod": "10s",
    }


def network_configuration(number: int, addresses: Path) -> dict[str, object]:
    """The network's: how a pod of the node of that number gets its interface.

    Args:
        number: The node's number.
        addresses: A folder for the addresses that are given out.
    """
    return {
        "cniVersion": "1.0.0",
        "name": "cluster",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": True,
                "ipMasq": True,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": str(network.pod_network(number))}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                    "dataDir": str(addresses),
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def containerd_configuration() -> str:
    """containerd's, as TOML."""
    plugins = next((folder for folder in NETWORK_PLUGINS if folder.is_dir()), NETWORK_PLUGINS[0])
    return _CONTAINERD.format(socket=CONTAINERD_SOCKET, pause=PAUSE_NAME, plugins=plugins)


# Without the plugin `opt`, which makes a folder on the host. Restricted scores: runc may not lower
# a container's below its own where the right to do so is lacking.
_CONTAINERD = """\
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "/etc/cni/net.d"
"""
