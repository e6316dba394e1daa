"""What the verbs answer: figures, ranges and pages, with nothing of the wire in them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar

from csi.model import Value

P = TypeVar("P")


class UsageFigures(Value, frozen=True, kw_only=True):
    """One figure of a volume's usage, in bytes or inodes."""

    total: int
    used: int
    available: int


class Stats(Value, frozen=True, kw_only=True):
    """What NodeGetVolumeStats answers; a block volume has no inodes."""

    size: UsageFigures
    inodes: UsageFigures | None = None
    problem: str = ""
    """What is wrong with the volume, or nothing."""


class CapacityFigures(Value, frozen=True, kw_only=True):
    """What GetCapacity answers, in bytes."""

    available_bytes: int
    maximum_bytes: int
    minimum_bytes: int


class ByteRange(NamedTuple):
    """A range of bytes in a volume."""

    offset: int
    length: int


class Blocks(NamedTuple):
    """Ranges of a snapshot's volume, ascending and apart, found while they are taken."""

    volume_bytes: int
    ranges: Iterator[ByteRange]


class Page(Value, Generic[P], frozen=True, kw_only=True):
    """A page of a listing; an empty token ends it."""

    items: tuple[P, ...]
    next_token: str = ""
