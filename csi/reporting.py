"""The listing of volumes as people and programs read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from csi.pool.listing import Row

_HEADINGS = ("CLAIM", "VOLUME", "KIND", "SIZE", "ALLOCATED", "DATA")
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def as_table(rows: Sequence[Row]) -> Iterator[str]:
    """Yields aligned lines, the headings first."""
    table = [_HEADINGS, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(_HEADINGS) - 1)]
    for line in table:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=False)]
        yield "  ".join([*cells, line[-1]])


def as_data(rows: Sequence[Row], damaged: Mapping[str, str]) -> dict[str, Any]:
    """Returns the same for JSON, sizes in bytes."""
    return {
        "volumes": [
            {
                "id": row.volume.id,
                "name": row.volume.name,
                "claim": {
                    "namespace": row.volume.claim.namespace,
                    "name": row.volume.claim.name,
                    "volume": row.volume.claim.volume,
                },
                "kind": row.volume.kind.value,
                "access": row.volume.access.value,
                "fsType": row.volume.fs_type,
                "sizeBytes": row.volume.size_bytes,
                "allocatedBytes": row.allocated_bytes,
                "path": row.path,
            }
            for row in rows
        ],
        "damaged": dict(damaged),
    }


def in_units(size_bytes: int) -> str:
    """Returns a size as people read it, such as 1.5 GiB."""
    size, unit = float(size_bytes), 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.1f} {_UNITS[unit]}".replace(".0 ", " ")


def _cells(row: Row) -> tuple[str, ...]:
    volume = row.volume
    claim = f"{volume.claim.namespace}/{volume.claim.name}" if volume.claim.name else "-"
    what = volume.fs_type or volume.access.value
    return (
        claim,
        volume.claim.volume or volume.name,
        f"{volume.kind} ({what})",
        in_units(volume.size_bytes),
        "-" if row.allocated_bytes is None else in_units(row.allocated_bytes),
        row.path,
    )
