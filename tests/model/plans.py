"""Which call a few numbers stand for, by what is so: they come from hypothesis or from chance."""

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tests.contract.requests import UNKNOWN_GROUP, UNKNOWN_SNAPSHOT
from tests.crash.lives import Sort
from tests.model import controller_calls as controller
from tests.model import node_calls as node
from tests.model import snapshot_calls as snapshots
from tests.model.book import Book, Call
from tests.model.operations import Operation

PODS = 2


class Family(NamedTuple):
    """Volumes of one sort, and snapshots of them; copies stay in the family."""

    name: str
    sort: Sort
    volumes: int = 3
    snapshots: int = 2

    def volume(self, number: int) -> str:
        """The slot of a volume."""
        return f"{self.name}-volume-{number % self.volumes}"

    def snapshot(self, number: int) -> str:
        """The slot of a snapshot."""
        return f"{self.name}-snapshot-{number % self.snapshots}"


class Choice(NamedTuple):
    """What is to be done, as numbers that mean something whatever is so."""

    what: str
    family: int
    volume: int
    other: int


class Planner:
    """Makes calls of choices, for one caller.

    Args:
        book: What the caller knows.
        families: Its volumes.
        prefix: What the names of all it makes begin with.
        groups: How many groups it may have; one has a volume each of the families of one pool.
        pods: How many pods with volumes of their own it may have.
    """

    def __init__(
        self, book: Book, families: Sequence[Family], prefix: str, groups: int = 2, pods: int = 2
    ) -> None:
        self.book = book
        self.families = families
        self.groups = groups
        self.pods = pods
        self._prefix = prefix
        self._written = 0

    def calls(self, choices: Sequence[Choice]) -> list[Operation]:
        """Returns what is to be done, once the open calls that it concerns are settled."""
        slots = {slot for one in map(self._plan, choices) for slot in one.slots}
        self.book.settle(slots)
        operations = [self._plan(choice) for choice in choices]
        # A pod that is being ended does not read or write any more, and keeps nothing open.
        ending = {one.slots[0] for one in operations if isinstance(one, node.Unpublish)}
        of_pods = (node.Read, node.Write)
        return [
            one for one in operations if not (isinstance(one, of_pods) and one.slots[0] in ending)
        ]

    def _plan(self, choice: Choice) -> Operation:
        return PLANS[choice.what](self, choice)

    # --- what a choice stands for --------------------------------------------------------------

    def up(self, choice: Choice) -> Operation:
        """The next step that Kubernetes takes to bring a volume to a pod, and then the pod's."""
        volume = self.book.state.volume(self._family(choice).volume(choice.volume))
        if volume is None:
            return self.create(choice)
        if not volume.attached:
            return self.on_volume(controller.Attach, choice)
        if not volume.staged:
            return self.on_node(node.Stage, choice)
        if len(volume.pods) <= choice.other % PODS:
            return self.in_pod(node.Publish, choice)
        return self.read(choice) if choice.other % 3 == 0 else self.write(choice)

    def down(self, choice: Choice) -> Operation:
        """The next step that Kubernetes takes to end a pod and its volume."""
        volume = self.book.state.volume(self._family(choice).volume(choice.volume))
        if volume is None:
            return self.on_volume(controller.DeleteVolume, choice)
        if volume.pods:
            return self.in_pod(node.Unpublish, choice._replace(other=min(volume.pods)))
        if volume.staged:
            return self.on_node(node.Unstage, choice)
        if volume.attached:
            return self.on_volume(controller.Detach, choice)
        return self.on_volume(controller.DeleteVolume, choice)

    def create(self, choice: Choice) -> Operation:
        """An empty volume, of one size or another."""
        family = self._family(choice)
        slot = family.volume(choice.volume)
        size = family.sort.grown if choice.other % 4 == 3 else family.sort.size
        return controller.CreateVolume((slot,), family.sort, self._name(slot), size)

    def clone(self, choice: Choice) -> Operation:
        """A copy of another volume."""
        family = self._family(choice)
        return self._copy(choice, family.volume(choice.volume + 1 + choice.other), False)

    def restore(self, choice: Choice) -> Operation:
        """A copy of a snapshot."""
        return self._copy(choice, self._family(choice).snapshot(choice.other), True)

    def restore_member(self, choice: Choice, group: str, member_id: str) -> Operation:
        """A copy of a member of a group."""
        family = self._family(choice)
        slot = family.volume(choice.volume)
        name, size = self._name(slot), family.sort.size
        return controller.CreateVolume((slot, group), family.sort, name, size, member_id, True)

    def _copy(self, choice: Choice, source: str, of_snapshot: bool) -> Operation:
        family = self._family(choice)
        slot = family.volume(choice.volume)
        if source == slot or source not in self.book.ids:
            return self.create(choice)
        name, size, source_id = self._name(slot), family.sort.size, self.book.ids[source]
        return controller.CreateVolume(
            (slot, source), family.sort, name, size, source_id, of_snapshot
        )

    def on_volume(self, call: type[controller.OnVolume], choice: Choice) -> Operation:
        """A call that needs the volume's id alone."""
        family = self._family(choice)
        slot = family.volume(choice.volume)
        return call((slot,), family.sort, self._volume_id(slot))

    def modify(self, choice: Choice) -> Operation:
        """Another limit, or none."""
        family = self._family(choice)
        slot = family.volume(choice.volume)
        limit = ("1000", "2000", "max")[choice.other % 3]
        return controller.Modify((slot,), family.sort, self._volume_id(slot), limit)

    def on_node(self, call: type[node.OnNode], choice: Choice) -> node.OnNode:
        """A call on a volume on the node."""
        family = self._family(choice)
        slot = family.volume(choice.volume)
        return call((slot,), family.sort, self._volume_id(slot), self._name(slot))

    def in_pod(self, call: type[node.InPod], choice: Choice) -> Operation:
        """A call on a volume in a pod."""
        family = self._family(choice)
        slot = family.volume(choice.volume)
        pod = choice.other % PODS
        return call((slot,), family.sort, self._volume_id(slot), self._name(slot), pod)

    def unstage(self, choice: Choice) -> Operation:
        """Unstaging; while pods have the volume, the kubelet unpublishes instead."""
        volume = self.book.state.volume(self._family(choice).volume(choice.volume))
        return self.down(choice) if volume and volume.pods else self.on_node(node.Unstage, choice)

    def read(self, choice: Choice) -> Operation:
        """A pod that has the volume reads; where none has, one is brought up."""
        pod = self._pod(choice)
        if pod is None:
            return self.in_pod(node.GetStats, choice)
        return self.in_pod(node.Read, choice._replace(other=pod))

    def write(self, choice: Choice) -> Operation:
        """A pod that has the volume writes."""
        pod = self._pod(choice)
        if pod is None:
            return self.in_pod(node.GetStats, choice)
        family = self._family(choice)
        slot = family.volume(choice.volume)
        self._written += 1
        token = f"{self._name(slot)} {self._written}"
        return node.Write((slot,), family.sort, self._volume_id(slot), self._name(slot), pod, token)

    def snapshot(self, choice: Choice) -> Operation:
        """A snapshot of a volume."""
        family = self._family(choice)
        volume, slot = family.volume(choice.volume), family.snapshot(choice.other)
        return snapshots.CreateSnapshot(
            (slot, volume), family.sort, self._name(slot), self._volume_id(volume)
        )

    def delete_snapshot(self, choice: Choice) -> Operation:
        """The end of a snapshot."""
        slot = self._family(choice).snapshot(choice.other)
        snapshot_id = self.book.ids.get(slot, UNKNOWN_SNAPSHOT)
        return snapshots.DeleteSnapshot((slot,), self._family(choice).sort, snapshot_id)

    def get_snapshot(self, choice: Choice) -> Operation:
        """A look at a snapshot, or at its blocks."""
        slot = self._family(choice).snapshot(choice.other)
        snapshot_id = self.book.ids.get(slot, UNKNOWN_SNAPSHOT)
        call = snapshots.GetAllocated if choice.volume % 2 else snapshots.GetSnapshot
        return call((slot,), self._family(choice).sort, snapshot_id)

    def group(self, choice: Choice) -> Operation:
        """A group of a volume each of the families in one pool."""
        pool = self._family(choice).sort.pool
        families = [family for family in self.families if family.sort.pool == pool]
        slots = [family.volume(choice.volume) for family in families]
        group = self._group_slot(choice)
        return snapshots.CreateGroup(
            (group, *slots),
            families[0].sort,
            self._name(group),
            tuple(self._volume_id(slot) for slot in slots),
            tuple(family.sort for family in families),
        )

    def on_group(self, call: type[snapshots.OnGroup], choice: Choice) -> Operation:
        """A call on a group."""
        slot = self._group_slot(choice)
        members = self.book.members.get(slot, (UNKNOWN_SNAPSHOT,))
        group_id = self.book.ids.get(slot, UNKNOWN_GROUP)
        return call((slot,), self._family(choice).sort, group_id, members)

    def inline(self, call: type[node.OnInline], choice: Choice) -> node.OnInline:
        """A pod with a volume of its own."""
        slot = f"pod-{choice.other % self.pods}"
        return call((slot,), self._family(choice).sort, self._name(slot))

    def look_around(self, choice: Choice) -> Operation:
        """A call about no volume in particular."""
        sort = self._family(choice).sort
        if choice.other % 3 == 0:
            return controller.ListVolumes((), sort, 1 + choice.volume)
        if choice.other % 3 == 1:
            return snapshots.ListSnapshots((), sort, 1 + choice.volume)
        return controller.GetCapacity((), sort)

    # --- names ---------------------------------------------------------------------------------

    def _family(self, choice: Choice) -> Family:
        return self.families[choice.family % len(self.families)]

    def _name(self, slot: str) -> str:
        return f"{self._prefix}-{slot}"

    def _volume_id(self, slot: str) -> str:
        if slot in self.book.ids:
            return self.book.ids[slot]
        # One that was never given out, and another one for each slot.
        key = hashlib.sha256(slot.encode()).hexdigest()[:32]
        return f"vol-0123456789ab-{key}-0123456789"

    def _group_slot(self, choice: Choice) -> str:
        return f"group-{choice.other % self.groups}"

    def _pod(self, choice: Choice) -> int | None:
        """A pod that surely has the volume."""
        slot = self._family(choice).volume(choice.volume)
        volumes = [world.volume(slot) for world in self.book.worlds]
        pods = [volume.pods if volume else frozenset() for volume in volumes]
        return min(frozenset.intersection(*pods), default=None)


