"""How large a volume becomes: what was asked, rounded to sectors, within what is possible."""

from __future__ import annotations

from csi.errors import OutOfRange
from csi.linux.filesystems import FILESYSTEMS
from csi.model import BLOCK_BYTES, SizeRange

LARGEST_BYTES = (1 << 63) - BLOCK_BYTES


def round_up(size_bytes: int) -> int:
    """Returns the next multiple of the sector size."""
    return -(-size_bytes // BLOCK_BYTES) * BLOCK_BYTES


def minimum_bytes(fs_type: str) -> int:
    """Returns the least size of a volume with that filesystem; none is a block or a directory."""
    return FILESYSTEMS[fs_type].minimum_bytes if fs_type else BLOCK_BYTES


def least_grown_bytes(fs_type: str) -> int:
    """Returns the least size that a volume with that filesystem can be grown to."""
    return FILESYSTEMS[fs_type].least_grown_bytes if fs_type else 0


def choose_size(asked: SizeRange, *, least_bytes: int, default_bytes: int) -> int:
    """Returns the size for a new volume.

    Args:
        asked: What the request says.
        least_bytes: What the filesystem or the source needs; a smaller request gets that much.
        default_bytes: What a request without a size gets, if its limit allows.

    Raises:
        OutOfRange: The limit is below what is needed, or the size is beyond what a file can have.
    """
    wanted = asked.required_bytes or min(default_bytes, asked.limit_bytes or default_bytes)
    size = max(round_up(wanted), round_up(least_bytes))
    if not asked.required_bytes and asked.limit_bytes and size > asked.limit_bytes:
        size = max(asked.limit_bytes // BLOCK_BYTES * BLOCK_BYTES, round_up(least_bytes))
    _check(size, asked, f"the least that serves here is {size} bytes")
    return size


def choose_growth(asked: SizeRange, current_bytes: int, *, least_bytes: int = 0) -> int:
    """Returns the size to grow to; a volume that is large enough keeps its size.

    Args:
        asked: What the request says.
        current_bytes: The present size.
        least_bytes: What the filesystem can be grown to; a smaller growth gets that much.

    Raises:
        OutOfRange: The limit is below the present size, below the least one or between two sectors.
    """
    size = max(current_bytes, round_up(asked.required_bytes))
    reason = f"the volume has {current_bytes} bytes and cannot shrink"
    if current_bytes < size < least_bytes:
        size = least_bytes
        reason = f"its filesystem cannot be grown to less than {least_bytes} bytes"
    _check(size, asked, reason)
    return size


def _check(size: int, asked: SizeRange, reason: str) -> None:
    if size > LARGEST_BYTES:
        raise OutOfRange(f"{size} bytes are more than any volume can have")
    if asked.limit_bytes and size > asked.limit_bytes:
        raise OutOfRange(
            f"no size fits between {asked.required_bytes} and {asked.limit_bytes} bytes: {reason} "
            f"(sizes are multiples of {BLOCK_BYTES})"
        )
