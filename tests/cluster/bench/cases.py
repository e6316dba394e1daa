"""What is measured: pods with volumes, with none, snapshots, restores, growth.

A time begins with the first call to the API server and ends when a watch tells the result.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Self

from bench.figures import Samples
from tests.cluster.bench.api import CONNECTIONS, Api, Seen, Watch, condition
from tests.cluster.cases import objects
from tests.cluster.cases.objects import Manifest, Use
from tests.cluster.errors import ClusterError
from tests.cluster.kubectl import Kubectl

TIMEOUT_S = 180.0
GROWTH_TIMEOUT_S = 300.0
WRITTEN_MIB = 512
# Of a claim that was given to a wrong node, and of a pod whose scheduling had to begin anew.
_IN_VAIN = ("ProvisioningFailed", "FailedScheduling")
# A pod ends as soon as it is asked to, as a well-behaved service does.
_SERVE = "trap exit TERM; sleep 1000000 & wait"


@dataclass
class Bench:
    """A namespace in which is measured.

    Attributes:
        kubectl: The cluster.
        api: The same, for what is timed.
        namespace: It has nothing else in it.
        storage_class: Of the volumes.
        size: Of each volume.
        image: Of the pods; it has a shell, and every node has it already.
        samples: What was measured, in ms.
        copies_made: How many restores and clones there were; all were on the node of their source.
        in_vain: What was said of tries for them that failed.
    """

    kubectl: Kubectl
    api: Api
    namespace: str
    storage_class: str
    size: str
    image: str
    samples: Samples = field(default_factory=Samples)
    copies_made: int = 0
    in_vain: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        base = f"namespaces/{self.namespace}"
        self._pods_at = f"/api/v1/{base}/pods"
        self._events_at = f"/api/v1/{base}/events"
        self._claims_at = f"/api/v1/{base}/persistentvolumeclaims"
        self._snapshots_at = f"/apis/{objects.SNAPSHOT_GROUP}/v1/{base}/volumesnapshots"

    # ---- Pods

    def one_after_another(self, times: int, *, with_volumes: bool) -> None:
        """Makes pods one by one; each is away before the next comes."""
        series = "pod with a new volume" if with_volumes else "pod without a volume"
        for number in range(times):
            name = f"single{number}"
            with self._watching() as watches:
                self._make([name], with_volumes=with_volumes, series=series, watches=watches)
                self._end([name], with_volumes=with_volumes, series=series, watches=watches)

    def at_once(self, count: int, times: int, *, with_volumes: bool) -> None:
        """Makes many pods at the same time, then deletes all of them and their claims."""
        kind = "pods with new volumes" if with_volumes else "pods without volumes"
        for _ in range(times):
            names = [f"many{number}" for number in range(count)]
            series = f"{count} {kind} at once"
            with self._watching() as watches:
                self._make(names, with_volumes=with_volumes, series=series, watches=watches)
                self._end(names, with_volumes=with_volumes, series=series, watches=watches)

    def _make(
        self,
        names: list[str],
        *,
        with_volumes: bool,
        series: str,
        watches: _Watches,
        source: Manifest | None = None,
        node: str = "",
    ) -> None:
        def make(name: str) -> None:
            if with_volumes:
                self.api.create(self._claims_at, self._claim(name, source))
            self.api.create(self._pods_at, self._pod(name, with_volumes, node))

        start = time.perf_counter()
        self._each(make, names)
        ready = self._last(watches.pods, names, lambda seen: condition(seen, "Ready"))
        self.samples.add(f"{series}: ready", "ms", _ms(start, ready))
        stages = [("pod scheduled", self._last(watches.pods, names, _is_scheduled))]
        if with_volumes:
            bound = watches.claims.first(set(names), _is_bound, TIMEOUT_S)
            claims = self.api.get(self._claims_at)["items"]
            volumes = [
                each["spec"]["volumeName"] for each in claims if each["metadata"]["name"] in bound
            ]
            made = self._last(watches.volumes, volumes, lambda seen: seen.kind == "ADDED")
            stages = [("volume made", made), ("claim bound", max(bound.values())), *stages]
        for stage, at in stages:
            self.samples.add(f"{series}: of these, {stage}", "ms", _ms(start, at))

    def _end(self, names: list[str], *, with_volumes: bool, series: str, watches: _Watches) -> None:
        volumes: list[str] = []
        if with_volumes:
            claims = self.api.get(self._claims_at)["items"]
            volumes = [
                each["spec"]["volumeName"] for each in claims if each["metadata"]["name"] in names
            ]

        def end(name: str) -> None:
            self.api.delete(f"{self._pods_at}/{name}")
            if with_volumes:
                self.api.delete(f"{self._claims_at}/{name}")

        start = time.perf_counter()
        self._each(end, names)
        gone = self._last(watches.pods, names, _is_gone)
        self.samples.add(f"{series}: deleted, pods gone", "ms", _ms(start, gone))
        if volumes:
            gone = self._last(watches.volumes, volumes, _is_gone)
            self.samples.add(f"{series}: deleted, volumes gone", "ms", _ms(start, gone))

    # ---- Snapshots, restores, growth

    def copies(self, times: int) -> None:
        """Snapshots a volume in use that holds data, restores each snapshot, and clones the volume.

        On each node in turn: a copy has to find the node where its source is.
        """
        for node in self.api.get("/api/v1/nodes")["items"]:
            with self._watching() as watches:
                self._copies_on(node["metadata"]["name"], times, watches)

    def _copies_on(self, node: str, times: int, watches: _Watches) -> None:
        source = f"source-{node}"
        scene = "source of copies"
        self._make([source], with_volumes=True, series=scene, watches=watches, node=node)
        self._fill(source)
        names = [f"{node}-{number}" for number in range(times)]
        for name in names:
            start = time.perf_counter()
            self.api.create(self._snapshots_at, objects.snapshot(name, of_claim=source))
            ready = self._last(watches.snapshots, [name], _is_ready_to_use)
            self.samples.add(f"snapshot of {self.size} in use: ready", "ms", _ms(start, ready))
        for what, origins in (
            ("restored", [objects.from_snapshot(name) for name in names]),
            ("cloned", [objects.from_claim(source) for _ in names]),
        ):
            series = f"pod with a {what} volume"
            for name, origin in zip(names, origins, strict=True):
                copy = f"{what}-{name}"
                self._make([copy], with_volumes=True, series=series, watches=watches, source=origin)
                self._check_place(copy, node)
                self._end([copy], with_volumes=True, series=series, watches=watches)
        for name in names:
            self.api.delete(f"{self._snapshots_at}/{name}")
        self._last(watches.snapshots, names, _is_gone)
        self._end([source], with_volumes=True, series=scene, watches=watches)

    def _check_place(self, pod: str, node: str) -> None:
        landed = self.api.get(f"{self._pods_at}/{pod}")["spec"]["nodeName"]
        if landed != node:
            raise ClusterError(f"{pod} is on {landed}, and its source on {node}")
        self.copies_made += 1
        for event in self.api.get(self._events_at)["items"]:
            if event["involvedObject"]["name"] == pod and event["reason"] in _IN_VAIN:
                self.in_vain.append(f"{pod}: {event['reason']}: {event['message']}")

    def growth(self, times: int, grown: str) -> None:
        """Grows a volume in use, until df in the pod shows it."""
        for number in range(times):
            name = f"growing{number}"
            with self._watching() as watches:
                self._make([name], with_volumes=True, series="growing pod", watches=watches)
                self.samples.add(
                    f"growth from {self.size} to {grown}: seen in the pod",
                    "ms",
                    self._grow_ms(name, grown),
                )
                self._end([name], with_volumes=True, series="growing pod", watches=watches)

    def _grow_ms(self, name: str, grown: str) -> float:
        # The pod watches itself, and prints when there is a change; starting exec takes a while.
        script = (
            "size() { set -- $(df -k /data | tail -1); echo $2; }; was=$(size); echo begin; "
            "until test $(size) -gt $was; do sleep 0.02; done; echo grown"
        )
        command = self.kubectl.command(
            *("--namespace", self.namespace, "exec", name, "--", "timeout"),
            *(f"{GROWTH_TIMEOUT_S:.0f}", "sh", "-c", script),
        )
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
            assert watching.stdout is not None
            if watching.stdout.readline().strip() != "begin":
                raise ClusterError(f"{name} cannot be looked into")
            start = time.perf_counter()
            change = {"spec": {"resources": {"requests": {"storage": grown}}}}
            self.api.change(f"{self._claims_at}/{name}", change)
            said = watching.stdout.readline().strip()
            seen = time.perf_counter()
        if said != "grown":
            raise ClusterError(f"{name} did not grow within {GROWTH_TIMEOUT_S:.0f} s")
        return _ms(start, seen)

    # ---- What they share

    def _watching(self) -> _Watches:
        return _Watches(
            Watch(self.api, self._pods_at),
            Watch(self.api, self._claims_at),
            Watch(self.api, "/api/v1/persistentvolumes"),
            Watch(self.api, self._snapshots_at),
        )

    def _claim(self, name: str, source: Manifest | None) -> Manifest:
        return objects.claim(name, self.storage_class, self.size, source=source)

    def _pod(self, name: str, with_volumes: bool, node: str) -> Manifest:
        made = objects.pod(name, *([Use(name)] if with_volumes else []))
        spec = made["spec"]
        spec["terminationGracePeriodSeconds"] = 30
        if node:
            spec["nodeSelector"] = {"kubernetes.io/hostname": node}
        spec["containers"][0] |= {"image": self.image, "command": ["sh", "-c", _SERVE]}
        return made

    def _fill(self, name: str) -> None:
        script = f"dd if=/dev/urandom of=/data/file bs=1M count={WRITTEN_MIB} conv=fsync"
        self.kubectl.run("--namespace", self.namespace, "exec", name, "--", "sh", "-c", script)

    @staticmethod
    def _each(act: Callable[[str], None], names: Iterable[str]) -> None:
        with ThreadPoolExecutor(CONNECTIONS) as threads:
            for done in [threads.submit(act, name) for name in names]:
                done.result()

    @staticmethod
    def _last(watch: Watch, names: list[str], holds: Callable[[Seen], bool]) -> float:
        return max(watch.first(set(names), holds, TIMEOUT_S).values())


@dataclass(frozen=True)
class _Watches:
    """What is looked at while something is timed."""

    pods: Watch
    claims: Watch
    volumes: Watch
    snapshots: Watch

    def __enter__(self) -> Self:
        for each in (self.pods, self.claims, self.volumes, self.snapshots):
            each.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self.pods, self.claims, self.volumes, self.snapshots):
            each.__exit__()


def _ms(start: float, end: float) -> float:
    return 1000 * (end - start)


def _is_bound(seen: Seen) -> bool:
    return bool(seen.object.get("status", {}).get("phase") == "Bound")


def _is_scheduled(seen: Seen) -> bool:
    return condition(seen, "PodScheduled")


def _is_ready_to_use(seen: Seen) -> bool:
    return bool(seen.object.get("status", {}).get("readyToUse"))


def _is_gone(seen: Seen) -> bool:
    return seen.kind == "DELETED"
