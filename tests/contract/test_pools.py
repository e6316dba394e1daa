"""A node with two pools: the class names one, and each keeps its own books."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import tests.driver
from csi.v1 import csi_pb2 as pb
from tests.contract import requests
from tests.contract.bench import Bench, repeat_while_aborted, wait_until, write_synced
from tests.contract.command import hurried
from tests.contract.node_fixtures import run
from tests.contract.refusals import Code, refused
from tests.contract.requests import (
    GIB,
    MIB,
    filesystem,
    from_snapshot,
    from_volume,
    raw_block,
)
from tests.disks import mounted_filesystem
from tests.driver import create_pool, running_driver
from tests.kubelet import Kubelet

pytestmark = pytest.mark.kernel

FAST = {"pool": "fast"}
SLOW = {"pool": "slow"}
CONFIGURATION = """\
apiVersion: local-path.csi.dev/v1
kind: DriverConfiguration
pools:
  - name: fast
    path: {fast}
    reserved: 256Mi
  - name: slow
    path: {slow}
    overProvisioningRatio: 2
"""


@pytest.fixture(scope="module")
def pools(folder: Path) -> Iterator[tuple[Path, Path]]:
    """An xfs of 1 GiB and an ext4 of 2 GiB."""
    with (
        mounted_filesystem("xfs", folder, GIB) as fast,
        mounted_filesystem("ext4", folder, 2 * GIB) as slow,
    ):
        create_pool(fast)
        create_pool(slow)
        yield fast, slow


@pytest.fixture(scope="module")
def two_pools(pools: tuple[Path, Path], folder: Path) -> Iterator[Bench]:
    """A bench on both; its own folder of the pool is the first one's."""
    place = folder / "two"
    place.mkdir()
    fast, slow = pools
    configuration = CONFIGURATION.format(fast=fast, slow=slow)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tests.driver, "COMMAND", hurried("_TRY_WRITING_EVERY_S", 0.1))
        # The last of two --pool flags counts, and an empty one leaves it to the configuration.
        with running_driver(fast, place, config=configuration, arguments=["--pool", ""]) as driver:
            yield Bench(driver, Kubelet(place / "kubelet"), fast)


@pytest.fixture
def both(two_pools: Bench) -> Iterator[Bench]:
    yield two_pools
    two_pools.clean_up()


def available(bench: Bench, parameters: dict[str, str] | None = None) -> int:
    answer = bench.driver.controller.GetCapacity(requests.get_capacity(parameters=parameters))
    return answer.available_capacity


def entries(pool: Path) -> int:
    return len(list((pool / "volumes").iterdir()))


def test_a_volume_lies_in_the_pool_that_its_class_names(
    both: Bench, pools: tuple[Path, Path]
) -> None:
    fast, slow = pools
    both.create(parameters=SLOW)
    assert (entries(fast), entries(slow)) == (0, 1)

    both.create(parameters=FAST)
    both.create()  # the first pool is the default

    assert (entries(fast), entries(slow)) == (2, 1)


