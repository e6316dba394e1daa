"""ValidateVolumeCapabilities: yes with everything echoed, or no with the reason."""

import pytest

from csi.v1 import csi_pb2 as pb
from tests.contract import requests
from tests.contract.bench import Bench
from tests.contract.refusals import Code, refused
from tests.contract.requests import (
    UNKNOWN_VOLUME,
    Mode,
    filesystem,
    raw_block,
)

pytestmark = pytest.mark.kernel


def ask(
    bench: Bench, request: pb.ValidateVolumeCapabilitiesRequest
) -> pb.ValidateVolumeCapabilitiesResponse:
    return bench.driver.controller.ValidateVolumeCapabilities(request)


def test_what_a_volume_can_do_is_confirmed_and_echoed(bench: Bench) -> None:
    volume = bench.create(parameters={"kind": "image"})
    modes = (requests.MULTI_WRITER, requests.SINGLE_WRITER, requests.READER, requests.OLD_WRITER)
    capabilities = [filesystem(mode=mode, flags=["noatime"]) for mode in modes]
    context = {**volume.volume_context, "storage.kubernetes.io/csiProvisionerIdentity": "1-2"}
    parameters = {"kind": "image", "csi.storage.k8s.io/fstype": "ext4"}

    answer = ask(
        bench,
        requests.validate(volume.volume_id, capabilities, context=context, parameters=parameters),
    )

    assert answer.message == ""
    assert list(answer.confirmed.volume_capabilities) == capabilities
    assert dict(answer.confirmed.volume_context) == context
    assert dict(answer.confirmed.parameters) == parameters


def _future_mode() -> pb.VolumeCapability:
    return filesystem(mode=Mode.MULTI_NODE_MULTI_WRITER)


@pytest.mark.parametrize(
    ("capability", "reason"),
    [
        (raw_block(), "block"),
        (filesystem("xfs"), "xfs"),
        (filesystem("zfs"), "zfs"),
        (filesystem(flags=["suid"]), "suid"),
        (filesystem(flags=["allocsize=64k"]), "allocsize"),
        (filesystem(mode=Mode.MULTI_NODE_READER_ONLY), "MULTI_NODE_READER_ONLY"),
        (filesystem(mode=Mode.MULTI_NODE_SINGLE_WRITER), "MULTI_NODE_SINGLE_WRITER"),
        (filesystem(mode=Mode.MULTI_NODE_MULTI_WRITER), "MULTI_NODE_MULTI_WRITER"),
    ],
    ids=["block", "xfs", "zfs", "suid", "allocsize", "mn-reader", "mn-single", "mn-multi"],
)
def test_what_it_cannot_do_is_answered_with_the_reason(
    bench: Bench, capability: pb.VolumeCapability, reason: str
) -> None:
    volume_id = bench.create().volume_id

    answer = ask(bench, requests.validate(volume_id, [filesystem(), capability]))

    assert not answer.HasField("confirmed")
    assert reason in answer.message
    assert len(answer.message.encode()) <= 128


def test_a_block_volume_is_no_filesystem(bench: Bench) -> None:
    volume_id = bench.create(capability=raw_block()).volume_id

    assert ask(bench, requests.validate(volume_id, [raw_block()])).HasField("confirmed")
    answer = ask(bench, requests.validate(volume_id, [filesystem()]))

    assert not answer.HasField("confirmed")
    assert "filesystem" in answer.message


def test_a_directory_is_no_block_device(btrfs_bench: Bench) -> None:
    volume_id = btrfs_bench.create(
        capability=filesystem(""), parameters={"kind": "directory"}
    ).volume_id

    answer = ask(btrfs_bench, requests.validate(volume_id, [raw_block()]))

    assert not answer.HasField("confirmed")
    assert "directory" in answer.message


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"kind": "directory"}, "directory"),
        ({"speed": "high"}, "speed"),
        ({"allocation": "thick"}, "allocation"),
        ({"pool": "another"}, "pool"),
    ],
    ids=["kind", "unknown", "allocation", "pool"],
)
def test_parameters_that_it_was_not_made_with_are_not_confirmed(
    bench: Bench, parameters: dict[str, str], reason: str
) -> None:
    volume_id = bench.create().volume_id

    answer = ask(bench, requests.validate(volume_id, parameters=parameters))

    assert not answer.HasField("confirmed")
    assert reason in answer.message


def test_mutable_parameters_that_there_are_none_of_are_not_confirmed(bench: Bench) -> None:
    request = requests.validate(bench.create().volume_id)
    request.mutable_parameters["iops"] = "100"

    answer = ask(bench, request)

    assert not answer.HasField("confirmed")
    assert "iops" in answer.message


def test_a_context_of_another_kind_is_not_confirmed(bench: Bench) -> None:
    volume_id = bench.create().volume_id

    answer = ask(bench, requests.validate(volume_id, context={"kind": "directory"}))

    assert not answer.HasField("confirmed")
    assert "kind" in answer.message


def test_an_unknown_volume(bench: Bench) -> None:
    with refused(Code.NOT_FOUND, UNKNOWN_VOLUME):
        ask(bench, requests.validate(UNKNOWN_VOLUME))


def test_an_unknown_volume_is_not_found_even_when_the_question_makes_no_sense(
    bench: Bench,
) -> None:
    with refused(Code.NOT_FOUND, UNKNOWN_VOLUME):
        ask(bench, requests.validate(UNKNOWN_VOLUME, [_future_mode()]))


def test_required_fields_come_before_the_look_up(bench: Bench) -> None:
    with refused(Code.INVALID_ARGUMENT, "volume_id"):
        ask(bench, requests.validate(""))
    with refused(Code.INVALID_ARGUMENT, "volume_capabilities"):
        ask(bench, requests.validate(UNKNOWN_VOLUME, []))
    with refused(Code.INVALID_ARGUMENT, "volume_capabilities[0]"):
        ask(bench, requests.validate(UNKNOWN_VOLUME, [pb.VolumeCapability()]))
