"""Measures how long users of a cluster wait for volumes; prints medians and writes JSON."""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from bench.figures import Figure
from bench.report import Machine, this_machine
from tests.cluster.bench.api import connect
from tests.cluster.bench.cases import Bench
from tests.cluster.build import build
from tests.cluster.cases.objects import DRIVER, shipped_class
from tests.cluster.cluster import Cluster
from tests.cluster.errors import ClusterError
from tests.cluster.kubectl import Kubectl
from tests.cluster.versions import KUBECTL
from tests.cluster.waiting import wait_until

_WIDTH = 58


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What is written as JSON; figures are medians, with nine of ten values above and below."""

    version: int = 1
    machine: Machine
    kubernetes: str
    nodes: int
    attach: bool
    storage_class: str
    size: str
    figures: list[Figure]
    copies_made: int
    in_vain: list[str]


def main() -> int:
    """Measures; returns the exit code."""
    arguments = _parser().parse_args()
    machine = this_machine()
    try:
        kubectl = _cluster()
        with connect(kubectl) as api, _namespace(kubectl) as namespace:
            bench = Bench(
                kubectl,
                api,
                namespace,
                storage_class=arguments.storage_class,
                size=arguments.size,
                image=arguments.image,
            )
            try:
                _measure(bench, arguments)
            finally:
                for line in _lines(bench.samples.figures()):
                    print(line)
                for line in bench.in_vain:
                    print(f"  in vain: {line}")
        result = Result(
            machine=msgspec.structs.replace(machine, load_after=os.getloadavg()[0]),
            kubernetes=kubectl.get("nodes")["items"][0]["status"]["nodeInfo"]["kubeletVersion"],
            nodes=len(kubectl.get("nodes")["items"]),
            attach=kubectl.get("csidriver", DRIVER)["spec"]["attachRequired"],
            storage_class=arguments.storage_class,
            size=arguments.size,
            figures=bench.samples.figures(),
            copies_made=bench.copies_made,
            in_vain=bench.in_vain,
        )
    except ClusterError as error:
        print(f"The measurement failed: {error}", file=sys.stderr)
        return 1
    path = Path(arguments.json)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
    loads = f"{result.machine.load_before:.1f} before, {result.machine.load_after:.1f} after"
    print(f"load {loads}; all figures are in {path}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.bench", description=__doc__)
    parser.add_argument(
        "--storage-class", default=shipped_class("xfs"), help="of the volumes (default: xfs images)"
    )
    parser.add_argument("--size", default="1Gi", help="of each volume (default: 1Gi)")
    parser.add_argument("--grown", default="2Gi", help="size that a volume is grown to")
    parser.add_argument(
        "--image", default="busybox:stable", help="of the pods, with a shell (default: busybox)"
    )
    parser.add_argument("--singles", type=int, default=10, metavar="N", help="pods one by one")
    parser.add_argument("--count", type=int, default=20, metavar="N", help="pods at once")
    parser.add_argument("--bursts", type=int, default=3, metavar="N", help="how often so many")
    parser.add_argument(
        "--copies", type=int, default=10, metavar="N", help="snapshots, restores, clones a node"
    )
    parser.add_argument("--growths", type=int, default=3, metavar="N", help="of a volume in use")
    parser.add_argument(
        "--json", default="build/bench-cluster.json", metavar="FILE", help="where figures go"
    )
    return parser


def _measure(bench: Bench, arguments: argparse.Namespace) -> None:
    # Without volumes is what the cluster takes by itself: nothing with a volume can be quicker.
    for with_volumes in (False, True):
        what = "with" if with_volumes else "without"
        print(f"Pods {what} volumes, one after another", flush=True)
        bench.one_after_another(arguments.singles, with_volumes=with_volumes)
        print(f"{arguments.count} pods {what} volumes at once", flush=True)
        bench.at_once(arguments.count, arguments.bursts, with_volumes=with_volumes)
    if arguments.copies:
        print("Snapshots, restores and clones", flush=True)
        bench.copies(arguments.copies)
    if arguments.growths:
        print("Growth", flush=True)
        bench.growth(arguments.growths, arguments.grown)


def _lines(figures: list[Figure]) -> Iterator[str]:
    yield f"\n{'median, and from the lowest to the highest tenth, in s':<{_WIDTH}}"
    for figure in figures:
        if figure.series.startswith(("source of", "growing pod")):
            continue  # they only set the scene
        low, median, high = (value / 1000 for value in (figure.low, figure.median, figure.high))
        yield (
            f"  {figure.series:<{_WIDTH}} {median:7.2f}  ({low:.2f} to {high:.2f}, {figure.count}x)"
        )


def _cluster() -> Kubectl:
    """The cluster that KUBECONFIG names, or else the project's own."""
    if not (configuration := os.environ.get("KUBECONFIG")):
        return Cluster.running().kubectl
    program = shutil.which("kubectl") or build([KUBECTL])[KUBECTL.name]
    return Kubectl(Path(program), Path(configuration))


@contextlib.contextmanager
def _namespace(kubectl: Kubectl) -> Iterator[str]:
    name = f"bench-{secrets.token_hex(3)}"
    kubectl.run("create", "namespace", name)
    try:
        wait_until(
            lambda: kubectl.try_run("-n", name, "get", "sa", "default").returncode == 0,
            30,
            "the service account of pods",
        )
        yield name
    finally:
        kubectl.run("delete", "namespace", name, "--wait=true", "--timeout=180s", timeout_s=200)


if __name__ == "__main__":
    sys.exit(main())
