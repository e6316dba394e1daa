"""Pages of a listing, in the order of creation, so that what is new comes last.

A token is the place of the last entry that was given out. It keeps its meaning when that entry is
deleted and over restarts, and costs no memory on our side.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from heapq import merge
from itertools import islice
from typing import TypeVar

from csi.answers import Page
from csi.errors import BadToken
from csi.model import Record
from csi.pool.index import Position
from csi.pool.shelf import Shelf

_TOKEN = re.compile(r"(\d{1,20})-([0-9a-f]{32})", re.ASCII)

R = TypeVar("R", bound=Record)


def page(
    shelves: Sequence[Shelf[R]], token: str, limit: int, wanted: Callable[[R], bool]
) -> Page[R]:
    """Returns up to `limit` wanted records behind the token; a limit of 0 is none.

    Raises:
        BadToken: The token is none of ours.
    """
    entries = _behind(shelves, token)
    chosen = (entry for entry in entries if wanted(entry[1]))
    if not limit:
        return Page(items=tuple(record for _, record in chosen))
    found = list(islice(chosen, limit + 1))
    if len(found) <= limit:
        return Page(items=tuple(record for _, record in found))
    (created_ns, key), _ = found[limit - 1]
    return Page(
        items=tuple(record for _, record in found[:limit]), next_token=f"{created_ns}-{key}"
    )


def position_of(token: str) -> Position | None:
    """Returns the place that a token stands for; none is the start.

    Raises:
        BadToken: The token is none of ours.
    """
    if not token:
        return None
    match = _TOKEN.fullmatch(token)
    if match is None:
        raise BadToken(f"starting_token {token[:64]!r} was not given out by this driver")
    return int(match[1]), match[2]


def _behind(shelves: Sequence[Shelf[R]], token: str) -> Iterator[tuple[Position, R]]:
    position = position_of(token)
    if len(shelves) == 1:
        return shelves[0].index.after(position)
    return merge(*(shelf.index.after(position) for shelf in shelves), key=lambda entry: entry[0])
