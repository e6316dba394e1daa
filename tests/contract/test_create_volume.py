"""CreateVolume: what is made, found again, and where."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from csi.linux import mounts
from csi.v1 import csi_pb2 as pb
from tests.contract import requests
from tests.contract.bench import Bench, write_synced
from tests.contract.refusals import Code, as_call, refused
from tests.contract.requests import (
    GIB,
    LEAST_BYTES,
    MIB,
    OLD_WRITER,
    READER,
    SINGLE_WRITER,
    filesystem,
    on_node,
    raw_block,
    required_topology,
)

pytestmark = pytest.mark.kernel

BTRFS_DIRECTORY = {"kind": "directory"}
PROVISIONER_KEYS = {
    "csi.storage.k8s.io/pvc/name": "data-web-0",
    "csi.storage.k8s.io/pvc/namespace": "shop",
    "csi.storage.k8s.io/pv/name": "pvc-0001",
}
INODE_TABLES_BYTES = {"ext4": 9 * MIB, "xfs": 80 * MIB, "btrfs": 48 * MIB}
"""What a filesystem of the least size keeps for itself, at most."""


def test_a_volume_is_of_the_size_asked_for_on_this_node(bench: Bench) -> None:
    volume = bench.create(size=96 * MIB)

    assert volume.capacity_bytes == 96 * MIB
    assert [dict(place.segments) for place in volume.accessible_topology] == [
        dict(on_node().segments)
    ]
    assert dict(volume.volume_context) == {"kind": "image"}
    assert not volume.HasField("content_source")
    assert 0 < len(volume.volume_id.encode()) <= 128


@pytest.mark.parametrize("fs_type", ["ext4", "xfs", "btrfs"])
def test_an_image_holds_the_filesystem_asked_for(bench: Bench, fs_type: str) -> None:
    capability = filesystem(fs_type)
    size = LEAST_BYTES[fs_type]
    volume = bench.create(size=size, capability=capability)

    with bench.used(volume.volume_id, capability) as target:
        mounted = [mount for mount in mounts.read_mounts() if mount.target == str(target)]
        status = os.statvfs(target)

    assert [mount.fs_type for mount in mounted] == [fs_type]
    total = status.f_blocks * status.f_frsize
    assert size - INODE_TABLES_BYTES[fs_type] <= total <= size


def test_a_raw_block_volume_has_exactly_the_size_asked_for(bench: Bench) -> None:
    volume = bench.create(size=33 * MIB, capability=raw_block())

    with bench.used(volume.volume_id, raw_block()) as target:
        device = os.open(target, os.O_RDWR)
        try:
            assert os.lseek(device, 0, os.SEEK_END) == 33 * MIB
        finally:
            os.close(device)


def test_a_directory_is_held_to_its_size(btrfs_bench: Bench) -> None:
    capability = filesystem("")
    volume = btrfs_bench.create(size=16 * MIB, capability=capability, parameters=BTRFS_DIRECTORY)
    assert dict(volume.volume_context) == {"kind": "directory"}
    assert volume.capacity_bytes == 16 * MIB

    with btrfs_bench.used(volume.volume_id, capability) as target:
        write_synced(target / "fits", os.urandom(8 * MIB))
        with pytest.raises(OSError, match="quota"):
            write_synced(target / "too-much", os.urandom(16 * MIB))


def test_a_directory_without_enforcement_can_be_had_on_any_pool(bench: Bench) -> None:
    capability = filesystem("")
    parameters = {"kind": "directory", "enforceSize": "false"}
    volume = bench.create(capability=capability, parameters=parameters)

    with bench.used(volume.volume_id, capability) as target:
        write_synced(target / "file", b"data")
        assert (target / "file").read_bytes() == b"data"


def test_thin_takes_little_and_thick_takes_all(bench: Bench) -> None:
    thin = bench.create(parameters={"allocation": "thin"})
    thick = bench.create(parameters={"allocation": "thick"})

    assert _allocated_bytes(bench, thin) < 8 * MIB
    assert _allocated_bytes(bench, thick) >= 64 * MIB


def test_without_a_size_the_default_is_made(bench: Bench) -> None:
    assert bench.create(size=0).capacity_bytes == GIB


def test_a_limit_alone_bounds_the_default(bench: Bench) -> None:
    assert bench.create(size=0, limit=100 * MIB).capacity_bytes == 100 * MIB


def test_an_odd_size_is_rounded_up_to_a_sector(bench: Bench) -> None:
    assert bench.create(size=64 * MIB + 1).capacity_bytes == 64 * MIB + 4096


def test_a_filesystem_gets_the_least_size_it_can_have(bench: Bench) -> None:
    volume = bench.create(size=MIB, capability=filesystem("xfs"))

    assert volume.capacity_bytes == 300 * MIB


def test_a_repeat_finds_the_volume(bench: Bench) -> None:
    request = requests.create_volume(bench.name(), limit=128 * MIB, parameters=PROVISIONER_KEYS)

    assert bench.send_create(request) == bench.send_create(request)


def test_a_repeat_may_ask_for_anything_that_the_volume_satisfies(bench: Bench) -> None:
    name = bench.name()
    made = bench.create(name, size=64 * MIB)
    others = [
        requests.create_volume(name, size=32 * MIB),
        requests.create_volume(name, size=32 * MIB, limit=64 * MIB),
        requests.create_volume(name, size=0),
        requests.create_volume(name, capabilities=[filesystem("", OLD_WRITER)]),
        requests.create_volume(
            name, capabilities=[filesystem(mode=m) for m in (SINGLE_WRITER, READER)]
        ),
        requests.create_volume(name, parameters={"csi.storage.k8s.io/pvc/name": "another"}),
        requests.create_volume(name, topology=required_topology(on_node())),
    ]

    for request in others:
        assert bench.send_create(request) == made


def test_creates_of_one_name_at_once_make_one_volume(bench: Bench) -> None:
    name = bench.name()

    def create(_: int) -> str:
        try:
            return bench.create(name).volume_id
        except grpc.RpcError as error:
            return as_call(error).code().name

    with ThreadPoolExecutor(8) as threads:
        answers = set(threads.map(create, range(8)))

    assert answers - {"ABORTED"} == {bench.create(name).volume_id}


def test_a_volume_made_again_under_its_name_has_another_id(bench: Bench) -> None:
    name = bench.name()
    first = bench.create(name)
    bench.delete(first.volume_id)
    second = bench.create(name)

    assert second.volume_id != first.volume_id
    bench.delete(first.volume_id)  # a late repeat of the first delete
    assert bench.create(name) == second
    with refused(Code.NOT_FOUND, first.volume_id):
        bench.driver.controller.ControllerGetVolume(requests.get_volume(first.volume_id))


@pytest.mark.parametrize(
    "name",
    [
        "n" * 128,
        "ü" * 64,
        "../../etc",
        "/absolute",
        ".",
        "with spaces\tand\nlines",
        "'; rm -rf / #",
        "%s%n{0}",
        "\u202eright to left",
    ],
    ids=ascii,
)
def test_any_allowed_name_makes_a_volume_inside_the_pool(bench: Bench, name: str) -> None:
    entries = _entries(bench)
    volume = bench.create(name)

    assert bench.create(name) == volume
    assert len(_entries(bench) - entries) == 1
    assert volume.volume_id.isascii()


def test_keys_that_the_provisioner_adds_are_accepted(bench: Bench) -> None:
    request = requests.create_volume(bench.name(), parameters=PROVISIONER_KEYS)
    request.mutable_parameters["csi.storage.k8s.io/pvc/name"] = "data-web-0"
    request.parameters["csi.storage.k8s.io/pv/name"] = "p" * 253

    assert bench.send_create(request).capacity_bytes == 64 * MIB


def test_several_modes_of_one_node_can_be_asked_for_together(bench: Bench) -> None:
    modes = [OLD_WRITER, SINGLE_WRITER, requests.MULTI_WRITER, READER]
    capabilities = [filesystem(mode=mode) for mode in modes]

    volume = bench.send_create(requests.create_volume(bench.name(), capabilities=capabilities))

    answer = bench.driver.controller.ValidateVolumeCapabilities(
        requests.validate(volume.volume_id, capabilities)
    )
    assert list(answer.confirmed.volume_capabilities) == capabilities


class TestTopology:
    """accessibility_requirements: this node is the only place there is."""

    def test_this_node_among_others_will_do(self, bench: Bench) -> None:
        topology = required_topology(on_node("elsewhere"), on_node())

        volume = bench.create(topology=topology)

        assert volume.accessible_topology[0] == on_node()

    def test_a_preference_for_another_place_is_no_requirement(self, bench: Bench) -> None:
        topology = pb.TopologyRequirement(preferred=[on_node("elsewhere")])

        assert bench.create(topology=topology).accessible_topology[0] == on_node()

    def test_keys_compare_without_regard_to_case(self, bench: Bench) -> None:
        place = pb.Topology(segments={requests.TOPOLOGY_KEY.upper(): "node-1"})

        assert bench.create(topology=required_topology(place)).volume_id

    def test_another_place_alone_has_no_room(self, bench: Bench) -> None:
        topology = required_topology(on_node("elsewhere"))

        with refused(Code.RESOURCE_EXHAUSTED, requests.TOPOLOGY_KEY, "node-1"):
            bench.create(topology=topology)

    def test_a_segment_more_than_this_node_has_is_another_place(self, bench: Bench) -> None:
        place = pb.Topology(segments={**on_node().segments, "local-path.csi.dev/rack": "r1"})

        with refused(Code.RESOURCE_EXHAUSTED, "topology"):
            bench.create(topology=required_topology(place))


def _entries(bench: Bench) -> set[Path]:
    return set((bench.pool / "volumes").iterdir())


def _allocated_bytes(bench: Bench, volume: pb.Volume) -> int:
    return (bench.entry(volume.volume_id) / "disk.img").stat().st_blocks * 512
