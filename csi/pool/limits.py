"""What holds the directories of a pool to their size: one contract, kept by two kinds of quota.

A directory is limited under a number that its record keeps. What the number means is the
filesystem's business: see `csi.pool.group_limits` and `csi.pool.project_limits`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol


class Limits(Protocol):
    """The limits of one pool's directories; safe from any thread."""

    def know(self, numbers: Iterable[int]) -> None:
        """Learns which numbers the records hold, so that they are given to nobody else."""

    def hold_new(self, folder: int, size_bytes: int) -> int:
        """Limits the new directory in the open entry; returns the number it is limited under."""

    def change(self, folder: int, number: int, size_bytes: int) -> None:
        """Sets the limit of the directory in the open entry, at once and while it is in use."""

    def set_right(self, folder: int, number: int, size_bytes: int) -> int:
        """Brings the directory in the open entry back under its limit.

        Returns how many things had to be set right: a tenant can do that, or a filesystem that
        was restored without its quotas.
        """

    def used_bytes(self, number: int) -> int:
        """Returns what is charged under a number."""

    def release(self, number: int) -> None:
        """Says that a directory is about to be deleted, and that nobody writes to it any more."""

    def abandon(self, folder: int) -> None:
        """Is `release` for the open entry of a directory that was never finished."""

    def settle(self) -> None:
        """Takes away what is left of the limits of deleted directories."""
