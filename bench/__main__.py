"""`python -m bench` measures our driver; with `--peer` another one as well, in turns."""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc
import msgspec

from bench import cases, ground, plan, report
from bench.cases import Subject
from bench.client import Client, in_words
from bench.life import Kind

OWN, PEER = "csi-local-path", "peer"


def main() -> int:
    """Measures; returns the exit code."""
    arguments = _parser().parse_args()
    if os.geteuid() != 0:
        print("The driver mounts filesystems: run this as root.", file=sys.stderr)
        return 1
    try:
        with _subjects(arguments) as subjects:
            _measure(_plan(arguments), subjects, Path(arguments.json))
    except (ground.GroundError, OSError) as error:
        print(f"\nThe measurement failed: {error}", file=sys.stderr)
    except grpc.RpcError as error:
        print(f"\nThe measurement failed: {in_words(error)}", file=sys.stderr)
    else:
        return 0
    return 1


def _measure(wanted: plan.Plan, subjects: Sequence[Subject], path: Path) -> None:
    machine = report.this_machine()
    outcomes = []
    for case in plan.cases(wanted):
        done = cases.run(case, subjects)
        print("\n".join(report.lines(done)), flush=True)
        outcomes += done
    result = report.Result(
        machine=msgspec.structs.replace(machine, load_after=os.getloadavg()[0]),
        drivers={subject.name: subject.client.name for subject in subjects},
        plan=wanted,
        outcomes=outcomes,
    )
    report.write(result, path)
    print(f"\nThe load was {machine.load_before:.1f} before; the figures are in {path}.")


@contextlib.contextmanager
def _subjects(arguments: argparse.Namespace) -> Iterator[list[Subject]]:
    with contextlib.ExitStack() as undo:
        folder = undo.enter_context(ground.place(arguments.place))
        pools = undo.enter_context(ground.pools(folder, arguments.pool))
        driver = ground.OwnDriver(pools, folder)
        undo.callback(driver.stop)
        driver.start()
        subjects = [
            Subject(
                OWN,
                undo.enter_context(Client(driver.endpoint)),
                folder / "own",
                ground.kinds_for(pools),
                functools.partial(driver.restart, cold=arguments.cold),
                lambda kind: pools[kind.parameters["pool"]],
            )
        ]
        if arguments.peer:
            subjects.append(
                Subject(
                    PEER,
                    undo.enter_context(Client(arguments.peer)),
                    folder / "peer",
                    _kinds_of_peer(dict(arguments.peer_parameter)),
                )
            )
        yield subjects


def _kinds_of_peer(parameters: dict[str, str]) -> dict[str, Kind]:
    """Returns our kinds as another driver is asked for them: by size and filesystem alone."""
    return {kind.name: kind._replace(parameters=parameters) for kind in ground.KINDS}


def _plan(arguments: argparse.Namespace) -> plan.Plan:
    names = plan.Plan.__struct_fields__
    given = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    return plan.Plan(**given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--pool", default="", help="a pool to use (default: two for this run)")
    parser.add_argument("--place", default="", help="where files are made (default: /var/tmp)")
    parser.add_argument("--json", default="bench.json", help="file for the figures")
    parser.add_argument("--peer", default="", help="another driver's socket, such as unix:///x")
    parser.add_argument(
        "--peer-parameter",
        action="append",
        default=[],
        type=_pair,
        metavar="KEY=VALUE",
        help="a StorageClass parameter for that driver",
    )
    parser.add_argument(
        "--cold", action="store_true", help="drop the machine's caches before each start"
    )
    for name, what in (
        ("parts", f"which of {','.join(plan.PARTS)}"),
        ("kinds", "which kinds of volume"),
    ):
        parser.add_argument(f"--{name}", type=lambda text: text.split(","), help=what)
    for name, what in (
        ("clients", "how many at once"),
        ("counts", "numbers of volumes to measure beside, such as 0,10000,100000"),
        ("copy-mib", "amounts of data to copy"),
        ("extents", "numbers of extents to copy"),
    ):
        parser.add_argument(f"--{name}", type=_numbers, help=what)
    for name, what in (
        ("calls", "short calls in a round"),
        ("lives", "lifecycles in a round"),
        ("rounds", "how often each is done"),
        ("few", "volumes made and deleted beside many in a round"),
        ("io-mib", "size of fio's files"),
        ("files", "files that are given to a group, such as 1000000"),
    ):
        parser.add_argument(f"--{name}", type=int, help=what)
    parser.add_argument("--io-s", type=float, help="seconds of a job of fio")
    parser.add_argument("--attach", action="store_const", const=True, help="attach and detach")
    return parser


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _pair(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    return key, value


if __name__ == "__main__":
    sys.exit(main())
