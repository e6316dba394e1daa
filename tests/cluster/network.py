"""How the machines are joined: a bridge in the plane's namespace, and pairs of virtual cables.

The bridge is not in a node's namespace, where the rules of that node's services would see the
traffic of all others. One more cable leads to the host, so that kubectl there reaches the API
server; it carries a private network of its own, and the host forwards nothing.

    host 10.213.0.2 ──┐                   ┌── node1 10.213.0.11, its pods 10.214.1.0/24
                      ├── bridge, plane ──┤
                      │     10.213.0.1    └── node2 10.213.0.12, its pods 10.214.2.0/24
"""

import ipaddress
import json
import subprocess
from collections.abc import Iterable

from tests.cluster.errors import ClusterError
from tests.cluster.machine import Machine

MACHINES = ipaddress.IPv4Network("10.213.0.0/24")
PODS = ipaddress.IPv4Network("10.214.0.0/16")
SERVICES = ipaddress.IPv4Network("10.215.0.0/16")
PLANE_ADDRESS = MACHINES[1]
HOST_ADDRESS = MACHINES[2]
# Nobody has it: packets for elsewhere need a route to be looked at by kube-proxy, and no more.
NOWHERE = MACHINES[254]
API_SERVICE_ADDRESS = SERVICES[1]
HOST_INTERFACE = "csi-lp-cluster"
BRIDGE = "nodes"
BRIDGE_HARDWARE_ADDRESS = "02:00:0a:d5:00:01"
MAX_NODES = 100


def node_address(number: int) -> ipaddress.IPv4Address:
    """The address of a node by its number, counted from 1."""
    return MACHINES[10 + number]


def pod_network(number: int) -> ipaddress.IPv4Network:
    """The addresses of a node's pods."""
    base = int(PODS.network_address) + (number << 8)
    return ipaddress.IPv4Network((base, 24))


def check_host() -> None:
    """Makes sure that the host does not use the addresses for something else.

    Raises:
        ClusterError: It does.
    """
    routes = json.loads(_ip("-json", "-4", "route", "show", "table", "main"))
    taken = overlapping((str(route["dst"]) for route in routes), MACHINES)
    if taken:
        raise ClusterError(
            f"This host has a route to {', '.join(taken)}, which the cluster's {MACHINES} would "
            "hide; take the route away for the time of the tests"
        )


def overlapping(destinations: Iterable[str], network: ipaddress.IPv4Network) -> list[str]:
    """Those destinations of routes that share addresses with a network; the default one aside."""
    found = []
    for destination in destinations:
        if destination == "default":
            continue
        if ipaddress.IPv4Network(destination, strict=False).overlaps(network):
            found.append(destination)
    return found


def start_bridge(plane: Machine) -> None:
    """Makes the bridge in the plane, and the cable from there to the host."""
    # With an address of its own: else it takes that of one of its cables, another one whenever a
    # node comes or goes, and everybody looks for the API server at the former for a minute.
    plane.run("ip", "link", "add", BRIDGE, "address", BRIDGE_HARDWARE_ADDRESS, "type", "bridge")
    plane.run("ip", "address", "add", f"{PLANE_ADDRESS}/{MACHINES.prefixlen}", "dev", BRIDGE)
    plane.run("ip", "link", "set", BRIDGE, "up")
    remove_host_interface()
    _ip(
        *("link", "add", HOST_INTERFACE, "type", "veth"),
        *("peer", "name", "host", "netns", str(plane.pid)),
    )
    _ip("address", "add", f"{HOST_ADDRESS}/{MACHINES.prefixlen}", "dev", HOST_INTERFACE)
    _ip("link", "set", HOST_INTERFACE, "up")
    _plug_in(plane, "host")


def connect_node(plane: Machine, node: Machine, number: int, nodes: int) -> None:
    """Lays a cable from a node to the bridge, and the routes to the pods of the others."""
    # What a node that was killed had goes with its namespace, a little after its last process.
    plane.run("ip", "link", "delete", node.name, check=False)
    _ip(
        *("link", "add", "name", "eth0", "netns", str(node.pid), "type", "veth"),
        *("peer", "name", node.name, "netns", str(plane.pid)),
    )
    _plug_in(plane, node.name)
    address = node_address(number)
    node.run("ip", "address", "add", f"{address}/{MACHINES.prefixlen}", "dev", "eth0")
    node.run("ip", "link", "set", "eth0", "up")
    for other in range(1, nodes + 1):
        if other != number:
            way = str(node_address(other))
            node.run("ip", "route", "add", str(pod_network(other)), "via", way)
    node.run("ip", "route", "add", "default", "via", str(NOWHERE))
    plane.run("ip", "route", "replace", str(pod_network(number)), "via", str(address))


def remove_host_interface() -> None:
    """Takes the cable to the host away. Fine if there is none."""
    try:
        _ip("link", "delete", HOST_INTERFACE)
    except ClusterError:
        # It goes by itself a moment after the plane.
        if host_interface_exists():
            raise


def host_interface_exists() -> bool:
    """Whether the host has a cable to a cluster."""
    links = json.loads(_ip("-json", "link", "show"))
    return any(link["ifname"] == HOST_INTERFACE for link in links)


def _plug_in(plane: Machine, interface: str) -> None:
    plane.run("ip", "link", "set", interface, "master", BRIDGE, "up")


def _ip(*arguments: str) -> str:
    done = subprocess.run(
        ["ip", *arguments], capture_output=True, text=True, timeout=30, check=False
    )
    if done.returncode != 0:
        raise ClusterError(f"ip {' '.join(arguments)} failed: {done.stderr.strip()}")
    return done.stdout
