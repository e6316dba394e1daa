"""The calls of a sweep: for each what comes before it, the call, and the life that follows."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from tests.contract import requests
from tests.crash.lives import SORTS, Life, Sort
from tests.crash.world import World


class Act:
    """One call on one volume; a subclass says which."""

    def __init__(self, world: World, sort: Sort) -> None:
        self.world = world
        self.sort = sort
        self.life = Life(world, sort)

    def prepare(self) -> None:
        """What comes before the call."""

    def act(self) -> None:
        """The call, and waiting for what it leaves to the background."""
        raise NotImplementedError

    def finish(self) -> None:
        """Checks what became of it, and ends the life of all that is left."""
        self.life.finish()


class _Create(Act):
    def act(self) -> None:
        self.life.create()


class _Restore(Act):
    larger = False

    def prepare(self) -> None:
        self.life.rest()
        self.life.snapshot()
        self.copy = Life(
            self.world,
            self.sort,
            source=self.life.from_snapshot,
            data=self.life.data,
            larger=self.larger,
        )

    def act(self) -> None:
        self.copy.create()

    def finish(self) -> None:
        self.copy.finish()
        self.life.finish()


class _StageRestored(_Restore):
    """A copy that is larger than its source is grown when it is staged."""

    larger = True

    def prepare(self) -> None:
        super().prepare()
        self.copy.create()
        self.copy.attach()

    def act(self) -> None:
        self.copy.stage()


class _Clone(_Restore):
    def prepare(self) -> None:
        self.life.rest()
        self.copy = Life(self.world, self.sort, source=self.life.from_volume, data=self.life.data)


class _Delete(Act):
    def prepare(self) -> None:
        self.life.rest()

    def act(self) -> None:
        self.life.delete()

    def finish(self) -> None:
        self.life.delete()


class _Attach(Act):
    def prepare(self) -> None:
        self.life.create()

    def act(self) -> None:
        self.life.attach()


class _Detach(Act):
    def prepare(self) -> None:
        self.life.create()
        self.life.attach()

    def act(self) -> None:
        self.life.detach()


class _Stage(_Detach):
    def act(self) -> None:
        self.life.stage()


class _StageGrown(Act):
    """What grew while nobody used it is grown inside when it is staged."""

    def prepare(self) -> None:
        self.life.rest()
        self.life.expand()

    def act(self) -> None:
        self.life.stage()


class _Publish(Act):
    def prepare(self) -> None:
        self.life.create()
        self.life.stage()

    def act(self) -> None:
        self.life.publish()


class _Unpublish(Act):
    def prepare(self) -> None:
        self.life.fill()

    def act(self) -> None:
        self.life.unpublish()


class _Unstage(Act):
    def prepare(self) -> None:
        self.life.fill()
        self.life.unpublish()

    def act(self) -> None:
        self.life.unstage()


class _Expand(Act):
    def prepare(self) -> None:
        if self.sort.grows_online:
            self.life.fill()
        else:
            self.life.rest()

    def act(self) -> None:
        self.life.expand()

    def finish(self) -> None:
        if self.sort.grows_online:
            self.life.grow()
        super().finish()


class _Modify(Act):
    def prepare(self) -> None:
        self.life.bring_up()

    def act(self) -> None:
        self.life.modify()


class _Grow(Act):
    def prepare(self) -> None:
        self.life.fill()
        self.life.expand()

    def act(self) -> None:
        self.life.grow()


class _Snapshot(Act):
    def prepare(self) -> None:
        if self.sort.moments_in_use:
            self.life.fill()
        else:
            self.life.rest()

    def act(self) -> None:
        self.life.snapshot()


class _DeleteSnapshot(Act):
    def prepare(self) -> None:
        self.life.rest()
        self.life.snapshot()

    def act(self) -> None:
        self.life.delete_snapshots()

    def finish(self) -> None:
        self.life.delete_snapshots()
        self.life.forget_snapshots()
        super().finish()


class _Group(Act):
    def prepare(self) -> None:
        self.other = Life(self.world, self.sort)
        self.members: list[str] = []
        self.group_id = ""
        in_use = self.sort.moments_in_use and self.sort.capability.mount.fs_type
        for life in (self.life, self.other):
            life.fill() if in_use else life.rest()

    def act(self) -> None:
        self._take()

    def finish(self) -> None:
        self._take()
        for life, member in zip((self.life, self.other), self.members, strict=True):
            restored = Life(
                self.world,
                self.sort,
                source=partial(requests.from_snapshot, member),
                data=life.data,
            )
            restored.finish()
        self._drop()
        self.life.finish()
        self.other.finish()

    def _take(self) -> None:
        request = requests.create_group(
            f"group-{self.life.name}", [self.life.volume_id, self.other.volume_id]
        )
        world = self.world
        answer = world.call(lambda: world.driver.group.CreateVolumeGroupSnapshot(request))
        group = answer.group_snapshot
        self.group_id = group.group_snapshot_id
        by_source = {member.source_volume_id: member for member in group.snapshots}
        self.members = [by_source[life.volume_id].snapshot_id for life in (self.life, self.other)]
        world.wait_for_background()

    def _drop(self) -> None:
        request = requests.delete_group(self.group_id, self.members)
        world = self.world
        world.call(lambda: world.driver.group.DeleteVolumeGroupSnapshot(request))
        world.wait_for_background()


class _DeleteGroup(_Group):
    def prepare(self) -> None:
        super().prepare()
        self._take()

    def act(self) -> None:
        self._drop()

    def finish(self) -> None:
        self._drop()
        self.life.finish()
        self.other.finish()


class _Inline(Act):
    def prepare(self) -> None:
        self.life.be_inline()

    def act(self) -> None:
        self.life.publish()

    def finish(self) -> None:
        self.life.publish()
        self.life.check()
        self.life.unpublish()
        self.world.wait_for_background()


class _EndInline(_Inline):
    def prepare(self) -> None:
        super().prepare()
        self.life.publish()

    def act(self) -> None:
        self.life.unpublish()
        self.world.wait_for_background()

    def finish(self) -> None:
        self.act()


@dataclass(frozen=True)
class Scenario:
    """A call, for one sort of volume."""

    rpc: str
    sort_name: str
    kind: type[Act]

    @property
    def name(self) -> str:
        """For people and for seeds."""
        return f"{self.rpc} {self.sort_name}"

    @property
    def pool(self) -> str:
        """The filesystem of the pool it needs."""
        return SORTS[self.sort_name].pool

    def begin(self, world: World) -> Act:
        """Returns a new one, nothing done yet."""
        return self.kind(world, SORTS[self.sort_name])


_FILESYSTEMS = ("ext4", "xfs", "btrfs", "copied")
_EACH = tuple(name for name in SORTS if name != "thick")
_CALLS: dict[str, tuple[type[Act], Sequence[str]]] = {
    "CreateVolume": (_Create, tuple(SORTS)),
    "CreateVolume from a snapshot": (_Restore, tuple(SORTS)),
    "CreateVolume from a volume": (_Clone, tuple(SORTS)),
    "DeleteVolume": (_Delete, tuple(SORTS)),
    "ControllerPublishVolume": (_Attach, ("ext4",)),
    "ControllerUnpublishVolume": (_Detach, ("ext4",)),
    "NodeStageVolume": (_Stage, _EACH),
    "NodeStageVolume after growth": (_StageGrown, _FILESYSTEMS),
    "NodeStageVolume of a larger copy": (_StageRestored, _FILESYSTEMS),
    "NodePublishVolume": (_Publish, _EACH),
    "NodeUnpublishVolume": (_Unpublish, _EACH),
    "NodeUnstageVolume": (_Unstage, _EACH),
    "ControllerExpandVolume": (_Expand, tuple(SORTS)),
    "ControllerModifyVolume": (_Modify, ("ext4", "block")),
    "NodeExpandVolume": (_Grow, tuple(n for n in _EACH if SORTS[n].grows_online)),
    "CreateSnapshot": (_Snapshot, _EACH),
    "DeleteSnapshot": (_DeleteSnapshot, _EACH),
    "CreateVolumeGroupSnapshot": (_Group, _EACH),
    "DeleteVolumeGroupSnapshot": (_DeleteGroup, ("ext4", "directory", "copied")),
    "NodePublishVolume inline": (_Inline, ("ext4", "xfs")),
    "NodeUnpublishVolume inline": (_EndInline, ("ext4", "xfs")),
}

SCENARIOS = tuple(
    Scenario(rpc, sort, kind) for rpc, (kind, sorts) in _CALLS.items() for sort in sorts
)
