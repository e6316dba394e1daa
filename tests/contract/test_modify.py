"""ControllerModifyVolume, and mutable parameters at creation: what is kept and what is refused."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from csi.v1 import csi_pb2 as pb
from tests.contract import requests
from tests.contract.bench import Bench
from tests.contract.every_rpc import nothing_changes
from tests.contract.node_fixtures import UNKNOWN_VOLUME
from tests.contract.refusals import Code, refused
from tests.contract.requests import MIB

pytestmark = pytest.mark.kernel

ALL = {
    "readIOPS": "500",
    "writeIOPS": "250",
    "readBandwidth": "20Mi",
    "writeBandwidth": "10M",
}
DIRECTORY = {"kind": "directory"}


def request(
    name: str, limits: Mapping[str, str], parameters: Mapping[str, str] | None = None
) -> pb.CreateVolumeRequest:
    message = requests.create_volume(name, parameters=parameters)
    message.mutable_parameters.update(limits)
    return message


def modify(bench: Bench, volume_id: str, limits: Mapping[str, str]) -> None:
    bench.driver.controller.ControllerModifyVolume(requests.modify(volume_id, limits))


def recorded(bench: Bench, volume_id: str) -> dict[str, Any]:
    record = json.loads((bench.entry(volume_id) / "record.json").read_bytes())
    limits: dict[str, Any] = record.get("limits", {})
    return limits


def confirmed(bench: Bench, volume_id: str, limits: Mapping[str, str]) -> bool:
    """Whether the driver says that a volume has these limits."""
    message = requests.validate(volume_id)
    message.mutable_parameters.update(limits)
    return bench.driver.controller.ValidateVolumeCapabilities(message).HasField("confirmed")


def test_it_is_offered(bench: Bench) -> None:
    answer = bench.driver.controller.ControllerGetCapabilities(
        pb.ControllerGetCapabilitiesRequest()
    )
    rpc = pb.ControllerServiceCapability.RPC
    assert rpc.MODIFY_VOLUME in {one.rpc.type for one in answer.capabilities}


def test_what_is_named_changes_and_the_rest_keeps_its_value(bench: Bench) -> None:
    volume_id = bench.send_create(request(bench.name(), ALL)).volume_id
    assert recorded(bench, volume_id) == {
        "read_iops": 500,
        "write_iops": 250,
        "read_bandwidth_bytes": 20 * MIB,
        "write_bandwidth_bytes": 10_000_000,
    }

    modify(bench, volume_id, {"writeIOPS": "300", "readBandwidth": "max"})

    assert recorded(bench, volume_id) == {
        "read_iops": 500,
        "write_iops": 300,
        "write_bandwidth_bytes": 10_000_000,
    }


def test_repeats_and_nothing_at_all_are_fine(bench: Bench) -> None:
    volume_id = bench.create().volume_id
    for limits in (ALL, ALL, {}, {"csi.storage.k8s.io/pvc/name": "claim"}):
        modify(bench, volume_id, limits)
        assert confirmed(bench, volume_id, ALL)
    for _ in range(2):
        modify(bench, volume_id, dict.fromkeys(ALL, "0"))
        assert recorded(bench, volume_id) == {}


@pytest.mark.parametrize("how", ["stop_cleanly", "kill"])
def test_it_is_kept_over_a_restart(bench: Bench, how: str) -> None:
    volume_id = bench.create().volume_id
    modify(bench, volume_id, ALL)
    getattr(bench.driver, how)()
    bench.driver.start()
    assert confirmed(bench, volume_id, ALL)
    assert not confirmed(bench, volume_id, {"readIOPS": "501"})
    modify(bench, volume_id, {"readIOPS": "501"})
    assert confirmed(bench, volume_id, ALL | {"readIOPS": "501"})


@pytest.mark.parametrize(
    ("limits", "names"),
    [
        ({"readIOPS": "100", "iops": "100"}, ("mutable parameter", "'iops'", "readIOPS")),
        ({"readIOPS": "100", "writeIOPS": "many"}, ("writeIOPS", "'many'")),
        ({"readIOPS": "100", "readBandwidth": "1"}, ("readBandwidth", "64Ki")),
        ({"readIOPS": "100", "kind": "directory"}, ("'kind'",)),
        ({"readIOPS": "100", "pool": "other"}, ("'pool'",)),
    ],
)
def test_of_a_refused_change_nothing_is_applied(
    bench: Bench, limits: Mapping[str, str], names: tuple[str, ...]
) -> None:
    volume_id = bench.create().volume_id
    with nothing_changes(bench.pool):
        with refused(Code.INVALID_ARGUMENT, *names):
            modify(bench, volume_id, limits)
        with refused(Code.INVALID_ARGUMENT, *names):
            bench.send_create(request("refused", limits))
    assert recorded(bench, volume_id) == {}


def test_an_unknown_volume_is_not_found(bench: Bench) -> None:
    with refused(Code.NOT_FOUND, UNKNOWN_VOLUME):
        modify(bench, UNKNOWN_VOLUME, ALL)


def test_the_shape_is_judged_before_the_volume_is_looked_for(bench: Bench) -> None:
    with refused(Code.INVALID_ARGUMENT, "'iops'"):
        modify(bench, UNKNOWN_VOLUME, {"iops": "100"})


def test_a_directory_takes_no_limit(btrfs_bench: Bench) -> None:
    bench = btrfs_bench
    volume_id = bench.create(parameters=DIRECTORY).volume_id
    with nothing_changes(bench.pool):
        with refused(Code.INVALID_ARGUMENT, "directory", "kind: image"):
            modify(bench, volume_id, {"readIOPS": "max", "writeIOPS": "100"})
        with refused(Code.INVALID_ARGUMENT, "directory", "kind: image"):
            bench.send_create(request("refused", {"readBandwidth": "1Mi"}, DIRECTORY))


def test_no_limit_is_what_a_directory_has(btrfs_bench: Bench) -> None:
    bench = btrfs_bench
    unlimited = dict.fromkeys(ALL, "max")
    volume = bench.send_create(request(bench.name(), unlimited, DIRECTORY))
    modify(bench, volume.volume_id, unlimited)
    assert recorded(bench, volume.volume_id) == {}


class TestARepeatedCreate:
    def test_with_the_same_or_fewer_finds_it(self, bench: Bench) -> None:
        name = bench.name()
        volume_id = bench.send_create(request(name, ALL)).volume_id
        for limits in (ALL, {"readIOPS": "500"}, {"readBandwidth": "20971520"}, {}):
            assert bench.send_create(request(name, limits)).volume_id == volume_id

    @pytest.mark.parametrize(
        "limits",
        [{"readIOPS": "501"}, ALL | {"writeBandwidth": "max"}],
    )
    def test_with_others_is_another_volume(self, bench: Bench, limits: Mapping[str, str]) -> None:
        name = bench.name()
        volume_id = bench.send_create(request(name, ALL)).volume_id
        with refused(Code.ALREADY_EXISTS, name, "mutable parameters"):
            bench.send_create(request(name, limits))
        assert confirmed(bench, volume_id, ALL)

    def test_is_compared_with_what_the_volume_has_now(self, bench: Bench) -> None:
        name = bench.name()
        volume_id = bench.send_create(request(name, ALL)).volume_id
        modify(bench, volume_id, {"readIOPS": "max"})
        with refused(Code.ALREADY_EXISTS, "mutable parameters"):
            bench.send_create(request(name, ALL))
        now = ALL | {"readIOPS": "0"}
        assert bench.send_create(request(name, now)).volume_id == volume_id


def test_growth_and_attaching_keep_the_limits(bench: Bench) -> None:
    volume_id = bench.send_create(request(bench.name(), ALL)).volume_id
    bench.driver.controller.ControllerExpandVolume(requests.controller_expand(volume_id, 96 * MIB))
    bench.driver.controller.ControllerPublishVolume(requests.controller_publish(volume_id))
    modify(bench, volume_id, {"writeIOPS": "300"})
    bench.driver.controller.ControllerUnpublishVolume(requests.controller_unpublish(volume_id))
    assert confirmed(bench, volume_id, ALL | {"writeIOPS": "300"})
    found = bench.driver.controller.ControllerGetVolume(requests.get_volume(volume_id))
    assert found.volume.capacity_bytes == 96 * MIB