@pytest.mark.parametrize(
    "parameters",
    [
        {"pool": "tape"},
        {"pool": "FAST"},
        {"pool": "../fast"},
        {"pool": "tape", "kind": "directory", "enforceSize": "false"},
        {"pool": "tape", requests.FS_TYPE: "xfs"},
    ],
    ids=str,
)
def test_a_pool_that_only_other_nodes_have(both: Bench, parameters: dict[str, str]) -> None:
    """No room here, so the scheduler looks elsewhere; and so that it does when it has guessed."""
    answer = both.driver.controller.GetCapacity(requests.get_capacity(parameters=parameters))
    assert answer.available_capacity == 0
    assert answer.maximum_volume_size.value == 0

    fs_type = parameters.get(requests.FS_TYPE, "")
    with refused(Code.RESOURCE_EXHAUSTED, parameters["pool"], "fast, slow", "node that has it"):
        both.create(size=GIB // 2, parameters=parameters, capability=filesystem(fs_type))


def test_a_name_is_taken_in_every_pool(both: Bench) -> None:
    name = both.name()
    volume = both.create(name, parameters=FAST)

    assert both.create(name) == volume  # a class that names none takes any
    with refused(Code.ALREADY_EXISTS, name, "'fast'", "'slow'"):
        both.create(name, parameters=SLOW)


def test_the_room_of_one_pool_is_not_that_of_the_other(both: Bench) -> None:
    fast, slow = available(both, FAST), available(both, SLOW)
    assert abs(available(both) - fast) < MIB

    both.create(size=256 * MIB, parameters=SLOW)

    assert abs(available(both, FAST) - fast) < MIB
    assert available(both, SLOW) < slow - 120 * MIB


def test_what_is_reserved_is_not_given_out(both: Bench) -> None:
    """Of 1 GiB, xfs keeps about 80 MiB for itself, and 256 MiB are reserved."""
    assert 600 * MIB < available(both, FAST) <= 768 * MIB
    with refused(Code.RESOURCE_EXHAUSTED, str(800 * MIB)):
        both.create(size=800 * MIB, capability=raw_block(), parameters=FAST)


def test_a_ratio_of_two_promises_more_than_there_is(both: Bench) -> None:
    """What one volume alone can have is still bounded by the room there is."""
    assert GIB < available(both, SLOW) < 2 * GIB
    with refused(Code.OUT_OF_RANGE, str(3 * GIB)):
        both.create(size=3 * GIB, parameters=SLOW, capability=raw_block())

    for size in (GIB, GIB, 512 * MIB):
        both.create(size=size, parameters=SLOW, capability=raw_block())

    with refused(Code.RESOURCE_EXHAUSTED, str(GIB)):
        both.create(size=GIB, parameters=SLOW, capability=raw_block())


def test_copies_stay_in_the_pool_of_their_source(both: Bench, pools: tuple[Path, Path]) -> None:
    volume_id = both.create(parameters=SLOW).volume_id
    with both.used(volume_id) as target:
        write_synced(target / "file", b"data")
    snapshot_id = both.snapshot(volume_id).snapshot_id
    # On ext4 it is copied in the background, and until then nothing can be made of it.
    repeat_while_aborted(lambda: both.create(source=from_snapshot(snapshot_id)))

    for source in (from_volume(volume_id), from_snapshot(snapshot_id)):
        with refused(Code.INVALID_ARGUMENT, "'slow'", "'fast'"):
            both.create(parameters=FAST, source=source)
        both.create(parameters=SLOW, source=source)
        both.create(source=source)

    assert entries(pools[1]) == 6


def test_a_copy_cannot_go_to_a_pool_of_another_node(both: Bench) -> None:
    """The source is here and nowhere else: no other node could help."""
    volume_id = both.create(parameters=SLOW).volume_id

    with refused(Code.INVALID_ARGUMENT, "'slow'", "'tape'"):
        both.create(parameters={"pool": "tape"}, source=from_volume(volume_id))


def test_each_pool_has_conditions_of_its_own(both: Bench, pools: tuple[Path, Path]) -> None:
    fast_id = both.create(parameters=FAST).volume_id
    slow_id = both.create(parameters=SLOW).volume_id

    def told(volume_id: str) -> str:
        request = requests.get_volume(volume_id)
        status = both.driver.controller.ControllerGetVolume(request).status
        return status.volume_condition.message if status.volume_condition.abnormal else ""

    taken = pools[1] / "somebody-elses"
    free = os.statvfs(pools[1])
    try:
        run("fallocate", "--length", str(free.f_bavail * free.f_frsize - 10 * MIB), str(taken))
        wait_until(lambda: "pool 'slow' is nearly full" in told(slow_id), "that it is told")
        assert not told(fast_id)
        assert available(both, SLOW) == 0
        assert available(both, FAST) > 500 * MIB
        with refused(Code.RESOURCE_EXHAUSTED):
            both.create(parameters=SLOW)
        both.create(parameters=FAST)
    finally:
        taken.unlink(missing_ok=True)
    wait_until(lambda: not told(slow_id), "that all is well again")


def test_a_group_lies_in_one_pool(both: Bench) -> None:
    volumes = [both.create(parameters=parameters).volume_id for parameters in (FAST, SLOW)]

    with refused(Code.INVALID_ARGUMENT, "one pool"):
        both.group(*volumes)


def test_lists_run_through_all_pools(both: Bench) -> None:
    made = [both.create(parameters=parameters) for parameters in (FAST, SLOW, FAST, SLOW)]
    found: list[pb.Volume] = []
    token = ""

    while not found or token:
        answer = both.driver.controller.ListVolumes(requests.list_volumes(token, 1))
        found += [entry.volume for entry in answer.entries]
        token = answer.next_token

    assert found == made
