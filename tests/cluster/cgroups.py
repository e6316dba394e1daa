"""The control groups that the pods of each node are counted in.

Each node's kubelet gets a group of its own below one for the cluster, in every hierarchy that the
host has: one with version 2, one for each controller with version 1.
"""

import contextlib
import time
from pathlib import Path

GROUP = "csi-local-path-cluster"
REMOVE_TIMEOUT_S = 10.0
_CONTROLLERS = "+cpu +cpuset +io +memory +pids +hugetlb"


def ensure_group(node: str) -> str:
    """Makes a node's group; returns its path below each hierarchy, as the kubelet wants it."""
    for hierarchy in hierarchies(Path("/proc/self/mountinfo").read_text(encoding="utf-8")):
        folder = hierarchy
        for part in (GROUP, node):
            _delegate(folder)
            folder /= part
            folder.mkdir(exist_ok=True)
            _copy_cpuset(folder)
    return f"/{GROUP}/{node}"


def hierarchies(mountinfo: str) -> list[Path]:
    """Where the hierarchies are mounted, from what /proc/self/mountinfo says."""
    found = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        if after.split(" ")[0] in {"cgroup", "cgroup2"}:
            found.append(Path(before.split(" ")[4]))
    return found


def remove_groups(node: str = "") -> None:
    """Removes the group of a node, or all of the cluster's; what still runs in one keeps it."""
    deadline = time.monotonic() + REMOVE_TIMEOUT_S
    # The kernel lets go of a group a moment after its last process.
    while leftover := find_groups(node):
        for group in leftover:
            folders = [path for path in group.rglob("*") if path.is_dir()]
            for folder in [*sorted(folders, reverse=True), group]:
                with contextlib.suppress(OSError):
                    folder.rmdir()
        if time.monotonic() > deadline:
            return
        time.sleep(0.02)


def find_groups(node: str = "") -> list[Path]:
    """Where the group of a node, or the cluster's, is there."""
    mountinfo = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    groups = (hierarchy / GROUP / node for hierarchy in hierarchies(mountinfo))
    return [group for group in groups if group.is_dir()]


def _delegate(folder: Path) -> None:
    # Version 2: a group has the controllers that the one above hands down. Not every kernel has
    # all of them, and one by one those that it has are taken.
    control = folder / "cgroup.subtree_control"
    if control.exists():
        for controller in _CONTROLLERS.split():
            with contextlib.suppress(OSError):
                control.write_text(controller, encoding="ascii")


def _copy_cpuset(folder: Path) -> None:
    # Version 1: a new group has no processors and takes no process until it is given some.
    for name in ("cpuset.cpus", "cpuset.mems"):
        own, above = folder / name, folder.parent / name
        if not own.exists() or (folder / "cgroup.controllers").exists():
            continue
        if not own.read_text(encoding="ascii").strip():
            own.write_text(above.read_text(encoding="ascii"), encoding="ascii")
