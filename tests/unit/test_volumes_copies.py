"""A copy that has failed is begun again, by whoever comes first."""

from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock, patch

import pytest

from csi.model import SourceType
from csi.pool import ids
from csi.volumes.copies import Copies
from csi.volumes.locks import Locks

VOLUME = "vol-14d4d0f3ba72-7e01f3890333938ffc7ac4f08fdecd58-dbb9219250"
CLONE = "vol-14d4d0f3ba72-46100110b6c217077956a63b3515572c-22382cb7e8"
SNAPSHOT = "snap-e77bdb39b365-46100110b6c217077956a63b3515572c-22382cb7e8"


class Ground:
    """A snapshot of a volume, half copied, and nobody who copies it."""

    def __init__(self) -> None:
        self.locks = Locks()
        self.snapshot: Any = SimpleNamespace(id=SNAPSHOT, source_volume_id=VOLUME, copying=True)
        self.depot = Mock()
        self.depot.pool.snapshots.peek.return_value = self.snapshot
        source = SimpleNamespace(
            depot=self.depot, key=ids.key_of(VOLUME), record=SimpleNamespace(id=VOLUME)
        )
        jobs = Mock()
        jobs.is_running.return_value = False
        pools = Mock()
        pools.get_volume.return_value = source
        self.copies = Copies(pools, self.locks, jobs)

    def begins(self) -> bool:
        """Whether it is begun again when somebody asks for the snapshot."""
        with patch.object(self.copies, "start_snapshot") as start:
            self.copies.ensure_snapshot(self.depot, self.snapshot)
        return bool(start.called)


def test_it_is_begun_again() -> None:
    assert Ground().begins()


@pytest.mark.parametrize(
    "key", [f"snapshot:{ids.key_of(SNAPSHOT)}", f"volume:{ids.key_of(VOLUME)}"]
)
def test_who_finds_another_one_at_it_leaves_it_to_him_and_is_not_refused(key: str) -> None:
    ground = Ground()
    with ground.locks.exclusive(key, "what another one works on"):
        assert not ground.begins()


def test_what_became_whole_meanwhile_is_left_alone() -> None:
    ground = Ground()
    ground.depot.pool.snapshots.peek.return_value = SimpleNamespace(copying=False)
    assert not ground.begins()
    with ground.locks.exclusive(f"snapshot:{ids.key_of(SNAPSHOT)}", "nobody else"):
        pass


@pytest.mark.parametrize("busy", [True, False])
def test_a_volume_is_treated_alike(busy: bool) -> None:
    ground = Ground()
    key = ids.key_of(CLONE)
    source = SimpleNamespace(type=SourceType.VOLUME, id=VOLUME)
    clone: Any = SimpleNamespace(id=CLONE, source=source, copying=True)
    ground.depot.pool.volumes.peek.return_value = clone
    with (
        ground.locks.exclusive(f"volume:{key}" if busy else "volume:another", "what is worked on"),
        patch.object(ground.copies, "start_volume") as start,
    ):
        ground.copies.ensure_volume(ground.depot, clone)
    assert start.called is not busy
