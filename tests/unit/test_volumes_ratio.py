"""The over-provisioning ratio, from its least to its most: what is promised and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi.errors import NoRoom, OutOfRange
from csi.linux.usage import FilesystemUsage
from csi.volumes.capacity import Entry, Ledger

MIB = 1 << 20
TOTAL = 1000 * MIB
MARGIN = 16 * MIB

ratios = st.sampled_from([1e-9, 0.001, 0.5, 0.999, 1.0, 1.001, 1.5, 2.0, 10.0, 1000.0])
amounts = st.integers(0, TOTAL)


def usage(available: int) -> FilesystemUsage:
    return FilesystemUsage(
        total_bytes=TOTAL,
        available_bytes=available,
        used_bytes=TOTAL - available,
        total_inodes=0,
        free_inodes=0,
        used_inodes=0,
    )


def fits(ledger: Ledger, size: int) -> bool:
    try:
        with ledger.reserve(size):
            return True
    except (NoRoom, OutOfRange):
        return False


@given(ratio=ratios, free=amounts, volumes=st.lists(st.tuples(amounts, amounts), max_size=8))
def test_what_is_offered_can_be_had_and_not_a_byte_more(
    ratio: float, free: int, volumes: list[tuple[int, int]]
) -> None:
    ledger = Ledger(lambda: usage(free), ratio=ratio, margin_bytes=MARGIN)
    for number, (promised, allocated) in enumerate(volumes):
        ledger.put(str(number), Entry(promised, min(promised, allocated)))

    offered = ledger.available()

    assert 0 <= offered <= max(0, free - MARGIN)
    assert fits(ledger, offered)
    assert not fits(ledger, offered + 1)
    assert ledger.available() == offered, "what was refused or given back is still kept"


@given(ratio=ratios, sizes=st.lists(amounts, max_size=30))
def test_promises_never_exceed_the_ratio(ratio: float, sizes: list[int]) -> None:
    """Nobody has written yet, so all of the pool is free."""
    ledger, promised = Ledger(lambda: usage(TOTAL), ratio=ratio, margin_bytes=MARGIN), 0
    for number, size in enumerate(sizes):
        if fits(ledger, size):
            ledger.put(str(number), Entry(size))
            promised += size

    assert promised <= TOTAL * ratio
    assert ledger.available() <= TOTAL * ratio - promised
    if ratio <= 1:
        assert promised <= TOTAL - MARGIN, "not all of it can be written"
        assert not ledger.shortage()


@given(sizes=st.lists(st.integers(1, 200 * MIB), min_size=1, max_size=30), written=st.floats(0, 1))
def test_at_one_whatever_was_promised_can_be_written(sizes: list[int], written: float) -> None:
    used = 0
    ledger = Ledger(lambda: usage(TOTAL - used), margin_bytes=MARGIN)
    for number, size in enumerate(sizes):
        if fits(ledger, size):
            taken = int(size * written)
            used += taken
            ledger.put(str(number), Entry(size, taken))

        assert not ledger.shortage()


@pytest.mark.parametrize(
    ("ratio", "size", "error"),
    [
        (1.0, TOTAL - MARGIN, None),
        (1.0, TOTAL - MARGIN + 1, NoRoom),
        (1.0, TOTAL + 1, OutOfRange),
        (0.5, TOTAL // 2, None),
        (0.5, TOTAL // 2 + 1, OutOfRange),
        # However much is promised in all, one volume has to fit by itself.
        (1000.0, TOTAL - MARGIN, None),
        (1000.0, TOTAL - MARGIN + 1, NoRoom),
        (1000.0, TOTAL + 1, OutOfRange),
        (1e-9, 1, None),
        (1e-9, 2, OutOfRange),
    ],
)
def test_the_largest_volume(ratio: float, size: int, error: type[Exception] | None) -> None:
    ledger = Ledger(lambda: usage(TOTAL), ratio=ratio, margin_bytes=MARGIN)

    if error is None:
        assert fits(ledger, size)
    else:
        with pytest.raises(error, match=str(size)), ledger.reserve(size):
            pass


def test_a_volume_grows_into_what_is_left_of_the_ratio() -> None:
    ledger = Ledger(lambda: usage(TOTAL), ratio=2.0, margin_bytes=MARGIN)
    ledger.put("one", Entry(TOTAL - MARGIN))
    ledger.put("two", Entry(400 * MIB))

    with ledger.reserve(600 * MIB, present_bytes=400 * MIB):
        pass
    with pytest.raises(OutOfRange), ledger.reserve(TOTAL + 1, present_bytes=400 * MIB):
        pass


@pytest.mark.parametrize("ratio", [1.5, 2.0, 1000.0])
def test_a_pool_that_promised_too_much_promises_no_more_when_it_fills(ratio: float) -> None:
    """Its volumes are told of before writes fail: while the margin is still there."""
    free = TOTAL
    ledger = Ledger(lambda: usage(free), ratio=ratio, margin_bytes=MARGIN)
    ledger.put("one", Entry(900 * MIB))
    assert ledger.available() > 0
    assert not ledger.shortage()

    free = MARGIN - 1

    assert ledger.available() == 0
    assert not fits(ledger, 1)
    assert "nearly full" in ledger.shortage()


def test_more_is_promised_again_as_pods_give_blocks_back() -> None:
    """At a ratio of two, half of each block: the other half is owed to its volume once more."""
    written = 600 * MIB
    ledger = Ledger(lambda: usage(TOTAL - written), ratio=2.0, margin_bytes=0)
    ledger.put("one", Entry(800 * MIB))
    ledger.watch("one", lambda: written)
    assert ledger.available() == 300 * MIB

    written = 200 * MIB

    assert ledger.available() == 500 * MIB
