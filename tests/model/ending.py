"""What is seen of the driver and the kernel besides answers, and the end of all a caller made."""

from collections.abc import Iterator

from csi.v1 import csi_pb2 as pb
from tests.contract import requests
from tests.contract.node_fixtures import all_mounts
from tests.crash.world import ViolationError
from tests.model import controller_calls as controller
from tests.model import node_calls as node
from tests.model import snapshot_calls as snapshots
from tests.model.operations import Line, Operation, patient
from tests.model.plans import PODS, Choice, Planner, patiently
from tests.model.states import Group, Inline, Snapshot, State, Volume


class Ending:
    """Looks at what a caller made, and takes it away piece by piece, reading everything back."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self._book = planner.book
        self._line = planner.book.line

    def look(self) -> None:
        """Expects that lists and mounts are as they may be. No call may be open.

        Raises:
            ViolationError: They are not.
        """
        volumes, snapshots_ = _listed_volumes(self._line), _listed_snapshots(self._line)
        known = self._book.known
        seen = {
            **{key: value for key, value in volumes.items() if key in known},
            **{key: value for key, value in snapshots_.items() if key in known},
        }
        mounted = {mount.path for mount in all_mounts()}

        def is_so(state: State) -> bool:
            return _to_be_listed(state) == seen and self._mounts_are(state, mounted)

        self._book.narrow(is_so, f"seen: {seen}, mounted: {sorted(mounted)}")

    def close(self) -> None:
        """Reads every volume and every snapshot, and takes all away.

        Raises:
            ViolationError: Something is not as it should be.
        """
        self._book.settle_all()
        for number, family in enumerate(self._planner.families):
            for volume in range(family.volumes):
                self._read_back(Choice("", number, volume, 0))
        for number, family in enumerate(self._planner.families):
            for snapshot in range(family.snapshots):
                self._restore(Choice("", number, 0, snapshot), family.snapshot(snapshot))
            for group in range(self._planner.groups):
                self._restore_members(number, f"group-{group}")
        for group in range(self._planner.groups):
            choice = Choice("", 0, 0, group)
            self._run(self._planner.on_group(snapshots.DeleteGroup, choice))
        for pod in range(self._planner.pods):
            self._run(self._planner.inline(node.EndPod, Choice("", 0, 0, pod)))
        self.look()
        if self._book.worlds != {State()}:
            raise ViolationError(self._book.story("not everything was taken away"))

    def _read_back(self, choice: Choice) -> None:
        """Takes one volume off the node and reads it anew, then deletes it."""
        planner = self._planner
        slot = planner.families[choice.family].volume(choice.volume)
        if self._book.state.volume(slot) is not None:
            self._take_down(choice)
            for call in (node.Stage, node.Unstage):
                self._run(planner.on_node(call, choice))
                if call is node.Stage:
                    self._run(planner.in_pod(node.Publish, choice))
                    self._run(planner.in_pod(node.Read, choice))
                    self._run(planner.in_pod(node.GrowOnNode, choice))
                    self._run(planner.in_pod(node.Unpublish, choice))
        self._run(planner.on_volume(controller.DeleteVolume, choice))

    def _take_down(self, choice: Choice) -> None:
        for pod in range(PODS):
            self._run(self._planner.in_pod(node.Unpublish, choice._replace(other=pod)))
        self._run(self._planner.on_node(node.Unstage, choice))
        self._run(self._planner.on_volume(controller.Detach, choice))

    def _restore(self, choice: Choice, slot: str) -> None:
        """Reads a snapshot by making a volume of it, then deletes it."""
        if self._book.state.snapshot(slot) is not None:
            self._run(self._planner.restore(choice))
            self._read_back(choice)
        self._run(self._planner.delete_snapshot(choice))

    def _restore_members(self, number: int, slot: str) -> None:
        """Reads the members of a group that are of a family."""
        group = self._book.state.group(slot)
        family = self._planner.families[number]
        if group is None:
            return
        choice = Choice("", number, 0, 0)
        for member in group.members:
            if member.slot in map(family.volume, range(family.volumes)):
                self._run(self._planner.restore_member(choice, slot, member.id))
                self._read_back(choice)

    def _run(self, operation: Operation) -> None:
        self._book.run(patiently([operation]))

    def _mounts_are(self, state: State, mounted: set[str]) -> bool:
        """Whether each volume is mounted where it should be, and nowhere else."""
        return all((str(place) in mounted) is there for place, there in self._places(state))

    def _places(self, state: State) -> Iterator[tuple[object, bool]]:
        kubelet, planner = self._line.kubelet, self._planner
        for number, family in enumerate(planner.families):
            for one in range(family.volumes):
                slot = family.volume(one)
                if slot not in self._book.ids:
                    continue
                volume = state.volume(slot)
                staged = volume is not None and volume.staged
                pods = volume.pods if volume is not None else frozenset()
                call = planner.on_node(node.Stage, Choice("", number, one, 0))
                staging = call.staging(kubelet)
                yield staging / node.DEVICE if call.is_block else staging, staged
                for pod in range(PODS):
                    yield call.target(kubelet, pod), pod in pods
        for one in range(planner.pods):
            call_of_pod = planner.inline(node.StartPod, Choice("", 0, 0, one))
            there = state.things.get(call_of_pod.slots[0])
            yield call_of_pod.target(kubelet), there == Inline(mounted=True)


def _to_be_listed(state: State) -> dict[str, object]:
    wanted: dict[str, object] = {}
    for thing in state.things.values():
        if isinstance(thing, Volume):
            wanted[thing.id] = (thing.size, thing.attached)
        elif isinstance(thing, Snapshot):
            wanted[thing.id] = (thing.size, thing.source)
        elif isinstance(thing, Group):
            wanted |= {member.id: (member.size, member.source) for member in thing.members}
    return wanted


def _listed_volumes(line: Line) -> dict[str, object]:
    found: dict[str, object] = {}
    token = ""
    while True:
        request = requests.list_volumes(token, max_entries=50)
        reply: pb.ListVolumesResponse = patient(line.controller.ListVolumes, request)
        for entry in reply.entries:
            volume, nodes = entry.volume, entry.status.published_node_ids
            found[volume.volume_id] = (volume.capacity_bytes, bool(nodes))
        token = reply.next_token
        if not token:
            return found


def _listed_snapshots(line: Line) -> dict[str, object]:
    found: dict[str, object] = {}
    token = ""
    while True:
        request = requests.list_snapshots(token=token, max_entries=50)
        reply: pb.ListSnapshotsResponse = patient(line.controller.ListSnapshots, request)
        for entry in reply.entries:
            one = entry.snapshot
            found[one.snapshot_id] = (one.size_bytes, one.source_volume_id)
        token = reply.next_token
        if not token:
            return found
