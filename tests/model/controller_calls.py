"""The calls of the Controller service on volumes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from google.protobuf.message import Message

from csi.v1 import csi_pb2 as pb
from tests.contract import requests
from tests.contract.refusals import Code
from tests.driver import NODE_ID
from tests.model.operations import Answer, Line, Operation, Outcome
from tests.model.states import UNKNOWN_ID, Snapshot, State, Volume

LIMIT = "readIOPS"

R = TypeVar("R", bound=Message)


@dataclass(frozen=True)
class OnVolume(Operation):
    """A call on the volume in the first slot, which had that id when the call was made up."""

    volume_id: str

    @property
    def slot(self) -> str:
        """The volume's slot."""
        return self.slots[0]


@dataclass(frozen=True)
class CreateVolume(Operation):
    """CreateVolume, empty or from what is in the second slot.

    Attributes:
        name: The volume's name.
        size: The bytes that are asked for.
        source_id: The id of the source, or nothing.
        of_snapshot: Whether the source is a snapshot.
    """

    name: str
    size: int
    source_id: str = ""
    of_snapshot: bool = False

    def request(self, line: Line) -> tuple[Any, Message]:
        source = None
        if self.source_id:
            from_source = requests.from_snapshot if self.of_snapshot else requests.from_volume
            source = from_source(self.source_id)
        return line.controller.CreateVolume, requests.create_volume(
            self.name,
            size=self.size,
            capabilities=[self.sort.capability],
            parameters={"pool": self.sort.pool, **self.sort.parameters},
            source=source,
        )

    def outcomes(self, state: State, answer: Answer) -> Iterator[Outcome]:
        told: pb.Volume | None = answer.reply.volume if answer.reply is not None else None
        there = state.volume(self.slots[0])
        if there is not None:
            if there.source != self.source_id or there.size < self.size:
                yield Outcome(Code.ALREADY_EXISTS, state)
            else:
                yield from self._made(state, there, told)
            return
        size, token = self.size, ""
        if self.source_id:
            origin = self._origin(state)
            if origin is None:
                yield Outcome(Code.NOT_FOUND, state)
                return
            size, token = max(size, origin.size), origin.token
            if isinstance(origin, Volume) and not self.sort.moments_in_use:
                if origin.in_use or origin.loose:
                    yield Outcome(Code.FAILED_PRECONDITION, state)
                if origin.in_use:
                    return
        made = Volume(UNKNOWN_ID, size, self.source_id, token)
        yield from self._made(state, made, told)

    def _origin(self, state: State) -> Volume | Snapshot | None:
        if not self.of_snapshot:
            return state.volume(self.slots[1], self.source_id)
        group = state.group(self.slots[1])
        members = {member.id: member for member in group.members} if group else {}
        return members.get(self.source_id) or state.snapshot(self.slots[1], self.source_id)

    def _made(self, state: State, volume: Volume, told: pb.Volume | None) -> Iterator[Outcome]:
        if told is not None:
            if volume.id not in (UNKNOWN_ID, told.volume_id) or told.capacity_bytes != volume.size:
                return
            volume = volume._replace(id=told.volume_id)
        yield Outcome(Code.OK, state.having(self.slots[0], volume))


class DeleteVolume(OnVolume):
    """DeleteVolume."""

    def request(self, line: Line) -> tuple[Any, Message]:
        return line.controller.DeleteVolume, requests.delete_volume(self.volume_id)

    def outcomes(self, state: State, answer: Answer) -> Iterator[Outcome]:
        volume = state.volume(self.slot, self.volume_id)
        if volume is None:
            yield Outcome(Code.OK, state)
            return
        used = volume.attached or volume.in_use
        if used or volume.loose:
            yield Outcome(Code.FAILED_PRECONDITION, state)
        if not used:
            yield Outcome(Code.OK, state.having(self.slot, None))


@dataclass(frozen=True)
class _Change(OnVolume, Generic[R]):
    """A call that succeeds on every volume there is and changes it somehow."""

    def changed(self, volume: Volume) -> Volume:
        """Returns what comes of the volume."""
        return volume

    def is_right(self, volume: Volume, reply: R) -> bool:
        """Whether an answer tells what is so afterwards."""
        return True

    def outcomes(self, state: State, answer: Answer) -> Iterator[Outcome]:
        volume = state.volume(self.slot, self.volume_id)
        if volume is None:
            yield Outcome(Code.NOT_FOUND, state)
            return
        changed = self.changed(volume)
        if answer.reply is None or self.is_right(changed, answer.reply):
            yield Outcome(Code.OK, state.having(self.slot, changed))


