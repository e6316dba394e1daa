"""What of a request may be shown to people, and what must be taken out first.

The fields that carry credentials are marked `csi_secret` in the descriptor; going by that mark, a
field that a later version adds is stripped without a change here. Two more carry them and have no
mark: mount flags, and the service account tokens that the kubelet puts into a volume's context.
"""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from csi.v1 import csi_pb2

STRIPPED = "***stripped***"
SHOWN_CHARACTERS = 256
"""How much of a value is shown: a request that is over its limits is logged too."""
SHORTEST_SECRET = 4
"""Values shorter than this are not looked for in texts: they occur in any of them by chance."""

_TOKENS = "serviceaccount.tokens"
_IDENTIFIERS = (
    "volume_id",
    "snapshot_id",
    "group_snapshot_id",
    "base_snapshot_id",
    "target_snapshot_id",
    "source_volume_id",
    "node_id",
    "name",
)
_RESULTS = {
    "volume": "volume_id",
    "snapshot": "snapshot_id",
    "group_snapshot": "group_snapshot_id",
}
_NAMES = {
    "CreateVolumeRequest": "volume_name",
    "CreateSnapshotRequest": "snapshot_name",
    "CreateVolumeGroupSnapshotRequest": "group_snapshot_name",
}

_identifying: dict[type[Message], list[tuple[str, str]]] = {}
_secret_fields: dict[type[Message], frozenset[int]] = {}


def identifiers(request: Message) -> dict[str, str]:
    """Returns the ids and the name in a request, by the keys that the log has for them."""
    fields = _identifying.get(type(request))
    if fields is None:
        type_ = request.DESCRIPTOR
        named = _NAMES.get(type_.name, "object_name")
        fields = [
            (field, named if field == "name" else field)
            for field in _IDENTIFIERS
            if field in type_.fields_by_name
        ]
        _identifying[type(request)] = fields
    return {key: shown(value) for field, key in fields if (value := getattr(request, field))}


def result_identifiers(response: Message) -> dict[str, str]:
    """Returns the id of what an answer describes, if it describes one thing."""
    for field, key in _RESULTS.items():
        if field in response.DESCRIPTOR.fields_by_name:
            return {key: getattr(getattr(response, field), key)}
    return {}


def stripped(message: Message) -> dict[str, object]:
    """Returns a message as plain values, without what must not be shown."""
    secret = _secrets_of(message)
    result: dict[str, object] = {}
    for field, value in message.ListFields():
        if field.number in secret or field.name == "mount_flags":
            result[field.name] = STRIPPED
        elif field.message_type is not None and field.message_type.GetOptions().map_entry:
            result[field.name] = {
                shown(key): STRIPPED if _holds_tokens(key) else shown(entry)
                for key, entry in value.items()
            }
        elif field.is_repeated:
            result[field.name] = [_plain(field, entry) for entry in value]
        else:
            result[field.name] = _plain(field, value)
    return result


def _plain(field: FieldDescriptor, value: object) -> object:
    if isinstance(value, Message):
        return stripped(value)
    if field.enum_type is not None and isinstance(value, int):
        known = field.enum_type.values_by_number.get(value)
        return value if known is None else known.name
    return shown(value) if isinstance(value, str) else value


def scrub(text: str, request: Message) -> str:
    """Takes the secrets of a request out of a text that came of working on it.

    Nothing here reads secrets, but a refused mount flag is named to the caller, and a program may
    repeat its arguments when it fails. What stands before the `=` of a flag stays.
    """
    for secret in _secrets_in(request):
        if len(secret) >= SHORTEST_SECRET:
            for spelling in {secret, repr(secret)[1:-1]}:
                text = text.replace(spelling, STRIPPED)
    for flag in _mount_flags_in(request):
        key, sign, value = flag.partition("=")
        if sign and value:
            for spelling in {flag, repr(flag)[1:-1]}:
                text = text.replace(spelling, f"{key}={STRIPPED}")
    return text


def shown(text: str) -> str:
    """Cuts a value to what is shown of it."""
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


def _secrets_in(message: Message) -> Iterator[str]:
    secret = _secrets_of(message)
    for field, value in message.ListFields():
        if field.number in secret:
            yield from value.values() if hasattr(value, "values") else [str(value)]
        elif field.name == "volume_context":
            yield from (entry for key, entry in value.items() if _holds_tokens(key))


def _mount_flags_in(message: Message) -> Iterator[str]:
    for field, value in message.ListFields():
        if field.name == "mount_flags":
            yield from value
        elif field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        elif field.is_repeated:
            for entry in value:
                yield from _mount_flags_in(entry)
        else:
            yield from _mount_flags_in(value)


def _secrets_of(message: Message) -> frozenset[int]:
    numbers = _secret_fields.get(type(message))
    if numbers is None:
        numbers = frozenset(
            field.number
            for field in message.DESCRIPTOR.fields
            if field.GetOptions().Extensions[csi_pb2.csi_secret]
        )
        _secret_fields[type(message)] = numbers
    return numbers


def _holds_tokens(key: str) -> bool:
    return key.lower().endswith(_TOKENS)
