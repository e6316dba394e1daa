"""The line that each call leaves in the log, and what must never be in it."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from google.protobuf.message import Message

from csi.errors import InvalidRequest, NotNow
from csi.observe.logs import JsonLines, TextLines
from csi.rpc import redaction
from csi.v1 import csi_pb2
from tests.unit.test_rpc_fake import Client, FakeDriver, captured_log, mount_capability, served

TOKENS = "csi.storage.k8s.io/serviceAccount.tokens"
SECRET = "correct horse battery staple"


class Running(NamedTuple):
    driver: FakeDriver
    client: Client


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    driver = FakeDriver()
    with served(driver, tmp_path) as client:
        yield Running(driver, client)


def fields(record: logging.LogRecord) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(JsonLines().format(record))
    for varying in ("ts", "logger", "duration_ms", "request"):
        line.pop(varying, None)
    return line


def test_a_call_leaves_one_line(running: Running) -> None:
    client = running.client
    with captured_log(logging.INFO) as records:
        client.controller.CreateVolume(
            csi_pb2.CreateVolumeRequest(name="pvc-1", volume_capabilities=[mount_capability()])
        )
        client.controller.ControllerPublishVolume(
            csi_pb2.ControllerPublishVolumeRequest(
                volume_id="vol-1", node_id="node-1", volume_capability=mount_capability()
            )
        )
        client.controller.CreateSnapshot(
            csi_pb2.CreateSnapshotRequest(name="snapshot-1", source_volume_id="vol-1")
        )
        client.group.CreateVolumeGroupSnapshot(
            csi_pb2.CreateVolumeGroupSnapshotRequest(name="group-1", source_volume_ids=["vol-1"])
        )
        running.driver.script.error = NotNow("unstage it first")
        with pytest.raises(grpc.RpcError):
            client.controller.DeleteSnapshot(csi_pb2.DeleteSnapshotRequest(snapshot_id="snap-1"))
    ok = {"level": "info", "code": "OK"}
    assert [fields(record) for record in records] == [
        {
            **ok,
            "msg": "CreateVolume OK",
            "method": "CreateVolume",
            "volume_name": "pvc-1",
            "volume_id": "vol-1",
        },
        {
            **ok,
            "msg": "ControllerPublishVolume OK",
            "method": "ControllerPublishVolume",
            "volume_id": "vol-1",
            "node_id": "node-1",
        },
        {
            **ok,
            "msg": "CreateSnapshot OK",
            "method": "CreateSnapshot",
            "source_volume_id": "vol-1",
            "snapshot_name": "snapshot-1",
            "snapshot_id": "snap-1",
        },
        {
            **ok,
            "msg": "CreateVolumeGroupSnapshot OK",
            "method": "CreateVolumeGroupSnapshot",
            "group_snapshot_name": "group-1",
            "group_snapshot_id": "group-1",
        },
        {
            "level": "warning",
            "msg": "DeleteSnapshot FAILED_PRECONDITION",
            "method": "DeleteSnapshot",
            "snapshot_id": "snap-1",
            "code": "FAILED_PRECONDITION",
            "error": "unstage it first",
        },
    ]
    for record in records:
        assert vars(record)["duration_ms"] > 0
        assert "request" not in vars(record)


def test_the_request_is_logged_for_debugging(running: Running) -> None:
    request = csi_pb2.CreateVolumeRequest(
        name="pvc-1",
        capacity_range=csi_pb2.CapacityRange(required_bytes=5),
        volume_capabilities=[mount_capability(fs_type="xfs")],
        parameters={"kind": "image"},
        secrets={"password": SECRET},
    )
    request.volume_capabilities[0].mount.mount_flags.append("noatime")
    with captured_log() as records:
        running.client.controller.CreateVolume(request)
    assert vars(records[0])["request"] == {
        "name": "pvc-1",
        "capacity_range": {"required_bytes": 5},
        "volume_capabilities": [
            {
                "mount": {"fs_type": "xfs", "mount_flags": redaction.STRIPPED},
                "access_mode": {"mode": "SINGLE_NODE_WRITER"},
            }
        ],
        "parameters": {"kind": "image"},
        "secrets": redaction.STRIPPED,
    }


def test_what_is_shown_of_a_value_is_bounded() -> None:
    long = "x" * 100_000
    request = csi_pb2.CreateVolumeRequest(name=long, parameters={long: long})
    assert len(str(redaction.stripped(request))) < 1500
    assert len(redaction.identifiers(request)["volume_name"]) < 300


def test_an_access_mode_that_is_not_known_is_shown_as_its_number() -> None:
    request = csi_pb2.VolumeCapability.AccessMode.FromString(b"\x08\x63")
    assert redaction.stripped(request) == {"mode": 99}


# --- secrets ---------------------------------------------------------------------------------


class Carrier(NamedTuple):
    """A request with secrets in each place that may hold them."""

    service: str
    method: str
    request: Message
    secrets: list[str]


def carriers() -> Iterator[Carrier]:
    """Yields every request of the contract that may carry secrets, filled with them."""
    for service in csi_pb2.DESCRIPTOR.services_by_name.values():
        for method in service.methods:
            request: Message = getattr(csi_pb2, method.input_type.name)()
            secrets = list(fill(request))
            if secrets:
                yield Carrier(service.name, method.name, request, secrets)


def fill(message: Message) -> Iterator[str]:
    """Puts secrets where they may be, and something in every other field; yields the secrets."""
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.GetOptions().Extensions[csi_pb2.csi_secret]:
            for number, secret in enumerate((SECRET, '{"quoted": "pässword\\n"}')):
                value[f"{secret} key {number}"] = secret
                yield secret
        elif field.name == "volume_context":
            value[TOKENS] = '{"audience": {"token": "eyJhbGciOi"}}'
            yield value[TOKENS]
        elif field.name == "mount_flags":
            value.append('password=it\'s a "secret"\x07')
            yield "it's a"
        elif field.message_type is not None and field.message_type.GetOptions().map_entry:
            value["key"] = "value"
        elif field.message_type is not None and field.containing_oneof is None:
            yield from fill(value.add() if field.is_repeated else value)
        elif field.name == "mount":
            yield from fill(value)
        elif field.cpp_type == field.CPPTYPE_STRING and not field.is_repeated:
            setattr(message, field.name, "x")


CARRIERS = list(carriers())


def test_the_corpus_has_every_request_with_secrets() -> None:
    marked = {
        message.name
        for message in csi_pb2.DESCRIPTOR.message_types_by_name.values()
        for field in message.fields
        if field.GetOptions().Extensions[csi_pb2.csi_secret]
    }
    assert len(marked) > 15
    assert {type(carrier.request).DESCRIPTOR.name for carrier in CARRIERS} >= marked


@pytest.mark.parametrize("carrier", CARRIERS, ids=lambda carrier: carrier.method)
@pytest.mark.parametrize("outcome", ["answer", "refusal", "surprise"])
@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO])
def test_secrets_are_never_shown(
    running: Running, carrier: Carrier, outcome: str, level: int
) -> None:
    if outcome == "refusal":
        running.driver.script.error = InvalidRequest(f"not allowed: {carrier.secrets}")
    elif outcome == "surprise":
        running.driver.script.error = ValueError("\n".join(carrier.secrets))
    shown = io.StringIO()
    with captured_log(level) as records:
        try:
            running.client.raw(
                f"{carrier.service}/{carrier.method}", carrier.request.SerializeToString()
            )
        except grpc.RpcError as error:
            shown.write(error.details() or "")
    for formatter in (JsonLines(), TextLines()):
        shown.writelines(formatter.format(record) + "\n" for record in records)
    text = shown.getvalue()
    for secret in ("horse battery", "sword", "eyJhbGciOi", "it's a"):
        assert secret not in text
    if carrier.service != "SnapshotMetadata":
        assert len(records) == 1


def test_a_refused_mount_flag_is_named_without_its_value(running: Running) -> None:
    flag = "password=tr\"o'ub4dor"
    capability = mount_capability()
    capability.mount.mount_flags.append(flag)
    running.driver.script.error = InvalidRequest(f"mount flag {flag!r} is not allowed")
    with pytest.raises(grpc.RpcError) as caught:
        running.client.node.NodeStageVolume(
            csi_pb2.NodeStageVolumeRequest(
                volume_id="v", staging_target_path="/s", volume_capability=capability
            )
        )
    details = caught.value.details() or ""
    assert details == f"mount flag 'password={redaction.STRIPPED}' is not allowed"


def test_scrubbing_leaves_other_words_alone() -> None:
    request = csi_pb2.DeleteVolumeRequest(volume_id="vol-1", secrets={"a": "1", "b": ""})
    assert redaction.scrub("101 volumes", request) == "101 volumes"
