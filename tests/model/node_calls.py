"""The calls of the Node service, and what pods do with what they have."""

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from google.protobuf.message import Message

from csi.v1 import csi_pb2 as pb
from tests.contract import requests
from tests.contract.refusals import Code
from tests.contract.requests import MIB, filesystem
from tests.kubelet import Kubelet
from tests.model.controller_calls import OnVolume
from tests.model.operations import Answer, Line, Manner, Operation, Outcome
from tests.model.states import NO_DATA, Inline, State, Volume

TOKEN_BYTES = 4096
INLINE_BYTES = 64 * MIB
DEVICE = "device"
"""The file of a staging path at which a raw device shows."""


@dataclass(frozen=True)
class OnNode(OnVolume):
    """A call on a volume on the node.

    Attributes:
        name: The volume's name, from which paths of block volumes follow.
    """

    name: str

    @property
    def is_block(self) -> bool:
        """Whether it is a raw device."""
        return self.sort.capability.HasField("block")

    def staging(self, kubelet: Kubelet) -> Path:
        """Where it is staged."""
        if self.is_block:
            return kubelet.block_staging_path(self.name)
        return kubelet.staging_path(self.volume_id)

    def target(self, kubelet: Kubelet, pod: int) -> Path:
        """Where a pod has it."""
        if self.is_block:
            return kubelet.block_target_path(self.name, f"{self.name}-{pod}")
        return kubelet.target_path(self.name, f"{self.name}-{pod}")


class Stage(OnNode):
    """NodeStageVolume."""

    def request(self, line: Line) -> tuple[Any, Message]:
        request = requests.stage(self.volume_id, self.staging(line.kubelet), self.sort.capability)
        return line.node.NodeStageVolume, request

    def outcomes(self, state: State, answer: Answer) -> Iterator[Outcome]:
        volume = state.volume(self.slot, self.volume_id)
        if volume is None:
            yield Outcome(Code.NOT_FOUND, state)
            return
        staged = volume._replace(staged=True, loose=False)
        yield Outcome(Code.OK, state.having(self.slot, staged))


class Unstage(OnNode):
    """NodeUnstageVolume."""

    def request(self, line: Line) -> tuple[Any, Message]:
        return line.node.NodeUnstageVolume, requests.unstage(
            self.volume_id, self.staging(line.kubelet)
        )

    def outcomes(self, state: State, answer: Answer) -> Iterator[Outcome]:
        volume = state.volume(self.slot, self.volume_id)
        if volume is not None:
            unstaged = volume._replace(staged=False, loose=bool(volume.pods))
            state = state.having(self.slot, unstaged)
        yield Outcome(Code.OK, state)


@dataclass(frozen=True)
class InPod(OnNode):
    """A call on a volume where a pod has it, or is to have it."""

    pod: int

    def there(self, state: State) -> Volume | None:
        """Returns the volume if the pod has it."""
        volume = state.volume(self.slot, self.volume_id)
        return volume if volume is not None and self.pod in volume.pods else None


class Publish(InPod):
    """NodePublishVolume."""

    def request(self, line: Line) -> tuple[Any, Message]:
        return line.node.NodePublishVolume, requests.publish(
            self.volume_id,
            self.staging(line.kubelet),
            self.target(line.kubelet, self.pod),
            self.sort.capability,
        )

    def outcomes(self, state: State, answer: Answer) -> Iterator[Outcome]:
        volume = state.volume(self.slot, self.volume_id)
        if volume is None:
            yield Outcome(Code.NOT_FOUND, state)
        elif not volume.staged:
            yield Outcome(Code.FAILED_PRECONDITION, state)
        else:
            published = volume._replace(pods=volume.pods | {self.pod})
            yield Outcome(Code.OK, state.having(self.slot, published))


class Unpublish(InPod):
    """NodeUnpublishVolume."""

    def request(self, line: Line) -> tuple[Any, Message]:
        return line.node.NodeUnpublishVolume, requests.unpublish(
            self.volume_id, self.target(line.kubelet, self.pod)
        )

    def outcomes(self, state: State, answer: Answer) -> Iterator[Outcome]:
        volume = state.volume(self.slot, self.volume_id)
        if volume is not None:
            state = state.having(self.slot, volume._replace(pods=volume.pods - {self.pod}))
        yield Outcome(Code.OK, state)


class GrowOnNode(InPod):
    """NodeExpandVolume, to the size that volumes of this sort grow to."""

    def request(self, line: Line) -> tuple[Any, Message]:
        return line.node.NodeExpandVolume, requests.node_expand(
            self.volume_id, self.target(line.kubelet, self.pod), self.sort.grown
        )

    def outcomes(self, state: State, answer: Answer) -> Iterator[Outcome]:
        volume = self.there(state)
        if volume is None:
            yield Outcome(Code.NOT_FOUND, state)
            return
        size = max(volume.size, self.sort.grown)
        state = state.having(self.slot, volume._replace(size=size))
        if not self.sort.grows_online:
            # The volume has its size all the same; its filesystem grows with the next staging.
            yield Outcome(Code.FAILED_PRECONDITION, state)
        if answer.reply is None or answer.reply.capacity_bytes == size:
            yield Outcome(Code.OK, state)


