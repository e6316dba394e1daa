"""Spoils requests, field by field, as their descriptors tell what a field is."""

import functools
import random
from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from csi.v1 import csi_pb2 as pb
from tests.security import corpus

_Way = tuple[tuple[FieldDescriptor, ...], FieldDescriptor]
"""The messages to go through, and the field at the end."""

_INT32 = (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_ENUM)
_LOOKALIKES = str.maketrans("aeopcxy0123456789-/.", "аеорсху０１２３４５６７８９‐／．")


class Mutator:
    """Spoils requests as one source of chance has it.

    `ids` are ids and paths that mean something, of every sort; they turn up where they do not
    belong.
    """

    def __init__(self, rng: random.Random, ids: Sequence[str]) -> None:
        self._rng = rng
        self._ids = ids

    def spoil(self, request: Message) -> bytes:
        """Changes a request in one place or a few, and returns it as it goes on the wire."""
        rng = self._rng
        for _ in range(1 if rng.random() < 0.75 else rng.randint(2, 4)):
            self._spoil_field(request)
        data = request.SerializeToString(deterministic=True)
        return self._spoil_bytes(data) if rng.random() < 0.06 else data

    # --- one field -------------------------------------------------------------------------

    def _spoil_field(self, request: Message) -> None:
        ways = _ways(request.DESCRIPTOR)
        if not ways:
            return
        through, field = self._rng.choice(ways)
        holder: Any = request
        for step in through:
            holder = _inside(holder, step, self._rng)
        if self._rng.random() < 0.08:
            holder.ClearField(field.name)
        elif _is_map(field):
            self._spoil_map(getattr(holder, field.name))
        elif field.is_repeated:
            self._spoil_list(holder, field)
        elif field.message_type is not None:
            self._spoil_message(holder, field)
        else:
            setattr(holder, field.name, self._value(field, getattr(holder, field.name)))

    def _spoil_message(self, holder: Any, field: FieldDescriptor) -> None:
        """Empties a message, or sets one that was not: of a oneof, the other then goes."""
        holder.ClearField(field.name)
        getattr(holder, field.name).SetInParent()

    def _spoil_list(self, holder: Any, field: FieldDescriptor) -> None:
        values = getattr(holder, field.name)
        kept = list(values)
        how = self._rng.randrange(4)
        if how == 0 and kept:
            extra = kept * self._rng.choice((1, 2, 100))  # repeated entries
        elif field.message_type is not None:
            extra = [values.add()] if how == 1 else []
            if extra:
                return
            extra = [kept[0]] if kept else []
        else:
            extra = [self._value(field, kept[0] if kept else "")]
        holder.ClearField(field.name)
        getattr(holder, field.name).extend([*kept[: self._rng.randint(0, len(kept))], *extra])

    def _spoil_map(self, entries: Any) -> None:
        how = self._rng.randrange(8)
        if how == 0:
            self._enlarge(entries)
        elif how == 1 and entries:
            entries[self._rng.choice(sorted(entries))] = self._text("")
        elif how == 2:
            entries[self._text("")] = self._text("")
        else:
            entries[self._rng.choice(corpus.KEYS)] = self._text("")

    def _enlarge(self, entries: Any) -> None:
        """To around the limit, or far over it."""
        total = self._rng.choice((4090, 4096, 4097, 5000, 50_000))
        each = self._rng.choice((30, 100, 1000))
        for number in range(total // each + 1):
            entries[f"k{number}"] = "v" * max(0, each - len(f"k{number}"))

    # --- one value -------------------------------------------------------------------------

    def _value(self, field: FieldDescriptor, present: Any) -> Any:
        if field.type == FieldDescriptor.TYPE_BOOL:
            return not present
        if field.type == FieldDescriptor.TYPE_STRING:
            return self._flag() if field.name == "mount_flags" else self._text(present)
        number = self._rng.choice(corpus.NUMBERS)
        if self._rng.random() < 0.1:
            number = self._rng.randint(-(1 << 63), (1 << 63) - 1)
        if field.type in _INT32:
            number = (number + (1 << 31)) % (1 << 32) - (1 << 31)
        return number

    def _flag(self) -> str:
        return self._rng.choice(corpus.FLAGS) if self._rng.random() < 0.7 else self._text("ro")

    def _text(self, present: str) -> str:
        rng = self._rng
        draw = rng.random()
        if draw < 0.45:
            return rng.choice(corpus.TEXTS)
        if draw < 0.55:
            return "x" * rng.choice(corpus.TEXT_LENGTHS)
        if draw < 0.70 and self._ids:
            return rng.choice(self._ids)
        if draw < 0.80 or not present:
            return "".join(chr(self._character()) for _ in range(rng.randint(1, 40)))
        return self._bent(present)

    def _character(self) -> int:
        draw = self._rng.random()
        if draw < 0.5:
            return self._rng.randrange(0x80)
        code = self._rng.randrange(0x110000) if draw < 0.6 else self._rng.randrange(0x3000)
        return 0x20 if 0xD800 <= code < 0xE000 else code

    def _bent(self, text: str) -> str:
        """Something that is almost the value there was."""
        place = self._rng.randrange(len(text))
        bends: tuple[Callable[[], str], ...] = (
            lambda: text[:place] + text[place + 1 :],
            lambda: text[:place] + chr(self._character()) + text[place:],
            lambda: text[:place] + chr(self._character()) + text[place + 1 :],
            lambda: text.translate(_LOOKALIKES),
            text.upper,
            lambda: text + "\n",
            lambda: text + "/..",
            lambda: text + "/",
            lambda: " " + text,
            lambda: text * 2,
            lambda: text[::-1],
            lambda: text.replace("/", "//"),
            lambda: "/.." * 20 + text,
        )
        return self._rng.choice(bends)()

    # --- the bytes -------------------------------------------------------------------------

    def _spoil_bytes(self, data: bytes) -> bytes:
        rng = self._rng
        place = rng.randrange(len(data) + 1)
        how = rng.randrange(7)
        if how == 0:
            return data[:place]
        if how == 1:
            return data[:place] + rng.randbytes(rng.randint(1, 8)) + data[place:]
        if how == 2:
            return data[:place] + rng.randbytes(1) + data[place + 1 :]
        if how == 3:
            return data + data  # the second half is merged into the first
        if how == 4:
            return data + b"\xfa\x01\x03abc"  # a field that nobody knows
        if how == 5:
            return data + b"\x0b" * rng.randint(1, 200)  # groups that never end
        return rng.randbytes(rng.randint(0, 200))


@functools.cache
def _ways(descriptor: Descriptor, through: tuple[FieldDescriptor, ...] = ()) -> tuple[_Way, ...]:
    found: list[_Way] = []
    for field in descriptor.fields:
        found.append((through, field))
        if field.message_type is not None and not _is_map(field):
            found += _ways(field.message_type, (*through, field))
    return tuple(found)


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _inside(holder: Any, field: FieldDescriptor, rng: random.Random) -> Any:
    inner = getattr(holder, field.name)
    if not field.is_repeated:
        return inner
    return rng.choice(inner) if inner else inner.add()


def parsed(kind: type[Message], data: bytes) -> Message | None:
    """Returns what bytes say, or None where they are no such message."""
    message = kind()
    try:
        message.ParseFromString(data)
    except DecodeError:
        return None
    return message


REQUESTS = {
    method.name: getattr(pb, method.input_type.name)
    for service in pb.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
"""The type of the request of every call."""
