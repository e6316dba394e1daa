"""One call on the driver: how it is made, and what the state may be after each answer to it."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import grpc
from google.protobuf.message import Message

from csi.v1 import csi_pb2_grpc
from tests.contract.refusals import Code, as_call
from tests.crash.lives import Sort
from tests.driver import Driver
from tests.kubelet import Kubelet
from tests.model.states import State

UNCERTAIN = (Code.CANCELLED, Code.DEADLINE_EXCEEDED, Code.UNAVAILABLE)
"""After these the call may have been carried out, or may still be."""
CALL_S = 60.0


class Answer(NamedTuple):
    """What came of a call; `message` is what the error said."""

    code: Code
    reply: Any = None
    message: str = ""

    @property
    def uncertain(self) -> bool:
        """Whether it does not tell if the call was carried out."""
        return self.code in UNCERTAIN


class Outcome(NamedTuple):
    """An answer that is right in a state, and the state that it leads to."""

    code: Code
    state: State


class Manner(NamedTuple):
    """How a call is made: patiently, or given up after some milliseconds."""

    deadline_ms: float = 0
    cancel_ms: float = 0
    times: int = 1

    @property
    def patient(self) -> bool:
        """Whether it is repeated until the answer is certain."""
        return not self.deadline_ms and not self.cancel_ms


class Line:
    """A caller's own connection to the driver; it outlives the driver's restarts."""

    def __init__(self, driver: Driver, kubelet: Kubelet) -> None:
        self.channel = driver.connect(driver.endpoint)
        self.kubelet = kubelet
        self.controller = csi_pb2_grpc.ControllerStub(self.channel)
        self.group = csi_pb2_grpc.GroupControllerStub(self.channel)
        self.node = csi_pb2_grpc.NodeStub(self.channel)
        self.metadata = csi_pb2_grpc.SnapshotMetadataStub(self.channel)

    def close(self) -> None:
        """Hangs up."""
        self.channel.close()


@dataclass(frozen=True)
class Operation:
    """A call on what is in some slots.

    Attributes:
        slots: The slots that it reads or changes.
        sort: The sort of volumes it is about.
    """

    slots: tuple[str, ...]
    sort: Sort
    changes: ClassVar[bool] = True
    """Whether it changes anything."""

    def request(self, line: Line) -> tuple[Any, Message]:
        """Returns the method and what is sent; the same each time."""
        raise NotImplementedError

    def outcomes(self, state: State, answer: Answer) -> Iterator[Outcome]:
        """Yields what may come of the call in a state; `answer` tells new ids, if it is known."""
        raise NotImplementedError

    def perform(self, line: Line, manner: Manner) -> Answer:
        """Makes the call once."""
        method, request = self.request(line)
        timeout = manner.deadline_ms / 1000 or CALL_S
        try:
            if not manner.cancel_ms:
                return Answer(Code.OK, method(request, timeout=timeout))
            future = method.future(request, timeout=timeout)
            time.sleep(manner.cancel_ms / 1000)
            future.cancel()
            return Answer(Code.OK, future.result())
        except grpc.FutureCancelledError:
            return Answer(Code.CANCELLED)
        except grpc.RpcError as error:
            call = as_call(error)
            return Answer(call.code(), message=call.details() or "")

    def after(self, state: State, answer: Answer) -> Iterator[State]:
        """Yields the states that may follow when this was answered; none if it is impossible."""
        if answer.code is Code.ABORTED:
            yield state
            return
        if answer.uncertain:
            yield state
        for outcome in self.outcomes(state, answer):
            if answer.uncertain or outcome.code is answer.code:
                yield outcome.state

    def __str__(self) -> str:
        return f"{type(self).__name__}({', '.join(self.slots)})"


def patient(method: Any, request: Message) -> Any:  # noqa: ANN401 - the types of stubs say no more
    """Asks for something until the driver answers."""
    deadline = time.monotonic() + CALL_S
    while True:
        try:
            return method(request, timeout=CALL_S)
        except grpc.RpcError as error:
            if as_call(error).code() not in UNCERTAIN or time.monotonic() > deadline:
                raise
        time.sleep(0.02)
