"""The driver killed at each call that changes a disk, a mount or a loop device."""

from collections.abc import Sequence

import pytest

from tests.crash import sweep
from tests.crash.scenarios import SCENARIOS, Scenario
from tests.crash.sweep import Grounds
from tests.crash.tracer import DRIVER, KILL_ALL, KILL_DRIVER
from tests.crash.tracing import Point
from tests.crash.trial import Ground, choose_points, kill_at, list_points

pytestmark = pytest.mark.kernel

_SAMPLED = {"xfs": 2, "ext4": 1, "btrfs": 1}
_POINTS = 2


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "scenario", sweep.sampled(SCENARIOS, _SAMPLED, "kills"), ids=lambda scenario: scenario.name
)
def test_nothing_is_lost_or_left_behind(grounds: Grounds[Ground], scenario: Scenario) -> None:
    """In whichever step it dies: repeated, the call succeeds, and all is as if it had not died."""
    failures = []
    points = _undisturbed(grounds, scenario)
    for point, how in sweep.sample(_trials(points), _POINTS, scenario.name):
        sweep.count("killed", scenario.name)
        try:
            trace = kill_at(grounds.get(scenario.pool), scenario, point, how)
        except Exception as failure:  # noqa: BLE001 - whatever it is, the sweep goes on
            failures.append(sweep.violation(scenario.name, f"{how} at {point}: {failure}"))
            grounds.spoil(scenario.pool, failure)
        else:
            if not trace.hit:
                sweep.count("not reached again", scenario.name)
    assert not failures, f"{len(failures)} violations:\n  " + "\n  ".join(failures)


def _undisturbed(grounds: Grounds[Ground], scenario: Scenario) -> list[Point]:
    try:
        return list_points(grounds.get(scenario.pool), scenario)
    except BaseException as failure:
        grounds.spoil(scenario.pool, failure)
        raise


def _trials(points: Sequence[Point]) -> list[tuple[Point, str]]:
    """Each point with the death of all, as in a container; of the driver alone amid its children.

    A child that outlives the driver goes on with its work while the next driver starts.
    """
    chosen = choose_points(points)
    trials = [(point, KILL_ALL) for point in chosen]
    of_children = [place for place, point in enumerate(points) if point.process != DRIVER]
    if of_children:
        among = points[of_children[0] : of_children[-1] + 1]
        trials += [(point, KILL_DRIVER) for point in chosen if point in among]
    return trials
