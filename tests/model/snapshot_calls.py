"""The calls on snapshots and on groups of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from google.protobuf.message import Message

from csi.v1 import csi_pb2 as pb
from tests.contract import requests
from tests.contract.refusals import Code
from tests.crash.lives import Sort
from tests.model.operations import Answer, Line, Manner, Operation, Outcome
from tests.model.states import UNKNOWN_ID, Group, Snapshot, State, Volume


@dataclass(frozen=True)
class CreateSnapshot(Operation):
    """CreateSnapshot; the slots are the snapshot's and its volume's."""

    name: str
    volume_id: str

    def request(self, line: Line) -> tuple[Any, Message]:
        request = requests.create_snapshot(self.name, self.volume_id)
        return line.controller.CreateSnapshot, request

    def outcomes(self, state: State, answer: Answer) -> Iterator[Outcome]:
        told = answer.reply.snapshot if answer.reply is not None else None
        there = state.snapshot(self.slots[0])
        if there is None:
            volume = state.volume(self.slots[1], self.volume_id)
            if volume is None:
                yield Outcome(Code.NOT_FOUND, state)
                return
            if not self.sort.moments_in_use:
                if volume.in_use or volume.loose:
                    yield Outcome(Code.FAILED_PRECONDITION, state)
                if volume.in_use:
                    return
            there = Snapshot(UNKNOWN_ID, volume.id, self.slots[1], volume.size, volume.token)
        elif there.source != self.volume_id:
            yield Outcome(Code.ALREADY_EXISTS, state)
            return
        if told is not None:
            if there.id not in (UNKNOWN_ID, told.snapshot_id) or told.size_bytes != there.size:
                return
            there = there._replace(id=told.snapshot_id)
        yield Outcome(Code.OK, state.having(self.slots[0], there))


@dataclass(frozen=True)
class DeleteSnapshot(Operation):
    """DeleteSnapshot."""

    snapshot_id: str

    def request(self, line: Line) -> tuple[Any, Message]:
        return line.controller.DeleteSnapshot, requests.delete_snapshot(self.snapshot_id)

    def outcomes(self, state: State, answer: Answer) -> Iterator[Outcome]:
        if state.snapshot(self.slots[0], self.snapshot_id) is not None:
            state = state.having(self.slots[0], None)
        yield Outcome(Code.OK, state)


@dataclass(frozen=True)
class GetSnapshot(Operation):
    """GetSnapshot."""

    snapshot_id: str
    changes: ClassVar[bool] = False

    def request(self, line: Line) -> tuple[Any, Message]:
        return line.controller.GetSnapshot, requests.get_snapshot(self.snapshot_id)

    def outcomes(self, state: State, answer: Answer) -> Iterator[Outcome]:
        there = state.snapshot(self.slots[0], self.snapshot_id)
        if there is None:
            yield Outcome(Code.NOT_FOUND, state)
        elif answer.reply is None or answer.reply.snapshot.size_bytes == there.size:
            yield Outcome(Code.OK, state)


@dataclass(frozen=True)
class GetAllocated(Operation):
    """GetMetadataAllocated of a snapshot; directories have no blocks to tell of."""

    snapshot_id: str
    changes: ClassVar[bool] = False

    def perform(self, line: Line, manner: Manner) -> Answer:
        # A stream is read to its end here, so that it can run into a deadline and no more.
        return super().perform(line, Manner(deadline_ms=manner.deadline_ms or manner.cancel_ms))

    def request(self, line: Line) -> tuple[Any, Message]:
        def all_of(request: pb.GetMetadataAllocatedRequest, timeout: float) -> list[Message]:
            return list(line.metadata.GetMetadataAllocated(request, timeout=timeout))

        return all_of, requests.allocated(self.snapshot_id)

    def outcomes(self, state: State, answer: Answer) -> Iterator[Outcome]:
        there = state.snapshot(self.slots[0], self.snapshot_id)
        if there is None:
            yield Outcome(Code.NOT_FOUND, state)
            return
        if "kind" in self.sort.parameters or not self.sort.moments_in_use:
            yield Outcome(Code.FAILED_PRECONDITION, state)  # a copy may not be whole yet
        if "kind" not in self.sort.parameters:
            yield Outcome(Code.OK, state)


@dataclass(frozen=True)
class ListSnapshots(Operation):
    """ListSnapshots: a page, while others come and go."""

    entries: int
    changes: ClassVar[bool] = False

    def request(self, line: Line) -> tuple[Any, Message]:
        return line.controller.ListSnapshots, requests.list_snapshots(max_entries=self.entries)

    def outcomes(self, state: State, answer: Answer) -> Iterator[Outcome]:
        if answer.reply is None or len(answer.reply.entries) <= self.entries:
            yield Outcome(Code.OK, state)


@dataclass(frozen=True)
class CreateGroup(Operation):
    """CreateVolumeGroupSnapshot; the slots are the group's and those of its volumes.

    Attributes:
        name: The group's name.
        volume_ids: Its volumes.
        sorts: And of which sort they are.
    """

    name: str
    volume_ids: tuple[str, ...]
    sorts: tuple[Sort, ...]

    def request(self, line: Line) -> tuple[Any, Message]:
        request = requests.create_group(self.name, self.volume_ids)
        return line.group.CreateVolumeGroupSnapshot, request

    def outcomes(self, state: State, answer: Answer) -> Iterator[Outcome]:
        there = state.group(self.slots[0])
        if there is None:
            volumes = [
                state.volume(slot, volume_id)
                for slot, volume_id in zip(self.slots[1:], self.volume_ids, strict=True)
            ]
            present = [volume for volume in volumes if volume is not None]
            if len(present) < len(volumes):
                yield Outcome(Code.NOT_FOUND, state)
                return
            pairs = list(zip(present, self.sorts, strict=True))
            if any(not _stands_still(volume, sort) for volume, sort in pairs):
                yield Outcome(Code.FAILED_PRECONDITION, state)
            if any(not _stands_still(v._replace(loose=False), sort) for v, sort in pairs):
                return
            members = tuple(
                Snapshot(UNKNOWN_ID, volume.id, slot, volume.size, volume.token)
                for slot, volume in zip(self.slots[1:], present, strict=True)
            )
            there = Group(UNKNOWN_ID, members)
        elif {member.source for member in there.members} != set(self.volume_ids):
            yield Outcome(Code.ALREADY_EXISTS, state)
            return
        if answer.reply is not None:
            named = _with_ids(there, answer.reply.group_snapshot)
            if named is None:
                return
            there = named
        yield Outcome(Code.OK, state.having(self.slots[0], there))


@dataclass(frozen=True)
class OnGroup(Operation):
    """A call on a group, by its id and those of its members."""

    group_id: str
    member_ids: tuple[str, ...]


class GetGroup(OnGroup):
    """GetVolumeGroupSnapshot."""

    changes: ClassVar[bool] = False

    def request(self, line: Line) -> tuple[Any, Message]:
        return line.group.GetVolumeGroupSnapshot, requests.get_group(self.group_id, self.member_ids)

    def outcomes(self, state: State, answer: Answer) -> Iterator[Outcome]:
        there = state.group(self.slots[0], self.group_id)
        if there is None:
            yield Outcome(Code.NOT_FOUND, state)
        elif answer.reply is None or _with_ids(there, answer.reply.group_snapshot) == there:
            yield Outcome(Code.OK, state)


class DeleteGroup(OnGroup):
    """DeleteVolumeGroupSnapshot."""

    def request(self, line: Line) -> tuple[Any, Message]:
        request = requests.delete_group(self.group_id, self.member_ids)
        return line.group.DeleteVolumeGroupSnapshot, request

    def outcomes(self, state: State, answer: Answer) -> Iterator[Outcome]:
        if state.group(self.slots[0], self.group_id) is not None:
            state = state.having(self.slots[0], None)
        yield Outcome(Code.OK, state)


class DeleteMember(OnGroup):
    """DeleteSnapshot of a member, which goes only with its group."""

    def request(self, line: Line) -> tuple[Any, Message]:
        return line.controller.DeleteSnapshot, requests.delete_snapshot(self.member_ids[0])

    def outcomes(self, state: State, answer: Answer) -> Iterator[Outcome]:
        there = state.group(self.slots[0], self.group_id)
        yield Outcome(Code.OK if there is None else Code.INVALID_ARGUMENT, state)


def _stands_still(volume: Volume, sort: Sort) -> bool:
    """Whether a volume can be held still together with others."""
    mounted_image = not sort.capability.HasField("block") and "kind" not in sort.parameters
    return not (volume.in_use or volume.loose) or (mounted_image and sort.moments_in_use)


def _with_ids(group: Group, told: pb.VolumeGroupSnapshot) -> Group | None:
    """Returns the group with the ids that an answer tells, or None if it tells of another."""
    found = {member.source_volume_id: member for member in told.snapshots}
    if group.id not in (UNKNOWN_ID, told.group_snapshot_id) or len(found) != len(group.members):
        return None
    members = []
    for member in group.members:
        snapshot = found.get(member.source)
        if snapshot is None or snapshot.size_bytes != member.size:
            return None
        if member.id not in (UNKNOWN_ID, snapshot.snapshot_id):
            return None
        members.append(member._replace(id=snapshot.snapshot_id))
    return Group(told.group_snapshot_id, tuple(members))
