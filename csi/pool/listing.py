"""What lies in a pool, for people: read from its records, also while a driver serves it."""

from __future__ import annotations

import os
from dataclasses import dataclass

from csi.errors import PoolUnavailable
from csi.linux.copying import allocated_bytes
from csi.model import Kind, Volume
from csi.pool import directory, ids
from csi.pool.building import Building
from csi.pool.durability import Durability
from csi.pool.image import IMAGE_NAME, PARTIAL_NAME
from csi.pool.mark import MARK_NAME
from csi.pool.shelf import Shelf


@dataclass(frozen=True, slots=True)
class Row:
    """A volume and where its data lies.

    Attributes:
        volume: Its record.
        path: Its data.
        allocated_bytes: The blocks of its image; None for a directory.
    """

    volume: Volume
    path: str
    allocated_bytes: int | None


def list_volumes(path: str) -> tuple[list[Row], dict[str, str]]:
    """Returns the volumes of a pool, oldest first, and why other entries cannot be read.

    Raises:
        PoolUnavailable: There is no pool at that path.
    """
    try:
        pool = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise PoolUnavailable(f"{path} cannot be opened: {error.strerror}") from error
    try:
        if MARK_NAME not in os.listdir(pool):
            raise PoolUnavailable(f"{path} is no pool: it carries no mark ({MARK_NAME})")
        durability = Durability(pool)
        shelf = Shelf(pool, Building(pool, durability), "volumes", Volume, durability)
        shelf.load()
        rows = [_row(shelf, volume, os.path.abspath(path)) for _, volume in shelf.index.after(None)]
        return rows, dict(shelf.damaged)
    finally:
        os.close(pool)


def _row(shelf: Shelf[Volume], volume: Volume, pool_path: str) -> Row:
    key = ids.key_of(volume.id)
    name = directory.DATA_NAME
    if volume.kind is Kind.IMAGE:
        name = PARTIAL_NAME if volume.copying else IMAGE_NAME
    allocated = None
    if volume.kind is Kind.IMAGE:
        try:
            with shelf.opened(key, name, os.O_RDONLY) as image:
                allocated = allocated_bytes(image)
        except OSError:
            allocated = None
    return Row(volume, f"{pool_path}/{shelf.folder}/{key}/{name}", allocated)
