"""The ledger's view of a pool that runs out of room."""

from __future__ import annotations

import pytest

from csi.errors import NoRoom
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


class TestRoomInSight:
    """A create looks at volumes in use only where what they have written could matter."""

    def ledger(self, free: int, written: int) -> tuple[Ledger, list[str]]:
        ledger, asked = Ledger(lambda: usage(free), margin_bytes=0), list[str]()

        def measure() -> int:
            asked.append("volume")
            return written

        ledger.put("volume", Entry(400 * MIB, allocated=100 * MIB))
        ledger.watch("volume", measure)
        return ledger, asked

    def test_there_is_plenty(self) -> None:
        ledger, asked = self.ledger(free=900 * MIB, written=100 * MIB)
        with ledger.reserve(500 * MIB):
            assert asked == []

    @pytest.mark.parametrize(("written", "fits"), [(0, False), (1, False), (200, True)])
    def test_it_depends_on_them(self, written: int, fits: bool) -> None:
        ledger, asked = self.ledger(free=700 * MIB, written=written * MIB)
        if fits:
            with ledger.reserve(500 * MIB):
                pass
        else:
            with pytest.raises(NoRoom), ledger.reserve(500 * MIB):
                pass
        assert asked

    def test_one_that_is_used_no_more_counts_as_it_was_last(self) -> None:
        ledger, asked = self.ledger(free=700 * MIB, written=200 * MIB)
        ledger.settle("volume")
        asked.clear()
        with ledger.reserve(500 * MIB), pytest.raises(NoRoom), ledger.reserve(1 * MIB):
            pass
        assert asked == []

    def test_one_that_is_gone_counts_no_more(self) -> None:
        ledger, asked = self.ledger(free=900 * MIB, written=0)
        ledger.remove("volume")
        ledger.put("other", Entry(400 * MIB))
        with ledger.reserve(500 * MIB):
            assert asked == []
        with pytest.raises(NoRoom), ledger.reserve(501 * MIB):
            pass
