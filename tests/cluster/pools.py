"""The filesystems that a node's volumes lie on: a pool for images and one for directories.

Each is a filesystem of its own in a sparse file, made by the driver's own `pool create`, as an
administrator would. The files outlive the node's namespaces, as disks outlive a reboot.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import loops
from tests.cluster.errors import ClusterError
from tests.cluster.machine import Machine

DRIVER = Path(sys.executable).with_name("csi-local-path")


@dataclass(frozen=True)
class Pool:
    """A pool that every node has.

    Attributes:
        path: Where it is mounted on the node.
        filesystem: What it is made of.
        size: How large, as `pool create` takes it.
    """

    path: str
    filesystem: str
    size: str = "30Gi"

    def image(self, root: Path) -> Path:
        """Its file below a machine's folder of state."""
        return root / f"{self.filesystem}.img"


# xfs reflinks images; btrfs holds directories to their size.
POOLS = (Pool("/var/lib/csi-local-path", "xfs"), Pool("/var/lib/csi-local-path-btrfs", "btrfs"))


def mount_pools(machine: Machine) -> None:
    """Mounts a machine's pools, which are made at its first start."""
    devices = []
    for pool in POOLS:
        image = pool.image(machine.root)
        if image.exists():
            machine.run("mount", "-o", "loop", str(image), pool.path)
        else:
            machine.run(
                *(str(DRIVER), "pool", "create", pool.path),
                *("--file", str(image), "--size", pool.size, "--filesystem", pool.filesystem),
            )
        devices.append(loops.filesystem_device(f"/proc/{machine.pid}/root{pool.path}"))
    _note(machine.root).write_text(json.dumps(devices), encoding="utf-8")


def detach_loops(root: Path) -> None:
    """Detaches the loop devices that a dead machine's pools and volumes have left attached.

    Args:
        root: The machine's folder of state.

    Raises:
        ClusterError: One is still in use.
    """
    if leftover := find_loops(root):
        loops.detach(leftover)


def find_loops(root: Path) -> list[loops.Loop]:
    """The loop devices of a machine's pools and volumes."""
    try:
        devices = json.loads(_note(root).read_text(encoding="utf-8"))
    except FileNotFoundError:
        devices = []
    except ValueError as error:
        raise ClusterError(f"{_note(root)} is damaged: {error}") from error
    return loops.loops_below(loops.read_loops(), root, devices)


def _note(root: Path) -> Path:
    return root / "pool-devices.json"