class Attach(_Change[pb.ControllerPublishVolumeResponse]):
    """ControllerPublishVolume."""

    def request(self, line: Line) -> tuple[Any, Message]:
        request = requests.controller_publish(self.volume_id, self.sort.capability)
        return line.controller.ControllerPublishVolume, request

    def changed(self, volume: Volume) -> Volume:
        return volume._replace(attached=True)


class Detach(OnVolume):
    """ControllerUnpublishVolume."""

    def request(self, line: Line) -> tuple[Any, Message]:
        request = requests.controller_unpublish(self.volume_id)
        return line.controller.ControllerUnpublishVolume, request

    def outcomes(self, state: State, answer: Answer) -> Iterator[Outcome]:
        volume = state.volume(self.slot, self.volume_id)
        if volume is not None:
            state = state.having(self.slot, volume._replace(attached=False))
        yield Outcome(Code.OK, state)


class Expand(_Change[pb.ControllerExpandVolumeResponse]):
    """ControllerExpandVolume, to the size that volumes of this sort grow to."""

    def request(self, line: Line) -> tuple[Any, Message]:
        request = requests.controller_expand(self.volume_id, self.sort.grown)
        return line.controller.ControllerExpandVolume, request

    def changed(self, volume: Volume) -> Volume:
        return volume._replace(size=max(volume.size, self.sort.grown))

    def is_right(self, volume: Volume, reply: pb.ControllerExpandVolumeResponse) -> bool:
        return reply.capacity_bytes == volume.size


@dataclass(frozen=True)
class Modify(OnVolume):
    """ControllerModifyVolume: a limit of reads, or none."""

    limit: str

    def request(self, line: Line) -> tuple[Any, Message]:
        request = requests.modify(self.volume_id, {LIMIT: self.limit})
        return line.controller.ControllerModifyVolume, request

    def outcomes(self, state: State, answer: Answer) -> Iterator[Outcome]:
        if state.volume(self.slot, self.volume_id) is None:
            yield Outcome(Code.NOT_FOUND, state)
        elif self.sort.parameters.get("kind") == "directory" and self.limit != "max":
            yield Outcome(Code.INVALID_ARGUMENT, state)
        else:
            yield Outcome(Code.OK, state)


class GetVolume(_Change[pb.ControllerGetVolumeResponse]):
    """ControllerGetVolume."""

    changes: ClassVar[bool] = False

    def request(self, line: Line) -> tuple[Any, Message]:
        return line.controller.ControllerGetVolume, requests.get_volume(self.volume_id)

    def is_right(self, volume: Volume, reply: pb.ControllerGetVolumeResponse) -> bool:
        nodes = [NODE_ID] if volume.attached else []
        return bool(
            reply.volume.capacity_bytes == volume.size
            and reply.status.published_node_ids == nodes
            and not reply.status.volume_condition.abnormal
        )


class Validate(_Change[pb.ValidateVolumeCapabilitiesResponse]):
    """ValidateVolumeCapabilities."""

    changes: ClassVar[bool] = False

    def request(self, line: Line) -> tuple[Any, Message]:
        request = requests.validate(self.volume_id, [self.sort.capability])
        return line.controller.ValidateVolumeCapabilities, request

    def is_right(self, volume: Volume, reply: pb.ValidateVolumeCapabilitiesResponse) -> bool:
        return reply.HasField("confirmed")


@dataclass(frozen=True)
class ListVolumes(Operation):
    """ListVolumes: a page, while others come and go."""

    entries: int
    changes: ClassVar[bool] = False

    def request(self, line: Line) -> tuple[Any, Message]:
        return line.controller.ListVolumes, requests.list_volumes(max_entries=self.entries)

    def outcomes(self, state: State, answer: Answer) -> Iterator[Outcome]:
        if answer.reply is None or len(answer.reply.entries) <= self.entries:
            yield Outcome(Code.OK, state)


class GetCapacity(Operation):
    """GetCapacity of the pool that the sort lies in."""

    changes: ClassVar[bool] = False

    def request(self, line: Line) -> tuple[Any, Message]:
        request = requests.get_capacity(parameters={"pool": self.sort.pool, **self.sort.parameters})
        return line.controller.GetCapacity, request

    def outcomes(self, state: State, answer: Answer) -> Iterator[Outcome]:
        if answer.reply is None or answer.reply.available_capacity > 0:
            yield Outcome(Code.OK, state)
