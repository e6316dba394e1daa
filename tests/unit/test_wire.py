"""The generated descriptor is the published wire contract, no less and no more.

The published numbers are in tests/wire/csi-1.12.0.json. Both they and the descriptor are brought
into one form, flat facts for each definition ("volume_id.number" → "2"), and compared definition
by definition, so that a failure names what differs. Everything that the file says becomes a fact,
also what this module does not know: nothing in it is passed over in silence.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    ServiceDescriptorProto,
)
from google.protobuf.message import Message

from csi.v1 import csi_pb2

PUBLISHED_FILE = Path(__file__).parent.parent / "wire" / "csi-1.12.0.json"

Json = dict[str, Any]
Facts = dict[str, str]


@dataclass(frozen=True)
class Contract:
    """Facts by the name of what they are about, which is relative to the package."""

    file: Facts = field(default_factory=dict)
    extensions: dict[str, Facts] = field(default_factory=dict)
    services: dict[str, Facts] = field(default_factory=dict)
    messages: dict[str, Facts] = field(default_factory=dict)
    enums: dict[str, Facts] = field(default_factory=dict)


# What the published file says


class Published:
    """Reads the published file into a contract."""

    def __init__(self, document: Json) -> None:
        self.contract = Contract()
        self._options = {
            (extension["extends"], extension["number"]): name
            for name, extension in document["extensions"].items()
        }
        self._numbers = {
            name: extension["number"] for name, extension in document["extensions"].items()
        }
        # The file is named for its version, which no descriptor holds.
        assert document["spec_version"] in PUBLISHED_FILE.name
        for key, value in document.items():
            if key in {"extensions", "services", "messages", "enums"}:
                continue
            if key != "spec_version":
                self.contract.file[key] = render(value)
        for name, extension in document["extensions"].items():
            self.contract.extensions[name] = {k: render(v) for k, v in extension.items()}
        for name, service in document["services"].items():
            self._service(name, service)
        for name, message in document["messages"].items():
            self._message(name, message)
        for name, values in document["enums"].items():
            self._enum(name, values)

    def _option_names(self, kind: str, names: Iterable[str]) -> list[str]:
        """Name options by what they are set on.

        The file calls each alpha mark alpha_service, whatever it is set on: the marks share one
        number, and the options of a service are the last of them. On the wire there is only the
        number, and each kind of definition has an extension of its own for it.
        """
        return sorted(self._options[f"google.protobuf.{kind}", self._numbers[n]] for n in names)

    def _facts(self, prefix: str, kind: str, entries: Json, besides: set[str]) -> Facts:
        facts: Facts = {}
        for key, value in entries.items():
            if key == "options":
                for option in self._option_names(kind, value):
                    facts[f"{prefix}({option})"] = "true"
            elif key not in besides:
                facts[f"{prefix}{key}"] = render(value)
        return facts

    def _service(self, name: str, service: Json) -> None:
        facts = self._facts("", "ServiceOptions", service, besides={"methods"})
        for method_name, method in service["methods"].items():
            facts |= self._facts(f"{method_name}.", "MethodOptions", method, besides=set())
        self.contract.services[name] = facts

    def _message(self, name: str, message: Json) -> None:
        facts = self._facts("", "MessageOptions", message, besides={"fields", "messages", "enums"})
        for entry in message["fields"]:
            prefix = f"{entry['name']}."
            assert f"{prefix}number" not in facts, f"{name} has two fields {entry['name']}"
            facts |= self._facts(prefix, "FieldOptions", entry, besides={"name"})
        self.contract.messages[name] = facts
        for nested_name, nested in message.get("messages", {}).items():
            self._message(f"{name}.{nested_name}", nested)
        for nested_name, values in message.get("enums", {}).items():
            self._enum(f"{name}.{nested_name}", values)

    def _enum(self, name: str, values: Json) -> None:
        facts: Facts = {}
        for value_name, value in values.items():
            facts |= self._facts(f"{value_name}.", "EnumValueOptions", value, besides=set())
        self.contract.enums[name] = facts


# What the descriptor says


class Generated:
    """Reads a file's descriptor into a contract, in the form of the published file."""

    def __init__(self, file: FileDescriptorProto) -> None:
        self.contract = Contract()
        self.contract.file["package"] = render(file.package)
        self.contract.file.update(option_facts("", file.options))
        for extension in file.extension:
            self._extension(extension.name, extension)
        for service in file.service:
            self._service(service)
        for message in file.message_type:
            self._message(message.name, message)
        for enum in file.enum_type:
            self._enum(enum.name, enum)

    def _extension(self, name: str, extension: FieldDescriptorProto) -> None:
        facts = field_facts("", extension)
        facts["extends"] = render(extension.extendee.removeprefix("."))
        self.contract.extensions[name] = facts

    def _service(self, service: ServiceDescriptorProto) -> None:
        facts = option_facts("", service.options)
        for method in service.method:
            prefix = f"{method.name}."
            facts[f"{prefix}request"] = render(method.input_type.removeprefix("."))
            facts[f"{prefix}response"] = render(method.output_type.removeprefix("."))
            facts[f"{prefix}server_streaming"] = render(method.server_streaming)
            if method.client_streaming:  # The published file has no word for it: no call does.
                facts[f"{prefix}client_streaming"] = render(True)
            facts |= option_facts(prefix, method.options)
        self.contract.services[service.name] = facts

    def _message(self, name: str, message: DescriptorProto) -> None:
        facts = option_facts("", message.options)
        oneofs = [oneof.name for oneof in message.oneof_decl]
        for entry in message.field:
            prefix = f"{entry.name}."
            facts |= field_facts(prefix, entry)
            if entry.HasField("oneof_index"):
                facts[f"{prefix}oneof"] = render(oneofs[entry.oneof_index])
        self.contract.messages[name] = facts
        for extension in message.extension:
            self._extension(f"{name}.{extension.name}", extension)
        for nested in message.nested_type:
            self._message(f"{name}.{nested.name}", nested)
        for enum in message.enum_type:
            self._enum(f"{name}.{enum.name}", enum)

    def _enum(self, name: str, enum: EnumDescriptorProto) -> None:
        facts = option_facts("", enum.options)
        for value in enum.value:
            facts[f"{value.name}.number"] = render(value.number)
            facts |= option_facts(f"{value.name}.", value.options)
        self.contract.enums[name] = facts