def _volume(call: type[controller.OnVolume]) -> "Plan":
    return lambda planner, choice: planner.on_volume(call, choice)


def _in_pod(call: type[node.InPod]) -> "Plan":
    return lambda planner, choice: planner.in_pod(call, choice)


def _group(call: type[snapshots.OnGroup]) -> "Plan":
    return lambda planner, choice: planner.on_group(call, choice)


def _inline(call: type[node.OnInline]) -> "Plan":
    return lambda planner, choice: planner.inline(call, choice)


Plan = Callable[[Planner, Choice], Operation]
PLANS: dict[str, Plan] = {
    "up": Planner.up,
    "down": Planner.down,
    "create": Planner.create,
    "clone": Planner.clone,
    "restore": Planner.restore,
    "delete": _volume(controller.DeleteVolume),
    "attach": _volume(controller.Attach),
    "detach": _volume(controller.Detach),
    "expand": _volume(controller.Expand),
    "modify": Planner.modify,
    "get": _volume(controller.GetVolume),
    "validate": _volume(controller.Validate),
    "stage": lambda planner, choice: planner.on_node(node.Stage, choice),
    "unstage": Planner.unstage,
    "publish": _in_pod(node.Publish),
    "unpublish": _in_pod(node.Unpublish),
    "grow": _in_pod(node.GrowOnNode),
    "stats": _in_pod(node.GetStats),
    "read": Planner.read,
    "write": Planner.write,
    "snapshot": Planner.snapshot,
    "delete snapshot": Planner.delete_snapshot,
    "get snapshot": Planner.get_snapshot,
    "group": Planner.group,
    "get group": _group(snapshots.GetGroup),
    "delete group": _group(snapshots.DeleteGroup),
    "delete member": _group(snapshots.DeleteMember),
    "start pod": _inline(node.StartPod),
    "end pod": _inline(node.EndPod),
    "look around": Planner.look_around,
}
WEIGHTED = [*PLANS, *["up"] * 10, *["down"] * 4, *["snapshot", "restore", "clone"] * 2]
"""What is drawn from: mostly what leads somewhere."""


def patiently(operations: Sequence[Operation]) -> list[Call]:
    """Calls that are repeated until they are answered."""
    return [Call(operation) for operation in operations]
