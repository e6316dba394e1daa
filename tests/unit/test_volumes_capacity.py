"""The ledger's view of a pool that runs out of room."""

from __future__ import annotations

import pytest

from csi.linux.usage import FilesystemUsage
from csi.volumes.capacity import Entry, Ledger

MIB = 1 << 20


def usage(available: int, total: int = 1000 * MIB) -> FilesystemUsage:
    return FilesystemUsage(
        total_bytes=total,
        available_bytes=available,
        used_bytes=total - available,
        total_inodes=0,
        free_inodes=0,
        used_inodes=0,
    )


@pytest.mark.parametrize(
    ("free", "ratio", "owed", "expected"),
    [
        (900 * MIB, 1.0, 0, ""),
        (16 * MIB, 1.0, 0, ""),  # just the margin of a pool of this size
        (16 * MIB - 1, 1.0, 0, "nearly full"),
        (400 * MIB, 1.0, 400 * MIB, ""),
        (400 * MIB, 1.0, 400 * MIB + 1, "to others"),
        (400 * MIB, 0.5, 401 * MIB, "to others"),
        (400 * MIB, 2.0, 800 * MIB, ""),  # more was promised than there is
        (10 * MIB, 2.0, 800 * MIB, "nearly full"),
    ],
)
def test_a_shortage_is_told(free: int, ratio: float, owed: int, expected: str) -> None:
    ledger = Ledger(lambda: usage(free), ratio=ratio)
    ledger.put("volume", Entry(owed + 50 * MIB, allocated=50 * MIB))

    found = ledger.shortage()

    assert bool(found) == bool(expected)
    assert expected in found
    assert not found or str(free) in found


def test_what_is_reserved_is_the_margin() -> None:
    assert "nearly full" in Ledger(lambda: usage(99 * MIB), margin_bytes=100 * MIB).shortage()
    assert Ledger(lambda: usage(1), margin_bytes=0).shortage() == ""


def test_what_workloads_have_written_meanwhile_is_not_owed_any_more() -> None:
    written = 0
    ledger = Ledger(lambda: usage(300 * MIB))
    ledger.put("volume", Entry(400 * MIB))
    ledger.watch("volume", lambda: written)
    assert "to others" in ledger.shortage()

    written = 100 * MIB

    assert ledger.shortage() == ""
