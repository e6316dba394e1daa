"""One trial: a call cut off at one point, the driver started again, and the call repeated."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import grpc

from tests.crash.lives import SORTS, Life
from tests.crash.scenarios import Scenario
from tests.crash.tracer import DRIVER, KILL_ALL, Aim
from tests.crash.tracing import Point, Trace, traced
from tests.crash.world import DriverGoneError, ViolationError, World, world_on

CHILD_POINTS = 22
"""Of a child the first, the last and 20 between: mkfs writes the same thing over and over."""
ORPHAN_TIMEOUT_S = 60.0


class Bystanders:
    """Volumes in use and a snapshot on the same pool, which nothing that happens may touch."""

    def __init__(self, world: World) -> None:
        sorts = [sort for sort in SORTS.values() if sort.pool == world.fs_type]
        self._lives = [Life(world, sort) for sort in (sorts[0], sorts[-1])]
        for life in self._lives:
            life.rest()
            life.snapshot()
            life.bring_up()

    def check(self) -> None:
        """Expects that they are in use as before, their data the same."""
        for life in self._lives:
            life.check()

    def close(self) -> None:
        """Ends them: what they had written and what was snapshotted is read back first."""
        for life in self._lives:
            life.finish()


class Ground(NamedTuple):
    """Where trials take place."""

    world: World
    bystanders: Bystanders
    state: dict[str, object]


@contextlib.contextmanager
def ground_on(fs_type: str, folder: Path) -> Iterator[Ground]:
    """Makes a pool with bystanders; at the end they are read back, and all is gone."""
    with world_on(fs_type, folder) as world:
        empty = world.state()
        bystanders = Bystanders(world)
        yield Ground(world, bystanders, world.state())
        bystanders.close()
        world.expect_state(empty)


def list_points(ground: Ground, scenario: Scenario) -> list[Point]:
    """Runs a call undisturbed, its life to the end, and returns the points it has."""
    act = scenario.begin(ground.world)
    act.prepare()
    with watched(ground, None) as trace:
        act.act()
    act.finish()
    expect_order(ground)
    return trace.points


def choose_points(points: Sequence[Point]) -> list[Point]:
    """Returns all points of the driver, and of each child those that are tried."""
    chosen = []
    for process in dict.fromkeys(point.process for point in points):
        own = [point for point in points if point.process == process]
        if process != DRIVER and len(own) > CHILD_POINTS:
            last = len(own) - 1
            places = {round(i * last / (CHILD_POINTS - 1)) for i in range(CHILD_POINTS)}
            own = [own[place] for place in sorted(places)]
        chosen += own
    return chosen


def kill_at(ground: Ground, scenario: Scenario, point: Point, how: str = KILL_ALL) -> Trace:
    """Kills the driver at a point of a call, starts it, repeats the call and looks at all there is.

    Raises:
        ViolationError: Something is not as promised.
    """
    world = ground.world
    act = scenario.begin(world)
    act.prepare()
    world.patient = False
    try:
        with (
            watched(ground, Aim(how, point.process, point.place)) as trace,
            contextlib.suppress(grpc.RpcError, DriverGoneError),
        ):
            act.act()
    finally:
        world.patient = True
    world.driver.kill()
    world.driver.start()
    _wait_for_orphans(trace.survivors)
    world.expect_nothing_frozen()
    act.act()
    world.expect_true_ledger()
    act.finish()
    expect_order(ground)
    return trace


def expect_order(ground: Ground) -> None:
    """Expects that nothing is left over and nobody else was touched."""
    world = ground.world
    world.wait_for_background()
    world.expect_state(ground.state)
    world.expect_true_ledger()
    world.expect_nothing_frozen()
    ground.bystanders.check()


@contextlib.contextmanager
def watched(ground: Ground, aim: Aim | None) -> Iterator[Trace]:
    """Follows the ground's driver for the body of a `with`."""
    world = ground.world
    with traced(world.driver.pid, world.pool, world.kubelet.directory, aim) as trace:
        yield trace


def _wait_for_orphans(pids: Sequence[int]) -> None:
    deadline = time.monotonic() + ORPHAN_TIMEOUT_S
    while any(Path(f"/proc/{pid}/exe").exists() for pid in pids):
        if time.monotonic() > deadline:
            raise ViolationError(f"children outlive the driver: {pids}")
        time.sleep(0.02)