def field_facts(prefix: str, entry: FieldDescriptorProto) -> Facts:
    kind = FieldDescriptorProto.Type.Name(entry.type).removeprefix("TYPE_").lower()
    facts = {
        f"{prefix}number": render(entry.number),
        f"{prefix}type": render(entry.type_name.removeprefix(".") or kind),
        **option_facts(prefix, entry.options),
    }
    if entry.label == FieldDescriptorProto.LABEL_REPEATED:
        facts[f"{prefix}repeated"] = render(True)
    if entry.label == FieldDescriptorProto.LABEL_REQUIRED:
        facts[f"{prefix}required"] = render(True)
    if entry.proto3_optional:
        facts[f"{prefix}optional"] = render(True)
    return facts


def option_facts(prefix: str, options: Message) -> Facts:
    return {
        # The published file writes maps as `map_entry` beside the options.
        f"{prefix}({option.name})" if option.is_extension else f"{prefix}{option.name}": render(v)
        for option, v in options.ListFields()
    }


# Comparing them


def render(value: object) -> str:
    return json.dumps(value)


def differences(published: Facts | None, generated: Facts | None) -> list[str]:
    if published is None:
        return ["generated, but not published"]
    if generated is None:
        return ["published, but not generated"]
    return [
        f"{fact}: published {published.get(fact, 'nothing')}, "
        f"generated {generated.get(fact, 'nothing')}"
        for fact in either(published, generated)
        if published.get(fact) != generated.get(fact)
    ]


def either(published: Mapping[str, object], generated: Mapping[str, object]) -> list[str]:
    return sorted(published.keys() | generated.keys())


def all_differences(published: Contract, generated: Contract) -> Iterator[str]:
    for line in differences(published.file, generated.file):
        yield f"file: {line}"
    for section in ("extensions", "services", "messages", "enums"):
        left: dict[str, Facts] = getattr(published, section)
        right: dict[str, Facts] = getattr(generated, section)
        for name in either(left, right):
            for line in differences(left.get(name), right.get(name)):
                yield f"{name}: {line}"