class GetStats(InPod):
    """NodeGetVolumeStats."""

    changes: ClassVar[bool] = False

    def request(self, line: Line) -> tuple[Any, Message]:
        return line.node.NodeGetVolumeStats, requests.stats(
            self.volume_id, self.target(line.kubelet, self.pod)
        )

    def outcomes(self, state: State, answer: Answer) -> Iterator[Outcome]:
        volume = self.there(state)
        if volume is None:
            yield Outcome(Code.NOT_FOUND, state)
        elif answer.reply is None or self._is_right(volume, answer.reply):
            yield Outcome(Code.OK, state)

    def _is_right(self, volume: Volume, reply: pb.NodeGetVolumeStatsResponse) -> bool:
        # A copied directory may hold its size in new data besides what it shares with its source.
        shares = bool(volume.source) and "kind" in self.sort.parameters
        total = reply.usage[0].total
        return (
            not reply.volume_condition.abnormal and total > 0 and (shares or total <= volume.size)
        )


class _OfPod(InPod):
    """What the pod itself does; the kernel answers at once, and the driver does not know."""

    def perform(self, line: Line, manner: Manner) -> Answer:
        del manner
        place = self.target(line.kubelet, self.pod)
        path = place if self.is_block else place / "data"
        try:
            return Answer(Code.OK, self.work(path))
        except OSError as error:
            return Answer(Code.UNKNOWN, message=f"{path}: {error}")

    def work(self, path: Path) -> str:
        """Does it to a file or a device; returns what was read or written."""
        raise NotImplementedError


@dataclass(frozen=True)
class Write(_OfPod):
    """A pod writes something and syncs it."""

    token: str

    def work(self, path: Path) -> str:
        flags = os.O_RDWR if self.is_block else os.O_RDWR | os.O_CREAT
        with _opened(path, flags) as file:
            os.pwrite(file, self.token.encode().ljust(TOKEN_BYTES, b"\0"), 0)
            os.fsync(file)
        return self.token

    def outcomes(self, state: State, answer: Answer) -> Iterator[Outcome]:
        volume = self.there(state)
        if volume is not None:
            yield Outcome(Code.OK, state.having(self.slot, volume._replace(token=self.token)))


class Read(_OfPod):
    """A pod reads what was written last."""

    changes: ClassVar[bool] = False

    def work(self, path: Path) -> str:
        try:
            with _opened(path, os.O_RDONLY) as file:
                is_device = stat.S_ISBLK(os.fstat(file).st_mode)
                if is_device is not self.is_block:
                    return "not what the pod should have"
                return os.pread(file, TOKEN_BYTES, 0).rstrip(b"\0").decode(errors="replace")
        except FileNotFoundError:
            return NO_DATA

    def outcomes(self, state: State, answer: Answer) -> Iterator[Outcome]:
        volume = self.there(state)
        if volume is not None and answer.reply in (None, volume.token):
            yield Outcome(Code.OK, state)


@dataclass(frozen=True)
class OnInline(Operation):
    """A call on a volume that a pod brings along."""

    name: str

    @property
    def volume_id(self) -> str:
        """The id that the kubelet gives it."""
        return f"csi-{hashlib.sha256(self.name.encode()).hexdigest()}"

    def target(self, kubelet: Kubelet) -> Path:
        """Where the pod has it."""
        return kubelet.target_path("scratch", self.name)


class StartPod(OnInline):
    """NodePublishVolume of an inline volume."""

    def request(self, line: Line) -> tuple[Any, Message]:
        context = {
            "csi.storage.k8s.io/ephemeral": "true",
            "csi.storage.k8s.io/pod.name": "web-0",
            "csi.storage.k8s.io/pod.namespace": "default",
            "csi.storage.k8s.io/pod.uid": self.name,
            "csi.storage.k8s.io/serviceAccount.name": "default",
            "size": str(INLINE_BYTES),
        }
        return line.node.NodePublishVolume, requests.publish(
            self.volume_id, "", self.target(line.kubelet), filesystem(""), context=context
        )

    def outcomes(self, state: State, answer: Answer) -> Iterator[Outcome]:
        yield Outcome(Code.OK, state.having(self.slots[0], Inline()))


class EndPod(OnInline):
    """NodeUnpublishVolume of an inline volume."""

    def request(self, line: Line) -> tuple[Any, Message]:
        request = requests.unpublish(self.volume_id, self.target(line.kubelet))
        return line.node.NodeUnpublishVolume, request

    def outcomes(self, state: State, answer: Answer) -> Iterator[Outcome]:
        yield Outcome(Code.OK, state.having(self.slots[0], None))


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    file = os.open(path, flags | os.O_CLOEXEC, 0o644)
    try:
        yield file
    finally:
        os.close(file)
