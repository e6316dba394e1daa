"""Finds what a cluster has left on the host."""

from pathlib import Path

from tests.cluster import cgroups, network, pools
from tests.cluster.mounts import mounts_below
from tests.cluster.processes import running_machines


def find_leftovers(state: Path) -> list[str]:
    """Looks for anything of a cluster but folders.

    Args:
        state: The cluster's folder of state.

    Returns:
        What there is, in words.
    """
    found = [
        f"the process {process.pid} ({' '.join(process.cmdline())})"
        for process in running_machines(state)
    ]
    found += [f"the mount {target}" for target in mounts_below(_mountinfo(), state)]
    for root in sorted(state.glob("node*")):
        found += [f"{loop.name} on {loop.backing_file}" for loop in pools.find_loops(root)]
    found += [f"the control group {group}" for group in cgroups.find_groups()]
    if network.host_interface_exists():
        found.append(f"the network interface {network.HOST_INTERFACE}")
    return found


def _mountinfo() -> str:
    return Path("/proc/self/mountinfo").read_text(encoding="utf-8")
