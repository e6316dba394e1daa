"""CreateVolume refused for what there is: sources that do not fit, names that are taken."""

from collections.abc import Mapping

import pytest

from csi.v1 import csi_pb2 as pb
from tests.contract.bench import Bench
from tests.contract.refusals import Code, refused
from tests.contract.requests import (
    MIB,
    UNKNOWN_SNAPSHOT,
    UNKNOWN_VOLUME,
    filesystem,
    from_snapshot,
    from_volume,
    on_node,
    raw_block,
    required_topology,
)

pytestmark = pytest.mark.kernel


class TestSources:
    """volume_content_source: something that exists and fits."""

    def test_neither_snapshot_nor_volume(self, bench: Bench) -> None:
        with refused(Code.INVALID_ARGUMENT, "volume_content_source"):
            bench.create(source=pb.VolumeContentSource())

    @pytest.mark.parametrize(
        ("source", "field"),
        [(from_volume(""), "volume_id"), (from_snapshot(""), "snapshot_id")],
        ids=["volume", "snapshot"],
    )
    def test_without_id(self, bench: Bench, source: pb.VolumeContentSource, field: str) -> None:
        with refused(Code.INVALID_ARGUMENT, "volume_content_source", field):
            bench.create(source=source)

    def test_an_id_over_the_limit(self, bench: Bench) -> None:
        with refused(Code.INVALID_ARGUMENT, "volume_content_source", "volume_id", "128"):
            bench.create(source=from_volume("v" * 129))

    def test_in_a_pool_of_another_node(self, bench: Bench) -> None:
        # The one code by which the scheduler takes the claim to another node.
        for source in (from_volume(UNKNOWN_VOLUME), from_snapshot(UNKNOWN_SNAPSHOT)):
            with refused(Code.RESOURCE_EXHAUSTED, "node"):
                bench.create(source=source)

    def test_deleted(self, bench: Bench) -> None:
        volume_id = bench.create().volume_id
        snapshot_id = bench.snapshot(volume_id).snapshot_id
        bench.delete_snapshot(snapshot_id)
        bench.delete(volume_id)

        for source in (from_volume(volume_id), from_snapshot(snapshot_id)):
            with refused(Code.NOT_FOUND):
                bench.create(source=source)

    @pytest.mark.parametrize("source_id", ["../../etc", "vol-", "a\0b"], ids=ascii)
    def test_unknown(self, bench: Bench, source_id: str) -> None:
        for source in (from_volume(source_id), from_snapshot(source_id)):
            with refused(Code.NOT_FOUND, repr(source_id)):
                bench.create(source=source)

    def test_a_volume_is_no_snapshot_and_the_other_way_round(self, bench: Bench) -> None:
        volume_id = bench.create().volume_id
        snapshot_id = bench.snapshot(volume_id).snapshot_id

        with refused(Code.NOT_FOUND, volume_id):
            bench.create(source=from_snapshot(volume_id))
        with refused(Code.NOT_FOUND, snapshot_id):
            bench.create(source=from_volume(snapshot_id))

    def test_the_volume_itself(self, bench: Bench) -> None:
        name = bench.name()
        volume_id = bench.create(name).volume_id

        with refused(Code.ALREADY_EXISTS, name, "source"):
            bench.create(name, source=from_volume(volume_id))

    def test_a_limit_below_its_size(self, bench: Bench) -> None:
        volume_id = bench.create(size=96 * MIB).volume_id

        with refused(Code.OUT_OF_RANGE, str(64 * MIB), str(96 * MIB)):
            bench.create(size=32 * MIB, limit=64 * MIB, source=from_volume(volume_id))

    def test_another_filesystem_than_it_holds(self, bench: Bench) -> None:
        volume_id = bench.create().volume_id

        with refused(Code.INVALID_ARGUMENT, volume_id, "ext4", "xfs"):
            bench.create(
                size=300 * MIB, capability=filesystem("xfs"), source=from_volume(volume_id)
            )

    def test_another_kind_than_it_is(self, btrfs_bench: Bench) -> None:
        volume_id = btrfs_bench.create().volume_id

        with refused(Code.INVALID_ARGUMENT, volume_id, "image", "directory"):
            btrfs_bench.create(
                capability=filesystem(""),
                parameters={"kind": "directory"},
                source=from_volume(volume_id),
            )

    def test_a_filesystem_from_a_device_that_holds_none(self, bench: Bench) -> None:
        volume_id = bench.create(capability=raw_block()).volume_id

        with refused(Code.INVALID_ARGUMENT, volume_id, "no known filesystem"):
            bench.create(source=from_volume(volume_id))


class TestTheSameNameForSomethingElse:
    """ALREADY_EXISTS: the volume there is does not satisfy what is asked."""

    def test_larger_than_it_is(self, bench: Bench) -> None:
        name = bench.name()
        bench.create(name)

        with refused(Code.ALREADY_EXISTS, name, str(64 * MIB)):
            bench.create(name, size=65 * MIB)

    def test_smaller_than_it_is(self, bench: Bench) -> None:
        name = bench.name()
        bench.create(name)

        with refused(Code.ALREADY_EXISTS, name, str(64 * MIB)):
            bench.create(name, size=32 * MIB, limit=63 * MIB)

    @pytest.mark.parametrize(
        ("capability", "names"),
        [
            (raw_block(), ("filesystem", "block")),
            (filesystem("xfs"), ("ext4", "xfs")),
        ],
        ids=["block", "xfs"],
    )
    def test_with_other_capabilities(
        self, bench: Bench, capability: pb.VolumeCapability, names: tuple[str, ...]
    ) -> None:
        name = bench.name()
        bench.create(name)

        with refused(Code.ALREADY_EXISTS, name, *names):
            bench.create(name, size=32 * MIB, capability=capability)

    @pytest.mark.parametrize(
        "parameters",
        [{"allocation": "thick"}, {"kind": "directory", "enforceSize": "false"}],
        ids=str,
    )
    def test_with_other_parameters(self, bench: Bench, parameters: Mapping[str, str]) -> None:
        name = bench.name()
        bench.create(name)

        with refused(Code.ALREADY_EXISTS, name, "parameters"):
            bench.create(name, parameters=parameters, capability=filesystem(""))

    def test_in_another_topology(self, bench: Bench) -> None:
        name = bench.name()
        bench.create(name, topology=required_topology(on_node()))

        with refused(Code.ALREADY_EXISTS, name, "topology"):
            bench.create(name, topology=required_topology(on_node("elsewhere")))

    def test_from_a_source_or_from_another_one(self, bench: Bench) -> None:
        name = bench.name()
        first, second = bench.create().volume_id, bench.create().volume_id
        snapshot_id = bench.snapshot(first).snapshot_id
        bench.create(name, source=from_volume(first))

        for source in (None, from_volume(second), from_snapshot(snapshot_id)):
            with refused(Code.ALREADY_EXISTS, name, "source"):
                bench.create(name, source=source)
