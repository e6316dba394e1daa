"""The limits of strings, maps, paths and names, for every field of every request."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from csi.errors import InvalidRequest
from csi.rpc import limits
from csi.v1 import csi_pb2

PATHS = {"target_path", "staging_target_path", "volume_path"}


def request_types() -> Iterator[type[Message]]:
    for service in csi_pb2.DESCRIPTOR.services_by_name.values():
        for method in service.methods:
            yield getattr(csi_pb2, method.input_type.name)


def string_fields() -> Iterator[tuple[type[Message], str]]:
    for type_ in request_types():
        for field in type_.DESCRIPTOR.fields:
            if field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated:
                yield type_, field.name


def map_fields() -> Iterator[tuple[type[Message], str]]:
    for type_ in request_types():
        for field in type_.DESCRIPTOR.fields:
            if field.message_type is not None and field.message_type.GetOptions().map_entry:
                yield type_, field.name


def limit_of(field: str) -> int:
    if field in PATHS:
        return 4095
    return 256 if field == "node_id" else 128


def problem(message: Message) -> str:
    try:
        limits.check(message)
    except InvalidRequest as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("type_", "field"), list(string_fields()))
def test_every_string_has_its_limit(type_: type[Message], field: str) -> None:
    limit = limit_of(field)
    for text in ("x" * limit, "é" * (limit // 2), "/" + "x" * (limit - 1)):
        assert problem(type_(**{field: text})) == ""
    for text in ("x" * (limit + 1), "é" * (limit // 2) + "xx", "\N{FIRE}" * limit):
        size = len(text.encode())
        expected = f"{field} has {size} bytes; at most {limit} are allowed"
        assert problem(type_(**{field: text})) == expected


@pytest.mark.parametrize(("type_", "field"), list(map_fields()))
def test_every_map_has_its_limit(type_: type[Message], field: str) -> None:
    assert problem(type_(**{field: {"k": "x" * 4095}})) == ""
    assert problem(type_(**{field: {"k" * 253: "x" * 253}})) == ""
    too_much = {f"key-{number:04}": "x" * 100 for number in range(40)}
    expected = f"{field} has 4320 bytes in all; at most 4096 are allowed"
    assert problem(type_(**{field: too_much})) == expected


def test_a_message_never_holds_the_value() -> None:
    secret = "hunter2" * 1000
    assert "hunter2" not in problem(csi_pb2.DeleteVolumeRequest(secrets={"k": secret}))
    assert "hunter2" not in problem(csi_pb2.DeleteVolumeRequest(volume_id=secret))


@pytest.mark.parametrize("field", sorted(PATHS))
def test_paths_have_no_nul(field: str) -> None:
    for type_, name in string_fields():
        if name == field:
            assert problem(type_(**{field: "/a\0b"})).startswith(f"{field} holds a NUL")


BANNED = [*range(0x09), 0x0B, 0x0C, *range(0x0E, 0x20), *range(0x7F, 0xA0)]
NAMED: list[Callable[..., Message]] = [
    csi_pb2.CreateVolumeRequest,
    csi_pb2.CreateSnapshotRequest,
    csi_pb2.CreateVolumeGroupSnapshotRequest,
]


@pytest.mark.parametrize("type_", NAMED)
def test_banned_characters(type_: Callable[..., Message]) -> None:
    for code in range(0x180):
        found = problem(type_(name=f"a{chr(code)}b"))
        if code in BANNED:
            assert f"name holds the control character U+{code:04X}" in found
        else:
            assert found == "", hex(code)


def capability(fs_type: str = "", mount_flags: Sequence[str] = ()) -> csi_pb2.VolumeCapability:
    mount = csi_pb2.VolumeCapability.MountVolume(fs_type=fs_type, mount_flags=mount_flags)
    return csi_pb2.VolumeCapability(mount=mount)


def test_mount_flags_count_together() -> None:
    flags = ["x" * 2048, "y" * 2048]
    assert (
        problem(csi_pb2.NodeStageVolumeRequest(volume_capability=capability(mount_flags=flags)))
        == ""
    )
    over = csi_pb2.NodeStageVolumeRequest(volume_capability=capability(mount_flags=[*flags, "z"]))
    assert problem(over) == (
        "volume_capability.mount.mount_flags has 4097 bytes in all; at most 4096 are allowed"
    )


def test_nested_fields_are_named_by_their_path() -> None:
    long = "x" * 129
    listed = csi_pb2.CreateVolumeRequest(
        volume_capabilities=[capability(), capability(fs_type=long)]
    )
    assert problem(listed).startswith("volume_capabilities[1].mount.fs_type has 129 bytes")
    source = csi_pb2.VolumeContentSource(
        snapshot=csi_pb2.VolumeContentSource.SnapshotSource(snapshot_id=long)
    )
    assert problem(csi_pb2.CreateVolumeRequest(volume_content_source=source)).startswith(
        "volume_content_source.snapshot.snapshot_id has 129 bytes"
    )
    group = csi_pb2.DeleteVolumeGroupSnapshotRequest(snapshot_ids=["x", long])
    assert problem(group).startswith("snapshot_ids[1] has 129 bytes")


@pytest.mark.parametrize(
    ("segments", "fine"),
    [
        ({"p" * 63 + "/" + "n" * 63: "v" * 63}, True),
        ({"name": ""}, True),
        ({"p" * 64 + "/n": "v"}, False),
        ({"p/" + "n" * 64: "v"}, False),
        ({"n" * 64: "v"}, False),
        ({"n": "v" * 64}, False),
    ],
)
def test_topologies(segments: dict[str, str], fine: bool) -> None:
    place = csi_pb2.Topology(segments=segments)
    requirement = csi_pb2.TopologyRequirement(requisite=[place])
    found = problem(csi_pb2.CreateVolumeRequest(accessibility_requirements=requirement))
    assert (found == "") is fine
    if not fine:
        assert found.startswith("accessibility_requirements.requisite[0].segments has a key or")


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=200))
def test_length_is_that_of_utf8(text: str) -> None:
    found = problem(csi_pb2.DeleteVolumeRequest(volume_id=text))
    assert (found == "") is (len(text.encode()) <= 128)


def test_an_empty_request_has_nothing_to_check() -> None:
    for type_ in request_types():
        assert problem(type_()) == ""
