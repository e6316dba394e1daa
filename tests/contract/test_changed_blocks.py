"""Changed blocks: a volume is rebuilt from a base and what changed, and every byte is right."""

import fcntl
import itertools
import os
import random
import struct
from collections.abc import Iterable
from pathlib import Path

import pytest

from csi.v1 import csi_pb2 as pb
from tests.contract import requests
from tests.contract.bench import Bench, repeat_while_aborted, write_synced
from tests.contract.refusals import Code, refused
from tests.contract.requests import MIB, from_snapshot, raw_block

pytestmark = pytest.mark.kernel

BLOCK = 4096
SIZE = 64 * MIB
BLKDISCARD = 0x1277

Range = tuple[int, int]


@pytest.fixture(params=["bench", "btrfs_bench"])
def reflinking(request: pytest.FixtureRequest) -> Bench:
    """A bench on each sort of pool that can tell."""
    bench: Bench = request.getfixturevalue(request.param)
    return bench


class Writer:
    """Writes to a block device at random, and keeps in memory what has to be on it."""

    def __init__(self, seed: int, size: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 - data, not secrets
        self.contents = bytearray(size)
        self.touched: set[int] = set()

    def grow(self, size: int) -> None:
        self.contents += bytes(size - len(self.contents))

    def scribble(self, device: Path, writes: int, holes: int) -> None:
        """Overwrites single blocks, and punches holes of a few."""
        self.touched = set()
        blocks = len(self.contents) // BLOCK
        descriptor = os.open(device, os.O_RDWR)
        try:
            for _ in range(writes):
                block = self.random.randrange(blocks)
                data = self.random.randbytes(BLOCK)
                os.pwrite(descriptor, data, block * BLOCK)
                self._note(block, data)
            os.fsync(descriptor)
            for _ in range(holes):
                first = self.random.randrange(blocks - 8)
                count = self.random.randrange(1, 8)
                argument = struct.pack("=QQ", first * BLOCK, count * BLOCK)
                fcntl.ioctl(descriptor, BLKDISCARD, argument)
                for block in range(first, first + count):
                    self._note(block, bytes(BLOCK))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _note(self, block: int, data: bytes) -> None:
        self.contents[block * BLOCK : (block + 1) * BLOCK] = data
        self.touched.add(block)


def allocated(bench: Bench, snapshot: pb.Snapshot, start: int = 0, most: int = 0) -> list[Range]:
    """What GetMetadataAllocated streams, once it is checked for its form."""
    request = requests.allocated(snapshot.snapshot_id, start, most)
    answers = list(bench.driver.metadata.GetMetadataAllocated(request, timeout=60))
    return _checked(answers, snapshot.size_bytes, start, most)


def delta(
    bench: Bench, base: pb.Snapshot, target: pb.Snapshot, start: int = 0, most: int = 0
) -> list[Range]:
    """What GetMetadataDelta streams, likewise."""
    request = requests.delta(base.snapshot_id, target.snapshot_id, start, most)
    answers = list(bench.driver.metadata.GetMetadataDelta(request, timeout=60))
    return _checked(answers, target.size_bytes, start, most)


def _checked(
    answers: Iterable[pb.GetMetadataAllocatedResponse | pb.GetMetadataDeltaResponse],
    size: int,
    start: int,
    most: int,
) -> list[Range]:
    found: list[Range] = []
    for answer in answers:
        assert answer.volume_capacity_bytes == size
        assert answer.block_metadata_type == pb.BlockMetadataType.VARIABLE_LENGTH
        assert len(answer.block_metadata) <= most or not most
        found += [(block.byte_offset, block.size_bytes) for block in answer.block_metadata]
    assert all(offset % BLOCK == 0 and length % BLOCK == 0 < length for offset, length in found)
    assert all(offset + length > start for offset, length in found)
    assert not found or found[-1][0] + found[-1][1] <= size
    # Ascending, and neighbours are one.
    assert all(a[0] + a[1] < b[0] for a, b in itertools.pairwise(found))
    return found


def blocks_in(ranges: Iterable[Range]) -> set[int]:
    return {
        block
        for offset, length in ranges
        for block in range(offset // BLOCK, (offset + length) // BLOCK)
    }


def image_of(bench: Bench, snapshot: pb.Snapshot) -> Path:
    return bench.pool / "snapshots" / snapshot.snapshot_id.rsplit("-", 2)[1] / "disk.img"


def rebuild(
    base: bytes | bytearray, bench: Bench, target: pb.Snapshot, ranges: Iterable[Range]
) -> bytearray:
    """The contents of a snapshot, from those of an older one and the ranges that changed."""
    result = bytearray(base)
    result += bytes(max(0, target.size_bytes - len(base)))
    with image_of(bench, target).open("rb") as image:
        for offset, length in ranges:
            image.seek(offset)
            result[offset : offset + length] = image.read(length)
    return result


def test_a_volume_is_rebuilt_from_a_base_and_its_deltas(reflinking: Bench) -> None:
    """Thousands of random overwrites, holes and growth, as full and incremental backups see it."""
    bench = reflinking
    volume_id = bench.create(size=SIZE, capability=raw_block()).volume_id
    writer = Writer(11, SIZE)
    with bench.used(volume_id, raw_block()) as device:
        writer.scribble(device, writes=3_000, holes=20)
        base = bench.snapshot(volume_id)
        backup = rebuild(b"", bench, base, allocated(bench, base))
        assert backup == writer.contents

        for turn in range(3):
            if turn == 1:
                size = SIZE + 16 * MIB
                expand = requests.controller_expand(volume_id, size)
                bench.driver.controller.ControllerExpandVolume(expand)
                bench.driver.node.NodeExpandVolume(
                    requests.node_expand(volume_id, device, size, raw_block())
                )
                writer.grow(size)
            writer.scribble(device, writes=2_000, holes=200)
            snapshot = bench.snapshot(volume_id)
            assert snapshot.size_bytes == len(writer.contents)
            changed = delta(bench, base, snapshot)
            backup = rebuild(backup, bench, snapshot, changed)
            assert backup == writer.contents

            # Not one block more than was written, and of those only what has to be there.
            assert blocks_in(changed) <= writer.touched
            base = snapshot

    assert rebuild(b"", bench, base, allocated(bench, base)) == writer.contents


def test_a_delta_over_several_snapshots_is_the_sum_of_theirs(reflinking: Bench) -> None:
    bench = reflinking
    volume_id = bench.create(size=SIZE, capability=raw_block()).volume_id
    writer = Writer(12, SIZE)
    snapshots, states = [], []
    with bench.used(volume_id, raw_block()) as device:
        for _ in range(3):
            writer.scribble(device, writes=500, holes=50)
            snapshots.append(bench.snapshot(volume_id))
            states.append(bytes(writer.contents))

    first, second, third = snapshots
    whole = delta(bench, first, third)
    assert rebuild(states[0], bench, third, whole) == states[2]
    steps = blocks_in(delta(bench, first, second)) | blocks_in(delta(bench, second, third))
    assert blocks_in(whole) <= steps
    # Back in time works as well.
    assert rebuild(states[2], bench, first, delta(bench, third, first)) == states[0]
    assert delta(bench, third, third) == []


def test_streams_go_on_at_any_offset(reflinking: Bench) -> None:
    bench = reflinking
    volume_id = bench.create(size=SIZE, capability=raw_block()).volume_id
    writer = Writer(13, SIZE)
    with bench.used(volume_id, raw_block()) as device:
        writer.scribble(device, writes=1_000, holes=10)
        base = bench.snapshot(volume_id)
        writer.scribble(device, writes=1_000, holes=100)
        target = bench.snapshot(volume_id)

    whole = {"allocated": allocated(bench, target), "delta": delta(bench, base, target)}
    chosen = random.Random(14)  # noqa: S311
    offsets = [0, 1, BLOCK - 1, BLOCK, SIZE - BLOCK, SIZE - 1, SIZE]
    offsets += [chosen.randrange(SIZE) for _ in range(20)]
    offsets += [offset + length for offset, length in whole["delta"][:5]]
    for start in offsets:
        most = chosen.choice([0, 1, 7, 1000])
        for name, found in (
            ("allocated", allocated(bench, target, start, most)),
            ("delta", delta(bench, base, target, start, most)),
        ):
            first = start // BLOCK
            expected = {block for block in blocks_in(whole[name]) if block >= first}
            assert blocks_in(found) == expected, f"{name} from {start}"


def test_messages_hold_no_more_than_was_asked_for(bench: Bench) -> None:
    volume_id = bench.create(size=SIZE, capability=raw_block()).volume_id
    writer = Writer(15, SIZE)
    with bench.used(volume_id, raw_block()) as device:
        writer.scribble(device, writes=100, holes=0)
        snapshot = bench.snapshot(volume_id)

    request = requests.allocated(snapshot.snapshot_id, max_results=3)
    sizes = [
        len(answer.block_metadata)
        for answer in bench.driver.metadata.GetMetadataAllocated(request, timeout=60)
    ]

    assert set(sizes[:-1]) == {3}
    assert 1 <= sizes[-1] <= 3
    assert sum(sizes) > 80


def test_a_filesystem_that_is_in_use_is_rebuilt_too(reflinking: Bench) -> None:
    bench = reflinking
    volume_id = bench.create(size=SIZE).volume_id
    with bench.used(volume_id) as target:
        write_synced(target / "first", os.urandom(3 * MIB))
        base = bench.snapshot(volume_id)
        (target / "first").unlink()
        write_synced(target / "second", os.urandom(2 * MIB))
        later = bench.snapshot(volume_id)

    backup = rebuild(b"", bench, base, allocated(bench, base))
    assert backup == image_of(bench, base).read_bytes()
    changed = delta(bench, base, later)
    assert 2 * MIB <= sum(length for _, length in changed) < 16 * MIB
    assert rebuild(backup, bench, later, changed) == image_of(bench, later).read_bytes()


def test_a_thick_volume_holds_only_what_was_written(bench: Bench) -> None:
    volume_id = bench.create(
        size=SIZE, capability=raw_block(), parameters={"allocation": "thick"}
    ).volume_id
    with bench.used(volume_id, raw_block()) as device:
        write_synced(device, b"x" * BLOCK)
    snapshot = bench.snapshot(volume_id)

    assert allocated(bench, snapshot) == [(0, BLOCK)]


def test_an_empty_volume_holds_nothing_and_has_a_size(bench: Bench) -> None:
    volume_id = bench.create(size=SIZE, capability=raw_block()).volume_id
    empty = bench.snapshot(volume_id)
    assert allocated(bench, empty) == []

    with bench.used(volume_id, raw_block()) as device:
        write_synced(device, b"x" * BLOCK)
    later = bench.snapshot(volume_id)

    assert delta(bench, empty, later) == [(0, BLOCK)]
    (answer,) = bench.driver.metadata.GetMetadataAllocated(requests.allocated(empty.snapshot_id))
    assert answer.volume_capacity_bytes == SIZE


def test_members_of_a_group_are_told_apart_like_others(bench: Bench) -> None:
    volume_id = bench.create(size=SIZE, capability=raw_block()).volume_id
    base = bench.snapshot(volume_id)
    with bench.used(volume_id, raw_block()) as device:
        write_synced(device, b"x" * BLOCK)
    (member,) = bench.group(volume_id).snapshots

    assert delta(bench, base, member) == [(0, BLOCK)]


# --- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [-1, SIZE + 1, 1 << 62])
def test_an_offset_that_is_not_in_the_volume(bench: Bench, start: int) -> None:
    volume_id = bench.create(size=SIZE, capability=raw_block()).volume_id
    snapshot = bench.snapshot(volume_id)

    with refused(Code.OUT_OF_RANGE, str(start), str(SIZE)):
        allocated(bench, snapshot, start)
    with refused(Code.OUT_OF_RANGE, str(start), str(SIZE)):
        delta(bench, snapshot, snapshot, start)


def test_snapshots_that_are_gone(bench: Bench) -> None:
    volume_id = bench.create(size=SIZE, capability=raw_block()).volume_id
    kept, gone = bench.snapshot(volume_id), bench.snapshot(volume_id)
    bench.delete_snapshot(gone.snapshot_id)

    with refused(Code.NOT_FOUND, gone.snapshot_id):
        allocated(bench, gone)
    for base, target in ((kept, gone), (gone, kept)):
        with refused(Code.NOT_FOUND, gone.snapshot_id):
            delta(bench, base, target)


def test_snapshots_of_two_volumes_cannot_be_compared(bench: Bench) -> None:
    volume_id = bench.create(size=SIZE, capability=raw_block()).volume_id
    base = bench.snapshot(volume_id)
    restored = bench.create(
        size=SIZE, capability=raw_block(), source=from_snapshot(base.snapshot_id)
    ).volume_id
    other = bench.snapshot(restored)

    with refused(Code.FAILED_PRECONDITION, volume_id, restored, "whole"):
        delta(bench, base, other)


def test_a_pool_that_copies_tells_what_is_allocated_and_not_what_changed(
    ext4_bench: Bench,
) -> None:
    bench = ext4_bench
    volume_id = bench.create(size=SIZE, capability=raw_block()).volume_id
    writer = Writer(16, SIZE)
    with bench.used(volume_id, raw_block()) as device:
        writer.scribble(device, writes=300, holes=5)
    base = bench.snapshot(volume_id)

    assert rebuild(b"", bench, base, allocated(bench, base)) == writer.contents
    later = bench.snapshot(volume_id)
    with refused(Code.FAILED_PRECONDITION, "cannot share blocks", later.snapshot_id):
        delta(bench, base, later)


def test_directories_have_no_blocks(btrfs_bench: Bench) -> None:
    volume_id = btrfs_bench.create(
        capability=requests.filesystem(""), parameters={"kind": "directory"}
    ).volume_id
    snapshot = btrfs_bench.snapshot(volume_id)

    with refused(Code.FAILED_PRECONDITION, "directory", "kind: image"):
        allocated(btrfs_bench, snapshot)
    with refused(Code.FAILED_PRECONDITION, "directory", "kind: image"):
        delta(btrfs_bench, snapshot, snapshot)


def test_a_snapshot_stays_while_it_is_streamed(bench: Bench) -> None:
    """And can be restored and streamed by others meanwhile."""
    volume_id = bench.create(size=SIZE, capability=raw_block()).volume_id
    writer = Writer(17, SIZE)
    with bench.used(volume_id, raw_block()) as device:
        writer.scribble(device, writes=6_000, holes=0)
        snapshot = bench.snapshot(volume_id)

    metadata = bench.driver.metadata
    stream = metadata.GetMetadataAllocated(requests.allocated(snapshot.snapshot_id, 0, 1))
    next(stream)
    with refused(Code.ABORTED, snapshot.snapshot_id):
        bench.delete_snapshot(snapshot.snapshot_id)
    assert len(allocated(bench, snapshot)) > 1_000
    bench.create(size=SIZE, capability=raw_block(), source=from_snapshot(snapshot.snapshot_id))

    assert sum(1 for _ in stream) > 1_000
    bench.delete_snapshot(snapshot.snapshot_id)


def test_a_stream_that_is_cancelled_lets_go_of_its_snapshot(bench: Bench) -> None:
    volume_id = bench.create(size=SIZE, capability=raw_block()).volume_id
    writer = Writer(18, SIZE)
    with bench.used(volume_id, raw_block()) as device:
        writer.scribble(device, writes=6_000, holes=0)
        snapshot = bench.snapshot(volume_id)

    stream = bench.driver.metadata.GetMetadataAllocated(
        requests.allocated(snapshot.snapshot_id, 0, 1)
    )
    next(stream)
    stream.cancel()

    repeat_while_aborted(lambda: bench.delete_snapshot(snapshot.snapshot_id))
