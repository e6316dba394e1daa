"""How the filesystem under a pool is made to keep what was done, waiting as seldom as it allows.

Every wait is a flush of the disk, and they are most of what a call on a volume costs. What is
built comes first in `contents`, `inside` for each folder of it, and `names` at the end, which alone
promises something: when it returns, all that was done before is on the disk. And whatever a crash
leaves of the names, the contents that they lead to are whole.

*btrfs* puts changes into transactions, one after the other, and a commit writes one whole. Contents
that it keeps in its own tree, as it does with small files, are in the transaction too, or in an
earlier one; `contents` sees to it and makes sure. So an entry takes one commit. (Its fsync of a
directory in which there is a new subvolume is a commit as well.)

*xfs and ext4* write changes of names to their journal in the order in which they were made. The
sync of a folder that changed last covers those before it, and a rename is in the journal as one.

Of any other filesystem, ext4 without a journal included, nothing is assumed: each file and each
folder is synced.
"""

from __future__ import annotations

import enum
import os

from csi.linux import writeback
from csi.linux.filesystems import has_journal
from csi.linux.mounts import mount_containing
from csi.linux.paths import sync_directory
from csi.linux.subvolume import commit, is_btrfs


class _Order(enum.Enum):
    TRANSACTIONS = enum.auto()
    JOURNAL = enum.auto()
    NONE = enum.auto()


class Durability:
    """What a pool's filesystem takes; safe from any thread."""

    def __init__(self, pool_fd: int) -> None:
        self._order = _find_order(pool_fd)

    def contents(self, file: int) -> None:
        """Sees to it that a new file, open for writing, is whole wherever a later name of it is."""
        if self._order is _Order.TRANSACTIONS and writeback.is_in_tree(file):
            return
        os.fsync(file)

    def inside(self, folder: int) -> None:
        """Prepares the names in an open folder that `names` will follow for."""
        if self._order is _Order.NONE:
            sync_directory(folder)

    def names(self, *folders: int) -> None:
        """Makes durable what was done, the last of it in these open folders, in one step."""
        if self._order is _Order.TRANSACTIONS:
            commit(folders[0])
            return
        for folder in folders[:1] if self._order is _Order.JOURNAL else folders:
            sync_directory(folder)


def _find_order(pool_fd: int) -> _Order:
    if is_btrfs(pool_fd):
        return _Order.TRANSACTIONS
    try:
        mount = mount_containing(pool_fd)
    except FileNotFoundError:
        return _Order.NONE
    journaled = mount.fs_type == "xfs" or (mount.fs_type == "ext4" and has_journal(mount))
    return _Order.JOURNAL if journaled else _Order.NONE
