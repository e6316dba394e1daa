"""Where the tests take place: one driver over a pool of each sort, and what must hold at rest."""

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.contract.bench import wait_until
from tests.contract.node_fixtures import loops_below, mounts_below
from tests.contract.requests import GIB
from tests.crash.lives import SORTS
from tests.crash.world import World
from tests.disks import mounted_filesystem
from tests.driver import Driver, create_pool, running_driver
from tests.kubelet import Kubelet
from tests.model.operations import Line
from tests.model.plans import Family

POOLS = ("xfs", "btrfs", "ext4")
POOL_BYTES = 24 * GIB
"""Sparse; nothing is refused for want of room."""
_CONFIGURATION = """\
apiVersion: local-path.csi.dev/v1
kind: DriverConfiguration
pools:
"""
FAMILIES = (
    Family("ext4", SORTS["ext4"]),
    Family("xfs", SORTS["xfs"], volumes=2),
    Family("block", SORTS["block"]),
    Family("directory", SORTS["directory"]),
    Family("btrfs", SORTS["btrfs"]._replace(pool="btrfs"), volumes=2),
    Family("copied", SORTS["copied"]),
)
"""Each has slots enough for copies of copies, and few enough that calls meet."""


@dataclass
class Ground:
    """One driver over several pools.

    Attributes:
        driver: The driver.
        kubelet: The kubelet's folder.
        pools: Where each pool lies, by its name.
    """

    driver: Driver
    kubelet: Kubelet
    pools: dict[str, Path]

    def __post_init__(self) -> None:
        self._empty = {name: self._world(name).state() for name in self.pools}

    def line(self) -> Line:
        """Returns a caller's connection."""
        return Line(self.driver, self.kubelet)

    def expect_order(self, *, empty: bool = False) -> None:
        """Expects that the books are right and nothing is frozen, and that nothing is left over.

        No call may be under way.

        Args:
            empty: Whether all volumes and snapshots should be gone.

        Raises:
            ViolationError: Something is not as it should be.
        """
        for name in self.pools:
            world = self._world(name)
            world.wait_for_background()
            world.expect_nothing_frozen()
            world.expect_true_ledger()
            if empty:
                world.expect_state(self._empty[name])

    def reboot(self) -> None:
        """Does what a reboot does to mounts and loop devices, while the driver is away."""
        self.driver.kill()
        wait_until(self._let_go, "that all was unmounted and detached")
        self.driver.start()

    def _let_go(self) -> bool:
        """Unmounts and detaches what there is; returns whether nothing was left."""
        mounts = mounts_below(self.kubelet.directory)
        for mount in reversed(mounts):
            subprocess.run(("umount", mount.path), stderr=subprocess.DEVNULL, check=False)
        loops = [loop for pool in self.pools.values() for loop in loops_below(pool)]
        for loop in loops:
            command = ("losetup", "--detach", loop.device)
            subprocess.run(command, stderr=subprocess.DEVNULL, check=False)
        return not mounts and not loops

    def _world(self, name: str) -> World:
        return World(self.driver, self.kubelet, self.pools[name], name, pool_name=name)


@contextlib.contextmanager
def ground_in(folder: Path) -> Iterator[Ground]:
    """Makes the pools and runs a driver over them."""
    with contextlib.ExitStack() as stack:
        pools = {}
        for fs_type in POOLS:
            pools[fs_type] = stack.enter_context(mounted_filesystem(fs_type, folder, POOL_BYTES))
            create_pool(pools[fs_type])
        lines = [f"  - name: {name}\n    path: {path}\n" for name, path in pools.items()]
        # The last of two --pool flags counts, and an empty one leaves it to the configuration.
        driver = stack.enter_context(
            running_driver(
                pools[POOLS[0]],
                folder,
                config=_CONFIGURATION + "".join(lines),
                arguments=["--pool", ""],
            )
        )
        yield Ground(driver, Kubelet(folder / "kubelet"), pools)
