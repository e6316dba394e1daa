"""Limits of every request: the sizes of strings and maps, and the characters of names.

The specification limits each field, whatever the call. So the checks come from the descriptor of
the message: they are put together once for each field, and only fields that are set are looked at.

Messages name the field and the limit, never the value: it may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from csi.errors import InvalidRequest

STRING_BYTES = 128
NODE_ID_BYTES = 256
MAP_BYTES = 4096
MOUNT_FLAGS_BYTES = 4096
PATH_BYTES = 4095
"""What Linux takes: PATH_MAX is 4096 with the NUL at the end."""
TOPOLOGY_PART_BYTES = 63

_PATHS = frozenset({"target_path", "staging_target_path", "volume_path"})
_BANNED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")

Check = Callable[[Any], str]
"""Takes the value of a field; returns what is wrong with it, or nothing."""

_checks: dict[FieldDescriptor, Check] = {}


def check(message: Message) -> None:
    """Checks a request against the limits.

    Raises:
        InvalidRequest: A field is over its limit or holds a banned character.
    """
    problem = _problem(message)
    if problem:
        raise InvalidRequest(problem)


def _problem(message: Message) -> str:
    for field, value in message.ListFields():
        check_field = _checks.get(field)
        if check_field is None:
            check_field = _checks[field] = _check_for(field)
        problem = check_field(value)
        if problem:
            return problem
    return ""


def _check_for(field: FieldDescriptor) -> Check:
    name = field.name
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return _map_check(field)
    if field.message_type is not None:
        return _each_message(name) if field.is_repeated else _one_message(name)
    if field.type != FieldDescriptor.TYPE_STRING:
        return lambda _value: ""
    if name == "mount_flags":
        return lambda value: _total(name, value, MOUNT_FLAGS_BYTES)
    one = _string_check(name)
    return _each_string(name, one) if field.is_repeated else lambda value: one(name, value)


def _map_check(field: FieldDescriptor) -> Check:
    name = field.name
    # Segments are the one map whose entries have limits of their own.
    holder = field.containing_type
    check_map = _segments if holder is not None and holder.name == "Topology" else _map
    return lambda value: check_map(name, value)


def _string_check(name: str) -> Callable[[str, str], str]:
    if name in _PATHS:
        return _path
    if name == "name":
        return _name
    limit = NODE_ID_BYTES if name == "node_id" else STRING_BYTES
    return lambda where, value: _length(where, value, limit)


def _each_string(name: str, check_one: Callable[[str, str], str]) -> Check:
    def check_all(values: Iterable[str]) -> str:
        for index, value in enumerate(values):
            problem = check_one(f"{name}[{index}]", value)
            if problem:
                return problem
        return ""

    return check_all


def _one_message(name: str) -> Check:
    def check_one(value: Message) -> str:
        problem = _problem(value)
        return problem and f"{name}.{problem}"

    return check_one


def _each_message(name: str) -> Check:
    def check_all(values: Iterable[Message]) -> str:
        for index, value in enumerate(values):
            problem = _problem(value)
            if problem:
                return f"{name}[{index}].{problem}"
        return ""

    return check_all


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _length(where: str, text: str, limit: int) -> str:
    size = _size(text)
    return f"{where} has {size} bytes; at most {limit} are allowed" if size > limit else ""


def _total(where: str, texts: Iterable[str], limit: int) -> str:
    size = sum(map(_size, texts))
    return f"{where} has {size} bytes in all; at most {limit} are allowed" if size > limit else ""


def _path(where: str, text: str) -> str:
    if "\0" in text:
        return f"{where} holds a NUL character, which no path can have"
    return _length(where, text, PATH_BYTES)


def _name(where: str, text: str) -> str:
    banned = _BANNED.search(text)
    if banned is not None:
        return f"{where} holds the control character U+{ord(banned[0]):04X}, which is not allowed"
    return _length(where, text, STRING_BYTES)


def _map(where: str, entries: Mapping[str, str]) -> str:
    texts = (text for entry in entries.items() for text in entry)
    return _total(where, texts, MAP_BYTES)


def _segments(where: str, segments: Mapping[str, str]) -> str:
    for key, value in segments.items():
        prefix, _, name = key.rpartition("/")
        if max(_size(prefix), _size(name), _size(value)) > TOPOLOGY_PART_BYTES:
            return (
                f"{where} has a key or value that is too long: the prefix of a key, its name and "
                f"its value may have {TOPOLOGY_PART_BYTES} bytes each"
            )
    return _map(where, segments)