def read_published() -> Json:
    document: Json = json.loads(PUBLISHED_FILE.read_text(encoding="utf-8"))
    return document


def read_generated() -> FileDescriptorProto:
    file = FileDescriptorProto()
    csi_pb2.DESCRIPTOR.CopyToProto(file)
    return file


PUBLISHED = Published(read_published()).contract
GENERATED = Generated(read_generated()).contract


def test_file() -> None:
    # proto3 decides how repeated numbers are packed and that a zero is not sent.
    assert read_generated().syntax == "proto3"
    assert differences(PUBLISHED.file, GENERATED.file) == []


@pytest.mark.parametrize("name", either(PUBLISHED.extensions, GENERATED.extensions))
def test_extension(name: str) -> None:
    assert differences(PUBLISHED.extensions.get(name), GENERATED.extensions.get(name)) == []


@pytest.mark.parametrize("name", either(PUBLISHED.services, GENERATED.services))
def test_service(name: str) -> None:
    assert differences(PUBLISHED.services.get(name), GENERATED.services.get(name)) == []


@pytest.mark.parametrize("name", either(PUBLISHED.messages, GENERATED.messages))
def test_message(name: str) -> None:
    assert differences(PUBLISHED.messages.get(name), GENERATED.messages.get(name)) == []


@pytest.mark.parametrize("name", either(PUBLISHED.enums, GENERATED.enums))
def test_enum(name: str) -> None:
    assert differences(PUBLISHED.enums.get(name), GENERATED.enums.get(name)) == []


# The comparison can fail


def message_in(file: FileDescriptorProto, name: str) -> DescriptorProto:
    return next(message for message in file.message_type if message.name == name)


def field_in(file: FileDescriptorProto, message: str, name: str) -> FieldDescriptorProto:
    return next(entry for entry in message_in(file, message).field if entry.name == name)


def service_in(file: FileDescriptorProto, name: str) -> ServiceDescriptorProto:
    return next(service for service in file.service if service.name == name)


def renumber_field(file: FileDescriptorProto) -> None:
    field_in(file, "Volume", "volume_id").number = 9


def retype_field(file: FileDescriptorProto) -> None:
    field_in(file, "CapacityRange", "limit_bytes").type = FieldDescriptorProto.TYPE_UINT64


def repeat_field(file: FileDescriptorProto) -> None:
    field_in(file, "Snapshot", "ready_to_use").label = FieldDescriptorProto.LABEL_REPEATED


def rename_field(file: FileDescriptorProto) -> None:
    field_in(file, "CapacityRange", "limit_bytes").name = "max_bytes"


def leave_oneof(file: FileDescriptorProto) -> None:
    field_in(file, "VolumeCapability", "block").ClearField("oneof_index")


def drop_secret(file: FileDescriptorProto) -> None:
    field_in(file, "DeleteVolumeRequest", "secrets").options.ClearExtension(csi_pb2.csi_secret)


def unset_secret(file: FileDescriptorProto) -> None:
    field_in(file, "DeleteVolumeRequest", "secrets").options.Extensions[csi_pb2.csi_secret] = False


def deprecate_message(file: FileDescriptorProto) -> None:
    message_in(file, "Volume").options.deprecated = True


def mark_enum(file: FileDescriptorProto) -> None:
    file.enum_type[0].options.Extensions[csi_pb2.alpha_enum] = True


def unmark_service(file: FileDescriptorProto) -> None:
    service_in(file, "SnapshotMetadata").ClearField("options")


def unmark_method(file: FileDescriptorProto) -> None:
    method = next(m for m in service_in(file, "Controller").method if m.name == "GetSnapshot")
    method.options.ClearExtension(csi_pb2.alpha_method)


def start_stream(file: FileDescriptorProto) -> None:
    service_in(file, "Identity").method[2].server_streaming = True


def stream_requests(file: FileDescriptorProto) -> None:
    service_in(file, "Identity").method[2].client_streaming = True


