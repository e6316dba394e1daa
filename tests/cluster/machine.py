"""A machine: a set of namespaces with a process 1 of its own, in which programs run.

It shares the host's root filesystem, kernel and /dev, and has its own network, mounts, processes
and host name. Killing its process 1 is pulling its plug: the kernel ends everything in it, and with
the last process go its mounts and its network.
"""

import contextlib
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from tests.cluster.errors import ClusterError
from tests.cluster.mounts import foreign_mounts
from tests.cluster.processes import find_inits, is_alive, pid_namespace, program_of
from tests.cluster.waiting import WaitedInVain, wait_until

START_TIMEOUT_S = 60.0
KILL_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 20.0
LOG_TAIL_LINES = 25
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Their exit status has to be fetched while this process lives, or they would stay as zombies.
_started: list[subprocess.Popen[bytes]] = []
_started_lock = threading.Lock()


class Machine:
    """A machine by its name; it may be running or not.

    Attributes:
        name: Its host name.
        root: Its folder of state. The folder's path is also how its process 1 is known.
    """

    def __init__(self, name: str, root: Path, logs: Path, init: Path) -> None:
        self.name = name
        self.root = root
        self._logs = logs
        self._init = init
        self._process: psutil.Process | None = None

    def find_init(self) -> psutil.Process | None:
        """Its process 1, as the host sees it, if it runs."""
        if self._process is None or not is_alive(self._process):
            self._process = next(find_inits(self.root), None)
        return self._process

    @property
    def pid(self) -> int:
        """The host's number of its process 1.

        Raises:
            ClusterError: It does not run.
        """
        init = self.find_init()
        if init is None:
            raise ClusterError(f"{self.name} does not run")
        return init.pid

    def start(self) -> None:
        """Makes its namespaces and starts its process 1.

        Raises:
            ClusterError: It runs already, or cannot be started.
        """
        if self.find_init() is not None:
            raise ClusterError(f"{self.name} runs already")
        self.root.mkdir(parents=True, exist_ok=True)
        self._logs.mkdir(parents=True, exist_ok=True)
        self._launch(
            "namespaces",
            [
                *("unshare", "--net", "--mount", "--pid", "--uts", "--ipc"),
                *("--fork", "--mount-proc", "--kill-child", "--propagation", "private"),
                *(str(self._init), "--machine", str(self.root)),
            ],
        )
        # Only the last step of the start makes it the program that is looked for.
        wait_until(lambda: self.find_init() is not None, START_TIMEOUT_S, f"{self.name} to start")
        self._release_foreign_mounts()
        # From now on a mount made in a pod of the node can be seen on the node.
        self.run("mount", "--make-rshared", "/")
        self.run("hostname", self.name)
        self.run("ip", "link", "set", "lo", "up")
        self.run("sysctl", "--quiet", "--write", "net.ipv4.ip_forward=1")

    def _release_foreign_mounts(self) -> None:
        # The copy of the host's mounts would keep each loop device of somebody else's attached.
        text = Path(f"/proc/{self.pid}/mountinfo").read_text(encoding="utf-8")
        for target in foreign_mounts(text, needed=[self.root, self._init, Path(__file__)]):
            self.run("umount", "--lazy", target, check=False)

    def kill(self) -> None:
        """Pulls its plug, and waits until nothing of it runs. Fine if it does not run."""
        init = self.find_init()
        if init is None:
            return
        init.send_signal(signal.SIGKILL)
        wait_until(lambda: not is_alive(init), KILL_TIMEOUT_S, f"{self.name} to die")
        self._process = None
        _reap()

    def run(
        self, *command: str, text_in: str | None = None, timeout_s: float = 60.0, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program in the machine to its end.

        Raises:
            ClusterError: It failed, unless `check` is off; the message has what it printed.
        """
        done = subprocess.run(
            self.entering(*command),
            input=text_in,
            stdin=subprocess.DEVNULL if text_in is None else None,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env=_environment(),
        )
        if check and done.returncode != 0:
            raise ClusterError(
                f"{' '.join(command)} on {self.name} exited with {done.returncode}: "
                f"{(done.stderr or done.stdout).strip()}"
            )
        return done

    def spawn(
        self, name: str, command: Sequence[str], variables: Mapping[str, str] | None = None
    ) -> None:
        """Starts a program that stays; what it prints goes to its log.

        Raises:
            ClusterError: It ended at once; the message has the end of its log.
        """
        launched = self._launch(name, self.entering(*command), variables)
        wait_until(
            lambda: launched.poll() is not None or self.find(command[0]) is not None,
            START_TIMEOUT_S,
            f"{name} to start on {self.name}",
        )
        if launched.poll() is not None:
            self.require(name, command[0])

    def mount_fresh(self, target: str, source: Path | None = None) -> None:
        """Mounts a folder of its own over one of the host's; an empty one in memory without source.

        The folder that is mounted over has to be there.
        """
        if source is None:
            self.run("mount", "-t", "tmpfs", self.name, target)
        else:
            source.mkdir(parents=True, exist_ok=True)
            self.run("mount", "--bind", str(source), target)
        self.run("mount", "--make-shared", target)

    def find(self, program: str) -> psutil.Process | None:
        """The process of the machine that runs a program by its full path, if there is one."""
        return next(
            (process for process in self.processes() if program_of(process.pid) == program), None
        )

    def processes(self) -> list[psutil.Process]:
        """Its processes, without those of its containers, which have namespaces of their own."""
        init = self.find_init()
        if init is None:
            return []
        space = pid_namespace(init.pid)
        found = []
        for pid in psutil.pids():
            if pid_namespace(pid) == space:
                with contextlib.suppress(psutil.NoSuchProcess):
                    found.append(psutil.Process(pid))
        return found

    def stop(self, program: str, *, how: signal.Signals = signal.SIGTERM) -> None:
        """Stops a program by its full path and waits for its end. Fine if it does not run."""
        process = self.find(program)
        if process is None:
            return
        process.send_signal(how)
        try:
            wait_until(lambda: not is_alive(process), STOP_TIMEOUT_S, f"{program} to stop")
        except ClusterError:
            process.kill()
            wait_until(lambda: not is_alive(process), STOP_TIMEOUT_S, f"{program} to be killed")
        _reap()

    def log(self, name: str) -> Path:
        """Where what a program prints goes."""
        return self._logs / f"{self.name}.{name}.log"

    def wait_for(
        self,
        name: str,
        program: str,
        condition: Callable[[], bool],
        timeout_s: float,
        awaited: str,
    ) -> None:
        """Waits for something that a program of the machine is to bring about.

        Raises:
            ClusterError: It did not, or is gone; the message has the end of its log.
        """

        def holds() -> bool:
            self.require(name, program)
            return condition()

        try:
            wait_until(holds, timeout_s, awaited)
        except WaitedInVain as error:
            raise ClusterError(f"{error}\n{self.log_tail(name)}") from error

    def require(self, name: str, program: str) -> None:
        """Checks that a program that should stay is still there.

        Raises:
            ClusterError: It is not; the message has the end of its log.
        """
        if self.find(program) is None:
            raise ClusterError(f"{name} on {self.name} is gone.\n{self.log_tail(name)}")

    def log_tail(self, name: str) -> str:
        """The end of a program's log, with where to find the rest."""
        log = self.log(name)
        if not log.exists():
            return f"({log} does not exist)"
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join([f"The end of {log}:", *lines[-LOG_TAIL_LINES:]])

    def entering(self, *command: str) -> list[str]:
        """The command line that runs another one in the machine."""
        target = ("--target", str(self.pid))
        return ["nsenter", *target, "--net", "--mount", "--pid", "--uts", "--ipc", "--", *command]

    def _launch(
        self, name: str, command: Sequence[str], variables: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        _reap()
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment() | dict(variables or {}),
                # Ctrl-C is meant for this process alone.
                start_new_session=True,
            )
        with _started_lock:
            _started.append(process)
        return process


def _reap() -> None:
    with _started_lock:
        _started[:] = [process for process in _started if process.poll() is None]


def _environment() -> dict[str, str]:
    # None of the caller's: a proxy or a KUBECONFIG there is not meant for a machine of ours.
    return {"PATH": SEARCH_PATH, "HOME": "/root", "LC_ALL": "C.UTF-8"}
