"""Failures at chosen steps: what each leaves behind, and that the next try comes through."""

import pytest

from tests.crash import sweep
from tests.crash.failing import Failing, Fault
from tests.crash.scenarios import SCENARIOS, Scenario
from tests.crash.sweep import Grounds
from tests.crash.tracer import KILL_ALL
from tests.crash.tracing import Point
from tests.crash.trial import Ground, kill_at, list_points

pytestmark = pytest.mark.kernel

ENOSPC, EIO = 28, 5


def scenario_of(rpc: str, sort: str) -> Scenario:
    return next(s for s in SCENARIOS if (s.rpc, s.sort_name) == (rpc, sort))


def last(what: str, points: list[Point]) -> Point:
    """The last point of a program whose call begins so."""
    return [
        point
        for point in points
        if f"{point.process.partition('#')[0]} {point.call}".startswith(what)
    ][-1]


@pytest.mark.parametrize(
    ("rpc", "sort", "call", "number", "lasting"),
    [
        # The record is in its place and only that is not durable: the old one has to be put back.
        ("ControllerExpandVolume", "block", "driver fsync", ENOSPC, False),
        ("ControllerExpandVolume", "block", "driver fsync", EIO, True),
        # The image is longer already when the record fails.
        ("ControllerExpandVolume", "ext4", "driver openat", ENOSPC, False),
        # The entry is in its place and that is not durable.
        ("CreateVolume", "block", "driver fsync", ENOSPC, False),
        ("CreateVolume", "block", "driver fsync", EIO, True),
        ("CreateSnapshot", "block", "driver fsync", EIO, True),
        # resize2fs says that all is well although it could not write a block.
        ("NodeStageVolume after growth", "ext4", "resize2fs pwrite64", EIO, False),
        # A filesystem that stays frozen would hold its pod for ever.
        ("CreateSnapshot", "ext4", "freezer.py ioctl(FITHAW", EIO, False),
        # It lies in the trash already, and whoever asks again must not trip over that.
        ("DeleteVolume", "block", "driver fsync", EIO, True),
        ("DeleteVolume", "block", "driver renameat2", EIO, False),
        # Once a subvolume is gone nobody knows the number of its quota group any more.
        ("DeleteVolume", "directory", "driver ioctl(BTRFS_IOC_QGROUP_ASSIGN", EIO, False),
        ("DeleteVolume", "directory", "driver ioctl(BTRFS_IOC_QGROUP_CREATE", EIO, False),
        # What was begun of the record cannot be removed either.
        ("ControllerExpandVolume", "directory", "driver write", ENOSPC, True),
        # Members without their group.
        ("CreateVolumeGroupSnapshot", "block", "driver fsync", EIO, True),
        ("DeleteVolumeGroupSnapshot", "ext4", "driver renameat2", EIO, True),
        # Nobody creates a volume again that was answered: its copy has to begin again all the same.
        ("CreateVolume from a snapshot", "copied", "driver copy_file_range", EIO, False),
    ],
)
def test_the_next_try_comes_through(
    grounds: Grounds[Ground],
    rpc: str,
    sort: str,
    call: str,
    number: int,
    lasting: bool,
) -> None:
    scenario = scenario_of(rpc, sort)
    ground = grounds.get(scenario.pool)
    try:
        point = last(call, list_points(ground, scenario))
        failing = Failing(ground, scenario)

        failing.fail(Fault(point, number, lasting))

        assert failing.reached
        failing.end()
    except BaseException as failure:
        grounds.spoil(scenario.pool, failure)
        raise


@pytest.mark.parametrize("sort", ["xfs", "btrfs"])
def test_what_was_mounted_and_not_grown_is_grown_by_the_next_try(
    grounds: Grounds[Ground], sort: str
) -> None:
    scenario = scenario_of("NodeStageVolume after growth", sort)
    ground = grounds.get(scenario.pool)
    try:
        grows = ("ioctl(XFS_IOC_FSGROWFSDATA", "ioctl(BTRFS_IOC_RESIZE")
        (point,) = [p for p in list_points(ground, scenario) if p.call.startswith(grows)]
        assert kill_at(ground, scenario, point, KILL_ALL).hit
    except BaseException as failure:
        grounds.spoil(scenario.pool, failure)
        raise


@pytest.mark.parametrize("sort", ["ext4", "copied"])
def test_growing_an_unused_ext4_may_be_killed_anywhere(grounds: Grounds[Ground], sort: str) -> None:
    """A clone is grown where the pool reflinks; elsewhere the next try repairs what is left."""
    scenario = scenario_of("NodeStageVolume after growth", sort)
    ground = grounds.get(scenario.pool)
    try:
        points = list_points(ground, scenario)
        writes = [point for point in points if point.process.startswith("resize2fs")]
        assert writes
        for point in sweep.sample(writes, 1, "growing", sort):
            assert kill_at(ground, scenario, point, KILL_ALL).hit
    except BaseException as failure:
        grounds.spoil(scenario.pool, failure)
        raise
