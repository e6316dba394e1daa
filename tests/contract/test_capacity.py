"""GetCapacity: what can still be promised, for which parameters and where."""

import subprocess
import time
from collections.abc import Callable, Mapping

import pytest

from csi.v1 import csi_pb2 as pb
from tests.contract import requests
from tests.contract.bench import Bench, wait_until, write_synced
from tests.contract.refusals import Code, refused
from tests.contract.requests import (
    FS_TYPE,
    GIB,
    MIB,
    MULTI_WRITER,
    Mode,
    filesystem,
    on_node,
    raw_block,
)

pytestmark = pytest.mark.kernel

SECTOR = 4096
SLACK = 2 * MIB
"""What records, and a filesystem that writes on its own, may take besides."""


def ask(
    bench: Bench,
    parameters: Mapping[str, str] | None = None,
    topology: pb.Topology | None = None,
    capability: pb.VolumeCapability | None = None,
) -> pb.GetCapacityResponse:
    return bench.driver.controller.GetCapacity(
        requests.get_capacity(
            parameters=parameters,
            topology=topology,
            capabilities=[capability] if capability else [],
        )
    )


def available(bench: Bench) -> int:
    return ask(bench).available_capacity


@pytest.fixture(autouse=True)
def settled(request: pytest.FixtureRequest) -> None:
    """Begins when what earlier tests have deleted is free, so that figures stand still."""
    name = next(name for name in request.fixturenames if name.endswith("bench"))
    bench: Bench = request.getfixturevalue(name)
    wait_until(lambda: not list((bench.pool / "trash").iterdir()), "the trash to be emptied")
    subprocess.run(["sync", "--file-system", str(bench.pool)], check=True)
    wait_until(lambda: available(bench) == _later(available, bench), "the figures to stand still")


class TestWhere:
    """accessible_topology: this node has the pool, and no other one does."""

    def test_here_and_anywhere_are_the_same(self, bench: Bench) -> None:
        anywhere = ask(bench)

        assert anywhere.available_capacity > 18 * GIB
        assert ask(bench, topology=on_node()) == anywhere
        assert ask(bench, topology=pb.Topology()) == anywhere

    def test_elsewhere_there_is_nothing(self, bench: Bench) -> None:
        rack = pb.Topology(segments={**on_node().segments, "local-path.csi.dev/rack": "r1"})

        for place in (on_node("node-2"), rack):
            answer = ask(bench, topology=place)
            assert answer.available_capacity == 0
            assert answer.maximum_volume_size.value == 0


class TestFor:
    """Parameters and capabilities: as the provisioner sends them, unstripped."""

    @pytest.mark.parametrize("fs_type", ["ext4", "xfs", "btrfs"])
    def test_the_least_size_is_that_of_the_filesystem(self, bench: Bench, fs_type: str) -> None:
        parameters = {FS_TYPE: fs_type, "kind": "image", "csi.storage.k8s.io/pv/name": "x"}

        answer = ask(bench, parameters)

        assert answer.HasField("minimum_volume_size")
        least = answer.minimum_volume_size.value
        _expect_about(answer.available_capacity, available(bench))
        made = bench.create(size=least, limit=least, capability=filesystem(fs_type))
        assert made.capacity_bytes == least
        with refused(Code.OUT_OF_RANGE, str(least)):
            bench.create(size=1, limit=least - 1, capability=filesystem(fs_type))

    def test_a_directory_that_cannot_be_held_to_its_size_has_no_room(self, bench: Bench) -> None:
        assert ask(bench, {"kind": "directory"}).available_capacity == 0
        waived = ask(bench, {"kind": "directory", "enforceSize": "false"})
        assert waived.available_capacity > 0

    def test_a_directory_on_btrfs_has_the_room_of_the_pool(self, btrfs_bench: Bench) -> None:
        answer = ask(btrfs_bench, {"kind": "directory"})

        assert answer.available_capacity == available(btrfs_bench) > 0
        assert answer.minimum_volume_size.value == SECTOR

    @pytest.mark.parametrize(
        ("capability", "some"),
        [
            (filesystem(mode=MULTI_WRITER), True),
            (raw_block(), True),
            (filesystem(mode=Mode.MULTI_NODE_MULTI_WRITER), False),
        ],
        ids=["filesystem", "block", "several-nodes"],
    )
    def test_capabilities_that_cannot_be_had_have_no_room(
        self, bench: Bench, capability: pb.VolumeCapability, some: bool
    ) -> None:
        assert (ask(bench, capability=capability).available_capacity > 0) is some

    @pytest.mark.parametrize(
        "parameters", [{"knd": "image"}, {"kind": "lvm"}, {FS_TYPE: "ntfs"}], ids=str
    )
    def test_wrong_parameters_are_left_to_the_create_that_names_them(
        self, bench: Bench, parameters: Mapping[str, str]
    ) -> None:
        """Without capacity no claim of such a class would ever get as far as that error."""
        assert ask(bench, parameters).available_capacity == ask(bench).available_capacity

    def test_a_pool_that_this_node_does_not_have_has_no_room(self, bench: Bench) -> None:
        assert ask(bench, {"pool": "fast"}).available_capacity == 0

    def test_an_unknown_filesystem_of_a_capability_is_refused(self, bench: Bench) -> None:
        with refused(Code.INVALID_ARGUMENT, "'ntfs'", "ext4"):
            ask(bench, capability=filesystem("ntfs"))