def add_method(file: FileDescriptorProto) -> None:
    service_in(file, "Identity").method.add(
        name="Reset", input_type=".csi.v1.ProbeRequest", output_type=".csi.v1.ProbeResponse"
    )


def renumber_value(file: FileDescriptorProto) -> None:
    message_in(file, "VolumeUsage").enum_type[0].value[2].number = 3


def drop_message(file: FileDescriptorProto) -> None:
    message_in(file, "ListSnapshotsResponse").ClearField("nested_type")


def add_message(file: FileDescriptorProto) -> None:
    file.message_type.add(name="ResetRequest")


def add_enum(file: FileDescriptorProto) -> None:
    message_in(file, "Volume").enum_type.add(name="State")


def drop_service(file: FileDescriptorProto) -> None:
    file.service.remove(service_in(file, "GroupController"))


def renumber_extension(file: FileDescriptorProto) -> None:
    file.extension[0].number = 1061


def rename_package(file: FileDescriptorProto) -> None:
    file.package = "csi.v2"


@pytest.mark.parametrize(
    ("mutate", "report"),
    [
        (renumber_field, ["Volume: volume_id.number: published 2, generated 9"]),
        (retype_field, ['CapacityRange: limit_bytes.type: published "int64", generated "uint64"']),
        (repeat_field, ["Snapshot: ready_to_use.repeated: published nothing, generated true"]),
        (
            rename_field,
            [
                "CapacityRange: limit_bytes.number: published 2, generated nothing",
                'CapacityRange: limit_bytes.type: published "int64", generated nothing',
                "CapacityRange: max_bytes.number: published nothing, generated 2",
                'CapacityRange: max_bytes.type: published nothing, generated "int64"',
            ],
        ),
        (
            leave_oneof,
            ['VolumeCapability: block.oneof: published "access_type", generated nothing'],
        ),
        (
            drop_secret,
            ["DeleteVolumeRequest: secrets.(csi_secret): published true, generated nothing"],
        ),
        (
            unset_secret,
            ["DeleteVolumeRequest: secrets.(csi_secret): published true, generated false"],
        ),
        (deprecate_message, ["Volume: deprecated: published nothing, generated true"]),
        (mark_enum, ["BlockMetadataType: (alpha_enum): published nothing, generated true"]),
        (unmark_service, ["SnapshotMetadata: (alpha_service): published true, generated nothing"]),
        (
            unmark_method,
            ["Controller: GetSnapshot.(alpha_method): published true, generated nothing"],
        ),
        (
            start_stream,
            ["Identity: Probe.server_streaming: published false, generated true"],
        ),
        (
            stream_requests,
            ["Identity: Probe.client_streaming: published nothing, generated true"],
        ),
        (
            add_method,
            [
                'Identity: Reset.request: published nothing, generated "csi.v1.ProbeRequest"',
                'Identity: Reset.response: published nothing, generated "csi.v1.ProbeResponse"',
                "Identity: Reset.server_streaming: published nothing, generated false",
            ],
        ),
        (renumber_value, ["VolumeUsage.Unit: INODES.number: published 2, generated 3"]),
        (drop_message, ["ListSnapshotsResponse.Entry: published, but not generated"]),
        (add_message, ["ResetRequest: generated, but not published"]),
        (add_enum, ["Volume.State: generated, but not published"]),
        (drop_service, ["GroupController: published, but not generated"]),
        (renumber_extension, ["alpha_enum: number: published 1060, generated 1061"]),
        (rename_package, ['file: package: published "csi.v1", generated "csi.v2"']),
    ],
)
def test_comparison_reports_a_mutated_descriptor(
    mutate: Callable[[FileDescriptorProto], None], report: list[str]
) -> None:
    file = read_generated()
    mutate(file)
    assert list(all_differences(PUBLISHED, Generated(file).contract)) == report
    assert list(all_differences(PUBLISHED, GENERATED)) == []


def test_comparison_reports_a_word_of_the_published_file_that_it_does_not_know() -> None:
    document = read_published()
    document["messages"]["Volume"]["fields"][0]["packed"] = True
    assert list(all_differences(Published(document).contract, GENERATED)) == [
        "Volume: capacity_bytes.packed: published true, generated nothing"
    ]
