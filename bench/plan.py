"""Which cases a run has: few and short by default, more where asked."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from bench.calls import Lifecycles, Short
from bench.cases import Case
from bench.copies import Copies
from bench.counts import Counts
from bench.ownership import Ownership
from bench.transfer import Transfer

PARTS = ("short", "lifecycles", "counts", "copies", "io", "ownership")
_KINDS = ("directory", "unenforced", "ext4", "xfs", "btrfs", "block")
_IO_KINDS = ("directory", "ext4", "xfs", "block")


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured.

    Attributes:
        parts: Which of `PARTS`.
        kinds: Which kinds of volume.
        clients: How many at once.
        calls: Short calls in a round.
        lives: Lifecycles in a round and client, at least 8 in all.
        rounds: How often each is done.
        counts: Numbers of volumes beside which calls are measured.
        few: Volumes made, found and deleted beside them in a round.
        copy_mib: Amounts of data that are copied.
        extents: Numbers of extents that are copied.
        io_mib, io_s: Size and seconds of a job of fio.
        files: Files that are given to a group.
        attach: Whether lifecycles attach and detach.
    """

    parts: Sequence[str] = PARTS
    kinds: Sequence[str] = _KINDS
    clients: Sequence[int] = (1, 8, 32)
    calls: int = 1000
    lives: int = 20
    rounds: int = 3
    counts: Sequence[int] = (0, 1000)
    few: int = 20
    copy_mib: Sequence[int] = (64, 1024)
    extents: Sequence[int] = (1000, 5000)
    io_mib: int = 256
    io_s: float = 3.0
    files: int = 20_000
    attach: bool = False


def cases(plan: Plan) -> list[Case]:
    """Returns the cases in the order in which they are to be run."""
    made: list[Case] = []
    if "short" in plan.parts:
        made += [Short(clients, plan.calls, plan.rounds) for clients in plan.clients]
    if "lifecycles" in plan.parts:
        made += [
            Lifecycles(
                kind, clients, max(8, plan.lives, 2 * clients), plan.rounds, attach=plan.attach
            )
            for kind in plan.kinds
            for clients in plan.clients
        ]
    if "counts" in plan.parts:
        counts = Counts()
        made += [
            counts.case(count, plan.few, plan.rounds, last=count == max(plan.counts))
            for count in sorted(plan.counts)
        ]
    if "copies" in plan.parts:
        made += [
            Copies(kind, plan.rounds, mib=mib)
            for kind in plan.kinds
            if kind in ("directory", "ext4", "xfs")
            for mib in plan.copy_mib
        ]
        if "block" in plan.kinds:
            made += [Copies("block", plan.rounds, extents=number) for number in plan.extents]
    if "io" in plan.parts:
        made += [
            Transfer(kind, plan.io_mib, plan.io_s, plan.rounds)
            for kind in plan.kinds
            if kind in _IO_KINDS
        ]
    if "ownership" in plan.parts:
        made += [Ownership(kind, plan.files, plan.rounds) for kind in plan.kinds if kind != "block"]
    return made
