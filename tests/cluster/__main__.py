"""A Kubernetes on this machine, from the command line."""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence

from tests.cluster.build import build
from tests.cluster.cluster import Cluster, check_room, install_system_packages, take_away
from tests.cluster.driver_image import driver_image
from tests.cluster.errors import ClusterError
from tests.cluster.installation import install_driver, install_snapshots


def main(arguments: Sequence[str]) -> int:
    """Runs a command; returns the exit code."""
    command, *rest = arguments or [""]
    try:
        # What follows these is for the program that they run, options included.
        if command == "kubectl":
            return _kubectl(rest)
        if command == "run":
            return _run(rest)
        parsed = _parser().parse_args(arguments)
        parsed.run(parsed)
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    build_parser = commands.add_parser("build", help="install and compile what a cluster needs")
    build_parser.set_defaults(run=_build)
    up = commands.add_parser("up", help="start a cluster")
    up.add_argument("--nodes", type=int, default=1, metavar="N", help="how many (default: 1)")
    up.add_argument("--install", action="store_true", help="build the driver and install it there")
    up.add_argument("--replace", action="store_true", help="take away one that runs")
    up.set_defaults(run=_up)
    commands.add_parser("down", help="take it away").set_defaults(run=_down)
    commands.add_parser("status", help="show it").set_defaults(run=_status)
    room = commands.add_parser("room", help="fail, and say so, if one runs")
    room.set_defaults(run=lambda _: check_room())
    for name, help_text in (
        ("kubectl", "run kubectl for it: kubectl ARGUMENTS"),
        ("run", "run a program on a node: run NODE PROGRAM ARGUMENTS"),
    ):
        commands.add_parser(name, help=help_text, add_help=False)
    return parser


def _build(_: argparse.Namespace) -> None:
    install_system_packages()
    build()


def _up(arguments: argparse.Namespace) -> None:
    if not arguments.replace:
        check_room()
    install_system_packages()
    build()
    archives = [driver_image()] if arguments.install else []
    print(f"Starting a cluster, nodes: {arguments.nodes}", flush=True)
    started = time.monotonic()
    cluster = Cluster(arguments.nodes)
    cluster.start(archives, replace=arguments.replace)
    if arguments.install:
        print(
            f"Its nodes are ready after {time.monotonic() - started:.1f} s; installing", flush=True
        )
        install_snapshots(cluster.kubectl)
        install_driver(cluster.kubectl)
    print(f"It is ready after {time.monotonic() - started:.1f} s. To use it:")
    print(f"    export KUBECONFIG={cluster.kubeconfig}")
    print("    python -m tests.cluster kubectl get nodes")


def _down(_: argparse.Namespace) -> None:
    started = time.monotonic()
    take_away()
    print(f"There is no cluster, and nothing left of one ({time.monotonic() - started:.1f} s)")


def _status(_: argparse.Namespace) -> None:
    cluster = Cluster.running()
    print(f"kubeconfig  {cluster.kubeconfig}")
    print(f"logs        {cluster.logs}")
    for machine in (cluster.plane.machine, *(node.machine for node in cluster.nodes)):
        init = machine.find_init()
        if init is None:
            print(f"{machine.name:10}  killed")
            continue
        processes = machine.processes()
        megabytes = sum(process.memory_info().rss for process in processes) / 1e6
        print(
            f"{machine.name:10}  {len(processes)} processes, {megabytes:.0f} MB, without its pods"
        )
    print(cluster.kubectl.run("get", "nodes,pods", "--all-namespaces", "--output=wide"), end="")


def _kubectl(arguments: Sequence[str]) -> int:
    kubectl = Cluster.running().kubectl
    command = kubectl.command(*arguments)
    return subprocess.run(command, check=False).returncode


def _run(arguments: Sequence[str]) -> int:
    if len(arguments) < 2:
        print("usage: python -m tests.cluster run NODE PROGRAM ARGUMENTS", file=sys.stderr)
        return 2
    name, *command = arguments
    cluster = Cluster.running()
    machines = [cluster.plane.machine, *(node.machine for node in cluster.nodes)]
    machine = next((machine for machine in machines if machine.name == name), None)
    if machine is None:
        raise ClusterError(f"there is no {name}; there are {', '.join(m.name for m in machines)}")
    return subprocess.run(machine.entering(*command), check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