class TestHowMuch:
    """What is promised is gone, and comes back."""

    def test_a_volume_takes_its_whole_size_though_it_is_sparse(self, bench: Bench) -> None:
        before = available(bench)

        volume_id = bench.create(size=4 * GIB).volume_id

        _expect_about(available(bench), before - 4 * GIB)
        bench.delete(volume_id)
        wait_until(lambda: available(bench) >= before - SLACK, "the room to come back")

    def test_growth_takes_the_difference(self, bench: Bench) -> None:
        volume_id = bench.create(size=GIB).volume_id
        before = available(bench)

        bench.driver.controller.ControllerExpandVolume(
            requests.controller_expand(volume_id, 3 * GIB)
        )

        _expect_about(available(bench), before - 2 * GIB)

    @pytest.mark.parametrize("allocation", ["thin", "thick"])
    def test_what_is_written_to_a_volume_is_counted_once(
        self, bench: Bench, allocation: str
    ) -> None:
        volume_id = bench.create(size=256 * MIB, parameters={"allocation": allocation}).volume_id
        before = available(bench)

        with bench.used(volume_id) as target:
            write_synced(target / "file", b"\1" * (96 * MIB))
            _expect_about(available(bench), before)
        _expect_about(available(bench), before)

    def test_a_snapshot_takes_what_it_may_come_to_hold_alone(self, bench: Bench) -> None:
        volume_id = bench.create(size=256 * MIB).volume_id
        with bench.used(volume_id) as target:
            write_synced(target / "file", b"\1" * (96 * MIB))
        before = available(bench)

        snapshot_id = bench.snapshot(volume_id).snapshot_id

        assert before - 130 * MIB < available(bench) <= before - 96 * MIB
        bench.delete_snapshot(snapshot_id)
        wait_until(lambda: available(bench) >= before - SLACK, "the room to come back")

    def test_what_others_write_to_the_pool_is_gone(self, bench: Bench) -> None:
        before = available(bench)
        foreign = bench.pool / "foreign"

        with foreign.open("wb") as file:
            file.write(b"\1" * (256 * MIB))
        _expect_about(available(bench), before - 256 * MIB)

        foreign.unlink()
        wait_until(lambda: available(bench) >= before - SLACK, "the room to come back")

    def test_the_figures_are_the_same_after_a_restart(self, bench: Bench) -> None:
        volume_id = bench.create(size=2 * GIB).volume_id
        with bench.used(volume_id) as target:
            write_synced(target / "file", b"\1" * (32 * MIB))
        bench.snapshot(volume_id)
        before = available(bench)

        bench.driver.restart()

        _expect_about(available(bench), before)

    def test_a_volume_in_use_is_counted_once_after_a_restart(self, bench: Bench) -> None:
        """What is written after the restart is credited too."""
        volume_id = bench.create(size=GIB).volume_id
        target = bench.use(volume_id)
        before = available(bench)
        bench.driver.restart()

        write_synced(target / "file", b"\1" * (96 * MIB))

        _expect_about(available(bench), before)

    def test_a_directory_takes_its_size_and_gives_it_back(self, btrfs_bench: Bench) -> None:
        before = available(btrfs_bench)
        capability, parameters = filesystem(""), {"kind": "directory"}
        volume_id = btrfs_bench.create(
            size=GIB, capability=capability, parameters=parameters
        ).volume_id
        _expect_about(available(btrfs_bench), before - GIB)

        with btrfs_bench.used(volume_id, capability) as target:
            write_synced(target / "file", b"\1" * (64 * MIB))
        # btrfs charges the directory when it commits; until then the bytes count twice.
        subprocess.run(["sync", "--file-system", str(btrfs_bench.pool)], check=True)
        _expect_about(available(btrfs_bench), before - GIB, slack=24 * MIB)

        btrfs_bench.delete(volume_id)
        wait_until(lambda: available(btrfs_bench) >= before - 24 * MIB, "the room to come back")


def _later(figure: Callable[[Bench], int], bench: Bench) -> int:
    time.sleep(0.05)
    return figure(bench)


def _expect_about(figure: int, expected: int, slack: int = SLACK) -> None:
    assert abs(figure - expected) <= slack, f"{figure} is {figure - expected} from {expected}"
