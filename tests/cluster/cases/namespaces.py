"""A namespace of a test: what is applied there, run there, and waited for there."""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.cluster.cases.objects import Manifest, storage_class
from tests.cluster.errors import ClusterError
from tests.cluster.kubectl import Kubectl

# On a machine of its own a pod takes two seconds; the rest is for those that are slow or busy.
READY_S = 180.0
GONE_S = 120.0
ACCOUNT_S = 60.0
PAUSE_S = 0.5


@dataclass
class Namespace:
    """A namespace that the test has for itself.

    Attributes:
        kubectl: The cluster.
        name: What it is called.
        classes: StorageClasses that were made for it, which go with it.
    """

    kubectl: Kubectl
    name: str
    classes: list[str] = field(default_factory=list)

    def apply(self, *manifests: Manifest) -> None:
        """Applies manifests here."""
        self.kubectl.apply(*manifests, namespace=self.name)

    def add_class(
        self, suffix: str, parameters: dict[str, str], mount_options: tuple[str, ...] = ()
    ) -> str:
        """Makes a StorageClass that goes with the namespace; returns its name."""
        name = f"{self.name}-{suffix}"
        self.classes.append(name)
        self.apply(storage_class(name, parameters, mount_options))
        return name

    def run(self, *arguments: str, timeout_s: float = 120.0) -> str:
        """Runs kubectl here.

        Raises:
            ClusterError: It failed; the message has what it said, and the namespace's events.
        """
        done = self.kubectl.try_run("--namespace", self.name, *arguments, timeout_s=timeout_s)
        if done.returncode != 0:
            what = " ".join(arguments)
            raise ClusterError(f"kubectl {what} failed: {done.stderr.strip()}\n{self.events()}")
        return done.stdout

    def get(self, *arguments: str) -> Manifest:
        """What `kubectl get` finds here."""
        found: Manifest = self.kubectl.get("--namespace", self.name, *arguments)
        return found

    def shell(self, pod: str, script: str) -> str:
        """Runs a script in a pod; returns what it printed, without the end of the last line.

        Raises:
            ClusterError: It failed.
        """
        return self.run("exec", pod, "--", "sh", "-ec", script).rstrip("\n")

    def shell_error(self, pod: str, script: str) -> str:
        """Runs a script in a pod that has to fail; returns what it said of it."""
        done = self.kubectl.try_run(
            "--namespace", self.name, "exec", pod, "--", "sh", "-ec", script
        )
        assert done.returncode != 0, f"{script!r} succeeded in {pod}: {done.stdout}"
        return done.stderr

    def wait_ready(self, *pods: str, timeout_s: float = READY_S) -> None:
        """Waits until pods are Ready."""
        names = [f"pod/{pod}" for pod in pods]
        wait = ("wait", "--for=condition=Ready", f"--timeout={timeout_s:.0f}s")
        self.run(*wait, *names, timeout_s=timeout_s * 2)

    def wait_snapshots(self, *snapshots: str, timeout_s: float = READY_S) -> None:
        """Waits until snapshots can be used."""
        names = [f"volumesnapshot/{name}" for name in snapshots]
        wait = ("wait", "--for=jsonpath={.status.readyToUse}=true", f"--timeout={timeout_s:.0f}s")
        self.run(*wait, *names, timeout_s=timeout_s * 2)

    def wait_rollout(self, workload: str) -> None:
        """Waits until all pods of a workload, named as in `statefulset/a`, are Ready."""
        wait = ("rollout", "status", workload, f"--timeout={READY_S:.0f}s")
        self.run(*wait, timeout_s=READY_S * 2)

    def delete(self, *names: str) -> None:
        """Deletes objects, named as in `pod/a`, and waits until they are gone."""
        self.run("delete", f"--timeout={GONE_S:.0f}s", *names, timeout_s=GONE_S * 2)

    def start(self, pod: Manifest, *others: Manifest) -> None:
        """Applies pods and what they need, in one go, and waits until the pods are Ready."""
        # A pod whose claim is not there yet costs a round of the scheduler.
        manifests = sorted((pod, *others), key=lambda each: each["kind"] == "Pod")
        self.apply(*manifests)
        self.wait_ready(*(each["metadata"]["name"] for each in manifests if each["kind"] == "Pod"))

    def wait_until(self, condition: Callable[[], bool], timeout_s: float, awaited: str) -> None:
        """Waits until a condition holds; where it does not, the message has the events."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                message = f"waited {timeout_s:.0f} s in vain for {awaited}\n{self.events()}"
                raise ClusterError(message)
            time.sleep(PAUSE_S)

    def wait_event(self, about: str, *words: str, timeout_s: float = 90.0) -> None:
        """Waits for an event about an object, named as in `Pod/a`, that has all of the words."""

        def is_there() -> bool:
            return any(
                f"{event['involvedObject']['kind']}/{event['involvedObject']['name']}" == about
                and all(word in event["message"] for word in words)
                for event in self.get("events")["items"]
            )

        said = " and ".join(words)
        self.wait_until(is_there, timeout_s, f"an event about {about} that says {said}")

    def events(self) -> str:
        """The events here, for messages."""
        columns = "TIME:.lastTimestamp,KIND:.involvedObject.kind,NAME:.involvedObject.name"
        done = self.kubectl.try_run(
            *("--namespace", self.name, "get", "events", "--sort-by=.metadata.creationTimestamp"),
            *("--output", f"custom-columns={columns},REASON:.reason,MESSAGE:.message"),
        )
        return f"events in {self.name}:\n{done.stdout}{done.stderr}"

    def mount(self, pod: str, path: str) -> tuple[str, set[str]]:
        """The filesystem and the options of what is mounted in a pod.

        Raises:
            ClusterError: Nothing is.
        """
        for line in self.shell(pod, "cat /proc/mounts").splitlines():
            _, target, fs_type, options = line.split()[:4]
            if target == path:
                return fs_type, set(options.split(","))
        raise ClusterError(f"nothing is mounted at {path} in {pod}")

    def size_kib(self, pod: str, path: str = "/data") -> int:
        """The size of the filesystem there, as df tells it."""
        return int(self.shell(pod, f"df -k -P {path}").splitlines()[-1].split()[1])


def make_namespace(kubectl: Kubectl) -> Namespace:
    """Makes a namespace of a name that nobody has, in which pods can be made."""
    made = Namespace(kubectl, f"cases-{secrets.token_hex(3)}")
    kubectl.run("create", "namespace", made.name)
    made.wait_until(
        lambda: kubectl.try_run("-n", made.name, "get", "sa", "default").returncode == 0,
        ACCOUNT_S,
        "the service account of pods",
    )
    return made
