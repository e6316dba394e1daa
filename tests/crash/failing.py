"""One call failed at one point after another, each failure looked at, and the call made again."""

import contextlib
import errno
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import grpc

from csi.v1 import csi_pb2 as pb
from tests.contract.refusals import Code, as_call
from tests.crash.scenarios import Act, Scenario
from tests.crash.tracer import LASTING, Aim
from tests.crash.tracing import Point
from tests.crash.trial import Ground, expect_order, watched
from tests.crash.world import DriverGoneError, ViolationError

ERRNOS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.ENOMEM, errno.EMFILE, errno.EINTR)
LASTING_ERRNOS = (errno.ENOSPC, errno.EIO, errno.EROFS)
"""A disk that is full, has died or was made read-only stays so for more than one call."""
_ASK_FOR_ROOM = ("CreateVolume", "ControllerExpand", "CreateSnapshot")


class Fault(NamedTuple):
    """A point of a call, and what happens there."""

    point: Point
    number: int
    lasting: bool = False

    def __str__(self) -> str:
        lasts = " and ever after" if self.lasting else ""
        place = f"{self.point.process} {self.point.place} {self.point.call}"
        return f"{errno.errorcode[self.number]} at {place}{lasts}"


def faults_at(point: Point) -> list[Fault]:
    """Returns every fault for a point."""
    lasting = [Fault(point, number, lasting=True) for number in LASTING_ERRNOS]
    return [*(Fault(point, number) for number in ERRNOS), *lasting]


class Failing:
    """A scenario that is failed again and again.

    A call that has failed has to leave what was there before, so that one life serves for many
    faults; where a fault did not keep the call from its success the life is led to its end.
    """

    def __init__(self, ground: Ground, scenario: Scenario) -> None:
        self._ground = ground
        self._scenario = scenario
        self._act: Act | None = None
        self._before: dict[str, object] = {}
        self.reached = False

    def fail(self, fault: Fault) -> None:
        """Fails the call once and looks at what became of it.

        Raises:
            ViolationError: Something is not as promised.
        """
        act = self._prepared()
        code = self._attempt(act, fault)
        self._expect_serving()
        if code is not None:
            # The background counts among the points, and the next fault is to meet the call's.
            self._ground.world.wait_for_trash()
        if code is None:
            self.end()
        elif code is Code.RESOURCE_EXHAUSTED:
            self._expect_rolled_back(code)

    def end(self) -> None:
        """Makes the call undisturbed, and leads the life to its end."""
        act, self._act = self._act, None
        if act is not None:
            act.act()
            self._ground.world.expect_true_ledger()
            act.finish()
            expect_order(self._ground)

    def _prepared(self) -> Act:
        world = self._ground.world
        if self._act is None:
            self._act = self._scenario.begin(world)
            self._act.prepare()
            world.wait_for_background()
            self._before = world.state()
        return self._act

    def _attempt(self, act: Act, fault: Fault) -> Code | None:
        how = f"{fault.number}{LASTING if fault.lasting else ''}"
        aim = Aim(how, fault.point.process, fault.point.place)
        with self._impatient(), watched(self._ground, aim) as trace:
            code = None
            try:
                act.act()
            except grpc.RpcError as error:
                code = as_call(error).code()
                message = as_call(error).details() or ""
            except DriverGoneError as gone:
                raise ViolationError(f"the driver ended: {gone}") from gone
        self.reached = trace.hit
        if code is not None:
            self._expect_fit(fault, code, message)
        return code

    def _expect_fit(self, fault: Fault, code: Code, message: str) -> None:
        allowed = {Code.UNAVAILABLE}
        asks = any(word in self._scenario.rpc for word in _ASK_FOR_ROOM)
        if fault.number == errno.ENOSPC and asks:
            allowed.add(Code.RESOURCE_EXHAUSTED)
        if fault.number == errno.EROFS and self._scenario.rpc == "NodeExpandVolume":
            allowed.add(Code.FAILED_PRECONDITION)  # it is as if the volume were read-only
        if code not in allowed or not message.strip() or "Traceback" in message:
            raise ViolationError(f"answered {code.name}: {message!r}")

    def _expect_serving(self) -> None:
        driver = self._ground.world.driver
        if not driver.running:
            raise ViolationError("the driver ended")
        if not driver.identity.Probe(pb.ProbeRequest()).ready.value:
            raise ViolationError("the driver says that it is not ready")

    def _expect_rolled_back(self, code: Code) -> None:
        world = self._ground.world
        world.wait_for_trash()
        try:
            world.expect_state(self._before, patience_s=5)
            world.expect_true_ledger()
        except ViolationError as violation:
            raise ViolationError(f"answered {code.name}, but {violation}") from violation

    @contextlib.contextmanager
    def _impatient(self) -> Iterator[None]:
        self._ground.world.patient = False
        try:
            yield
        finally:
            self._ground.world.patient = True


def fail_all(ground: Ground, scenario: Scenario, faults: Sequence[Fault]) -> int:
    """Fails a call in many ways on one ground; returns how many faults were reached.

    Raises:
        FaultError: At the first violation; its `done` tells how many were tried, that one included.
    """
    failing = Failing(ground, scenario)
    reached = 0
    fault = faults[0]
    for done, fault in enumerate(faults, 1):
        try:
            failing.fail(fault)
        # Whatever it is: a sweep has to tell at which fault it came.
        except Exception as violation:
            raise FaultError(str(fault), done, violation) from violation
        reached += failing.reached
    try:
        failing.end()
    except Exception as violation:
        raise FaultError(f"once the last, {fault}, was gone", len(faults), violation) from violation
    return reached


class FaultError(Exception):
    """A violation, and how many faults were tried until it came."""

    def __init__(self, fault: str, done: int, violation: BaseException) -> None:
        super().__init__(f"{fault}: {violation}")
        self.done = done
