"""Each call that changes something failed by the kernel, with each errno to be expected."""

import pytest

from tests.crash import sweep
from tests.crash.failing import FaultError, fail_all, faults_at
from tests.crash.scenarios import SCENARIOS, Scenario
from tests.crash.sweep import Grounds
from tests.crash.trial import Ground, choose_points, list_points

pytestmark = pytest.mark.kernel

_SAMPLED = {"xfs": 2, "ext4": 1, "btrfs": 1}
_FAULTS = 6


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "scenario", sweep.sampled(SCENARIOS, _SAMPLED, "faults"), ids=lambda scenario: scenario.name
)
def test_a_failure_is_told_and_undone(grounds: Grounds[Ground], scenario: Scenario) -> None:
    """Whatever fails: the right code, nothing left behind, and success once the fault is gone."""
    violations = []
    try:
        points = list_points(grounds.get(scenario.pool), scenario)
    except BaseException as failure:
        grounds.spoil(scenario.pool, failure)
        raise
    faults = [fault for point in choose_points(points) for fault in faults_at(point)]
    faults = sweep.sample(faults, _FAULTS, "faults", scenario.name)
    sweep.count("failed", scenario.name, len(faults))
    while faults:
        try:
            reached = fail_all(grounds.get(scenario.pool), scenario, faults)
        except FaultError as failure:
            violations.append(sweep.violation(scenario.name, str(failure)))
            grounds.spoil(scenario.pool, failure)
            faults = faults[failure.done :]
        else:
            sweep.count("failed, but not reached again", scenario.name, len(faults) - reached)
            break
    assert not violations, f"{len(violations)} violations:\n  " + "\n  ".join(violations)
