"""The difference of two files by their extents: nothing missing, nothing more than need be."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import hypothesis
from hypothesis import strategies as st

from csi.answers import ByteRange
from csi.linux.extents import Extent
from csi.volumes.changed_blocks import differences, joined

BLOCK = 4096
HOLE, UNWRITTEN, COMPRESSED = 0, -1, -2
"""What a block of a file is, where it is no number of a block on the disk."""

Blocks = Sequence[int]

kinds = st.one_of(st.integers(1, 40), st.sampled_from([HOLE, UNWRITTEN, COMPRESSED]))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """A file and what became of it, of another size perhaps; most of it is as it was."""
    base = draw(st.lists(kinds, min_size=0, max_size=40))
    if draw(st.booleans()):  # as clones are: long runs that lie one behind the other
        base = [100 + number if kind > 0 else kind for number, kind in enumerate(base)]
    target = list(base)
    for _ in range(draw(st.integers(0, 10))):
        if target:
            target[draw(st.integers(0, len(target) - 1))] = draw(kinds)
    if draw(st.booleans()):
        target = target[: draw(st.integers(0, len(target)))]
    target += draw(st.lists(kinds, max_size=10))
    return base, target


def extents_of(blocks: Blocks, cuts: Iterable[bool]) -> list[Extent]:
    """The extents of a file, neighbours made one unless the next cut says otherwise."""
    found: list[Extent] = []
    cut = itertools.chain(cuts, itertools.repeat(False))
    for number, kind in enumerate(blocks):
        if kind == HOLE:
            continue
        # What is not written, or lies where it cannot be told, has a misleading place.
        physical = kind * BLOCK if kind > 0 else 7 * BLOCK
        extent = Extent(number * BLOCK, BLOCK, physical, kind != UNWRITTEN, kind != COMPRESSED)
        last = found[-1] if found else None
        if (
            last is not None
            and not next(cut)
            and last.end == extent.offset
            and (last.written, last.exact) == (extent.written, extent.exact)
            and last.physical + last.length == extent.physical
        ):
            found[-1] = last._replace(length=last.length + BLOCK)
        else:
            found.append(extent)
    return found


def blocks_in(ranges: Iterable[ByteRange]) -> set[int]:
    return {
        block
        for offset, length in ranges
        for block in range(offset // BLOCK, (offset + length) // BLOCK)
    }


def at(blocks: Blocks, number: int) -> int:
    return blocks[number] if number < len(blocks) else HOLE


def differs(base: Blocks, target: Blocks, number: int) -> bool:
    old, new = at(base, number), at(target, number)
    if COMPRESSED in (old, new):
        return True
    return max(old, 0) != max(new, 0)


@hypothesis.given(pairs(), st.lists(st.booleans()), st.lists(st.booleans()), st.integers(0, 50))
def test_exactly_the_blocks_that_differ(
    files: tuple[list[int], list[int]], cuts: list[bool], others: list[bool], begin: int
) -> None:
    base, target = files
    begin = min(begin, len(target))
    start, end = begin * BLOCK, len(target) * BLOCK

    found = list(
        joined(differences(extents_of(base, cuts), extents_of(target, others), start, end))
    )

    expected = {number for number in range(begin, len(target)) if differs(base, target, number)}
    assert blocks_in(found) == expected
    # Ascending, apart, and none that could be one with the next.
    assert all(length > 0 for _, length in found)
    assert all(a.offset + a.length < b.offset for a, b in itertools.pairwise(found))


@hypothesis.given(st.lists(kinds, max_size=40), st.integers(0, 40))
def test_against_nothing_it_is_what_holds_data(blocks: list[int], begin: int) -> None:
    begin = min(begin, len(blocks))
    start, end = begin * BLOCK, len(blocks) * BLOCK

    found = joined(differences((), extents_of(blocks, ()), start, end))

    assert blocks_in(found) == {
        number for number in range(begin, len(blocks)) if blocks[number] not in (HOLE, UNWRITTEN)
    }


def test_neighbours_on_the_disk_of_a_compressed_extent_are_not_taken_for_it() -> None:
    """A compressed extent takes less of the disk than of the file: places behind it are others'."""
    base = [Extent(0, 8 * BLOCK, 100 * BLOCK, written=True, exact=False)]
    target = [
        Extent(0, BLOCK, 100 * BLOCK, written=True, exact=False),
        Extent(BLOCK, 7 * BLOCK, 101 * BLOCK, written=True, exact=True),
    ]

    assert list(joined(differences(base, target, 0, 8 * BLOCK))) == [ByteRange(0, 8 * BLOCK)]


def test_an_extent_that_reaches_beyond_the_end_or_begins_before_the_start_is_cut() -> None:
    target = [Extent(0, 100 * BLOCK, 0, written=True, exact=True)]

    assert list(differences((), target, 2 * BLOCK, 5 * BLOCK)) == [ByteRange(2 * BLOCK, 3 * BLOCK)]


def test_ranges_become_whole_blocks() -> None:
    """A pool may have blocks smaller than ours."""
    ranges = [ByteRange(512, 512), ByteRange(2048, 4096), ByteRange(20480, 1), ByteRange(40959, 2)]

    assert list(joined(ranges)) == [
        ByteRange(0, 8192),
        ByteRange(20480, 4096),
        ByteRange(36864, 8192),
    ]
