"""A cluster of any number of nodes, from its first process to its last trace."""

import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.cluster import cgroups, images, network, pools
from tests.cluster.build import build
from tests.cluster.errors import ClusterError
from tests.cluster.kubectl import Kubectl
from tests.cluster.leftovers import find_leftovers
from tests.cluster.machine import Machine
from tests.cluster.mountpoints import ensure_mount_points, remove_mount_points
from tests.cluster.node import MOUNT_POINTS, Node
from tests.cluster.plane import Plane
from tests.cluster.processes import running_machines
from tests.cluster.versions import PAUSE

# One for the machine: its addresses, groups and folders are the machine's. The path is short, since
# that of a socket may not be long, and on a disk, where images and volumes have room.
STATE = Path("/var/tmp/csi-local-path-cluster")
LOCK = Path("/run/lock/csi-local-path-cluster")


class Cluster:
    """A cluster; use it with `with`, or call `start` and `stop`.

    Attributes:
        plane: The control plane.
        nodes: The nodes, `nodes[0]` being called node1.
        kubeconfig: A file for KUBECONFIG, good on the host.
        kubectl: kubectl with that file.
        logs: A folder with the log of each program.
    """

    def __init__(self, nodes: int = 1, state: Path = STATE) -> None:
        if not 1 <= nodes <= network.MAX_NODES:
            raise ClusterError(f"a cluster has 1 to {network.MAX_NODES} nodes, not {nodes}")
        self._state = state
        self._programs = build()
        self.plane = Plane(self._machine("plane"), self._programs)
        self.nodes = [
            Node(number, nodes, self._machine(f"node{number}"), self.plane, self._programs)
            for number in range(1, nodes + 1)
        ]
        self.kubeconfig = state / "kubeconfig"
        self.logs = state / "logs"
        self.kubectl = Kubectl(self.plane.kubectl.program, self.kubeconfig)

    @classmethod
    def running(cls, state: Path = STATE) -> Self:
        """The cluster that runs.

        Raises:
            ClusterError: None does.
        """
        if not is_running(state):
            raise ClusterError("no cluster is running; `python -m tests.cluster up` starts one")
        return cls(len(list(state.glob("node*"))), state)

    def __enter__(self) -> Self:
        # Before anything is done, so that nothing is undone.
        check_room(self._state)
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self, archives: Sequence[Path] = (), *, replace: bool = False) -> None:
        """Starts it, and returns once every node is ready and pods can be made.

        What a start that failed or was interrupted has left is taken away first.

        Args:
            archives: Images that every node gets besides pause, busybox and the sidecars.
            replace: Whether a cluster that runs is taken away, too; somebody may be using it.

        Raises:
            ClusterError: One runs already, or something did not come up; then the message has the
                end of its log.
        """
        _check_privileges()
        if not replace:
            check_room(self._state)
        every = [*images.archives(self._programs), *archives]
        take_away(self._state)
        with _alone():
            network.check_host()
            self._state.mkdir(parents=True)
            ensure_mount_points(self._state, MOUNT_POINTS)
            self.plane.start_machine()
            shutil.copy2(self.plane.kubeconfig, self.kubeconfig)
            self._start_all(every)
            _complete(self._state).touch()

    def _start_all(self, archives: Sequence[Path]) -> None:
        # What is waited for is mostly the disk and the clock: all at once is quickest.
        with ThreadPoolExecutor(1 + 2 * len(self.nodes)) as at_once:
            plane = at_once.submit(self.plane.start)
            prepared = [at_once.submit(node.prepare) for node in self.nodes]
            tasks = []
            for node, ready in zip(self.nodes, prepared, strict=True):
                tasks.append(at_once.submit(_join, node, (plane, ready)))
                tasks.append(at_once.submit(_load_images, node, ready, archives))
            for task in (plane, *prepared, *tasks):
                task.result()

    def stop(self) -> None:
        """Takes it away with all that it has left anywhere.

        Raises:
            ClusterError: Something stayed; the message names it.
        """
        take_away(self._state)

    def load_image(self, archive: Path) -> None:
        """Gives every node the images of an archive, under the names in it."""
        with ThreadPoolExecutor(len(self.nodes)) as at_once:
            for task in [at_once.submit(node.load_image, archive) for node in self.nodes]:
                task.result()

    def _machine(self, name: str) -> Machine:
        return Machine(name, self._state / name, self._state / "logs", self._programs[PAUSE.name])


def _join(node: Node, needed: Iterable[Future[None]]) -> None:
    for task in needed:
        task.result()
    node.join()
    node.wait_ready()


def _load_images(node: Node, prepared: Future[None], archives: Sequence[Path]) -> None:
    prepared.result()
    for archive in archives:
        node.load_image(archive)


def is_running(state: Path = STATE) -> bool:
    """Whether a cluster runs that was started to the end."""
    return _complete(state).exists() and bool(running_machines(state))


def check_room(state: Path = STATE) -> None:
    """Makes sure that no cluster would have to make room for another.

    Raises:
        ClusterError: One runs.
    """
    if is_running(state):
        raise ClusterError(
            "a cluster runs here already, and there is room for one: `python -m tests.cluster "
            "down` takes it away, `up --replace` puts another into its place"
        )


def take_away(state: Path = STATE) -> None:
    """Takes a cluster away, whatever state it is in, and makes sure that nothing stayed.

    Raises:
        ClusterError: Something stayed; the message names it.
    """
    _check_privileges()
    with _alone():
        for init in running_machines(state):
            root = Path(init.cmdline()[2])
            Machine(root.name, root, state / "logs", Path(init.cmdline()[0])).kill()
        for root in sorted(state.glob("node*")):
            pools.detach_loops(root)
        network.remove_host_interface()
        cgroups.remove_groups()
        # With a mount or a loop device left, the folders would still be in use.
        if not (found := find_leftovers(state)):
            for folder in remove_mount_points(state):
                print(f"{folder} stays, since somebody else has put something into it")
            if state.exists():
                shutil.rmtree(state)
        if found:
            raise ClusterError(f"of the cluster there is still {'; '.join(found)}")


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Keeps others from starting or stopping a cluster meanwhile."""
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ClusterError("another process is starting or stopping a cluster") from None
        yield


def _complete(state: Path) -> Path:
    return state / "complete"


def _check_privileges() -> None:
    if os.geteuid() != 0:
        raise ClusterError("a cluster needs namespaces, mounts and control groups: run it as root")


def install_system_packages() -> None:
    """Installs the Debian packages that are missing.

    Raises:
        ClusterError: They could not be installed.
    """
    script = Path(__file__).with_name("system-packages")
    if subprocess.run([script], check=False, timeout=1800).returncode != 0:
        raise ClusterError("the system packages of the cluster could not be installed")
