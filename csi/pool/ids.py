"""Ids of volumes, snapshots and groups: derived from the name, told apart by an incarnation.

An id reads `<sort>-<pool>-<key>-<incarnation>`. The key is a hash of the pool's UUID and the name
and is the object's folder in the pool, so that a repeated create finds its first try without a
search. The incarnation is random and kept in the record, so that an id is never given out twice:
a late delete of a volume that was deleted and made again finds nothing.

An inline ephemeral volume brings an id of the kubelet's making, `csi-<sha256>`; that is its name
here, and its key follows from it like any other.
"""

from __future__ import annotations

import enum
import hashlib
import re
import secrets
from dataclasses import dataclass


class Sort(enum.StrEnum):
    """What an id names."""

    VOLUME = "vol"
    SNAPSHOT = "snap"
    GROUP = "group"


_GRAMMAR = re.compile(
    r"(?P<sort>vol|snap|group)-(?P<pool>[0-9a-f]{12})-(?P<key>[0-9a-f]{32})-(?P<incarnation>[0-9a-f]{10})",
    re.ASCII,
)
_EPHEMERAL = re.compile(r"csi-[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ObjectId:
    """An id, taken apart."""

    sort: Sort
    pool: str
    key: str
    incarnation: str

    def __str__(self) -> str:
        return f"{self.sort}-{self.pool}-{self.key}-{self.incarnation}"


def pool_part(pool_uuid: str) -> str:
    """Returns the part of a pool's UUID that its ids carry."""
    return pool_uuid.replace("-", "")[:12]


def key_for(pool_uuid: str, name: str) -> str:
    """Returns the folder name of the object called `name` in that pool: 32 hex digits."""
    return hashlib.sha256(f"{pool_uuid}\0{name}".encode()).hexdigest()[:32]


def new_id(sort: Sort, pool_uuid: str, name: str) -> str:
    """Returns a fresh id; only its incarnation differs between two calls."""
    key = key_for(pool_uuid, name)
    return str(ObjectId(sort, pool_part(pool_uuid), key, secrets.token_hex(5)))


def parse(text: str, sort: Sort) -> ObjectId | None:
    """Takes an id apart, or returns None for anything this driver cannot have given out."""
    match = _GRAMMAR.fullmatch(text)
    if match is None or match["sort"] != sort:
        return None
    return ObjectId(sort, match["pool"], match["key"], match["incarnation"])


def key_of(text: str) -> str:
    """Returns the key inside an id that this driver made, as its records hold it."""
    return text.rsplit("-", 2)[1]


def find_key(text: str) -> str | None:
    """Returns the key inside what should be an id of ours, or None if it is none."""
    match = _GRAMMAR.fullmatch(text)
    return None if match is None else match["key"]


def is_ephemeral(text: str) -> bool:
    """Whether the kubelet made this id for an inline volume."""
    return _EPHEMERAL.fullmatch(text) is not None
