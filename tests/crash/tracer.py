"""Follows a driver and its children through their system calls and kills or fails one of them.

A process of its own, so that waiting for what it traces takes nothing from whoever started it.
It says "ready" once it follows every thread, and at the end writes one JSON object: the points it
saw, and which processes it left running. It ends when everything it follows has ended, when it has
killed, or at SIGTERM; what it followed goes on untraced then.

    python -m tests.crash.tracer PID POOL KUBELET [kill-all|kill-driver|ERRNO|ERRNO+ PROCESS PLACE]

A call that is failed does not run and returns the errno; with a + all later ones that write to
files do the same, as on a disk that has died.

A point is a call that changes something, named by its process and its place among the points of
that process: "driver" is the driver with all its threads, "mkfs.ext4#1" the first mkfs.ext4.
"""

import errno
import json
import os
import signal
import sys
from types import FrameType
from typing import NamedTuple

from tests.crash import ptrace
from tests.crash.calls import Watcher, is_of_files, task_group

DRIVER = "driver"
KILL_ALL, KILL_DRIVER = "kill-all", "kill-driver"
LASTING = "+"


class Aim(NamedTuple):
    """The point to be hit, and how: killed, or failed with an errno."""

    how: str
    process: str
    place: int


class _Stopped(Exception):
    """SIGTERM came while there was nothing to do."""


class Tracer:
    """One session over one driver."""

    def __init__(self, driver: int, watcher: Watcher, aim: Aim | None) -> None:
        self.points: list[dict[str, object]] = []
        self.hit = False
        self._driver = driver
        self._watcher = watcher
        self._aim = aim
        self._tasks: set[int] = set()
        self._groups: dict[int, int] = {}
        self._names: dict[int, str] = {driver: DRIVER}
        self._counts: dict[str, int] = {}
        self._failing: dict[int, int] = {}
        self._lasting = 0
        self._waiting = self._asked = False

    def attach(self) -> None:
        """Follows every thread of the driver; those that come meanwhile are found again."""
        while True:
            new = {int(name) for name in os.listdir(f"/proc/{self._driver}/task")} - self._tasks
            if not new:
                return
            for task in new:
                ptrace.request(ptrace.SEIZE, task, 0, ptrace.OPTIONS)
                ptrace.request(ptrace.INTERRUPT, task)
                self._tasks.add(task)

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Handles SIGTERM."""
        del number, frame
        self._asked = True
        if self._waiting:
            raise _Stopped

    def run(self) -> None:
        """Follows until there is nothing to follow, or the aim is killed, or somebody asks."""
        while self._tasks and not self._asked:
            try:
                self._waiting = True
                task, status = os.waitpid(-1, ptrace.WALL)
            except (_Stopped, ChildProcessError):
                return
            finally:
                self._waiting = False
            self._tasks.add(task)
            if not os.WIFSTOPPED(status):
                self._tasks.discard(task)
                continue
            try:
                if self._stopped(task, status):
                    return
            except ProcessLookupError:
                continue  # killed while it was stopped; its end is still to be waited for

    def survivors(self) -> list[int]:
        """The processes besides the driver that are followed still."""
        return sorted({self._group(task) for task in self._tasks} - {self._driver})

    def _stopped(self, task: int, status: int) -> bool:
        """Looks at a stopped task and lets it go on; returns whether the work is done."""
        number, event = os.WSTOPSIG(status), status >> 16
        deliver = 0
        if number == signal.SIGTRAP | 0x80:
            if self._at_call(task):
                return True
        elif event == ptrace.EVENT_EXEC:
            self._named(task)
        elif event == ptrace.EVENT_STOP and number != signal.SIGTRAP:
            ptrace.request(ptrace.LISTEN, task)
            return False
        elif event == 0:
            deliver = number
        ptrace.request(ptrace.SYSCALL, task, 0, deliver)
        return False

    def _at_call(self, task: int) -> bool:
        entry = ptrace.entered(task)
        if entry is None:
            result = self._failing.pop(task, None)
            if result is not None:
                ptrace.set_result(task, -result)
            return False
        process = self._names.get(self._group(task))
        if process is None:
            return False  # a child between fork and exec
        words = self._watcher.describe(task, entry)
        if words is None:
            return False
        place = self._counts.get(process, 0)
        self._counts[process] = place + 1
        self.points.append({"process": process, "place": place, "call": words})
        aim = self._aim
        if aim is None:
            return False
        if self.hit or (process, place) != (aim.process, aim.place):
            if self._lasting and is_of_files(words):
                self._fail(task, self._lasting)
            return False
        self.hit = True
        if aim.how in (KILL_ALL, KILL_DRIVER):
            self._kill(everything=aim.how == KILL_ALL)
            return True
        number = int(aim.how.rstrip(LASTING))
        self._lasting = number if aim.how.endswith(LASTING) else 0
        self._fail(task, number)
        return False

    def _fail(self, task: int, number: int) -> None:
        self._failing[task] = number
        ptrace.skip_call(task)

    def _kill(self, *, everything: bool) -> None:
        # The driver first, as the kernel ends a container: its children follow.
        groups = [self._driver, *(self.survivors() if everything else ())]
        for group in groups:
            try:
                os.kill(group, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._tasks = {task for task in self._tasks if self._group(task) not in groups}

    def _named(self, task: int) -> None:
        """Gives a child that has become a program its name."""
        with open(f"/proc/{task}/cmdline", "rb") as file:
            words = os.fsdecode(file.read()).split("\0")
        program = os.path.basename(words[0])
        if program.startswith("python"):
            program = next((os.path.basename(word) for word in words if word.endswith(".py")), "")
        number = sum(1 for name in self._names.values() if name.partition("#")[0] == program)
        self._names[task] = f"{program}#{number + 1}"
        self._groups[task] = task

    def _group(self, task: int) -> int:
        if task not in self._groups:
            self._groups[task] = task_group(task)
        return self._groups[task]


def main(words: list[str]) -> int:
    """Runs one session."""
    driver, pool, kubelet, *rest = words
    aim = Aim(rest[0], rest[1], int(rest[2])) if rest else None
    tracer = Tracer(int(driver), Watcher((f"{pool}/", f"{kubelet}/")), aim)
    signal.signal(signal.SIGTERM, tracer.stop)
    tracer.attach()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    tracer.run()
    report = {"points": tracer.points, "hit": tracer.hit, "survivors": tracer.survivors()}
    json.dump(report, sys.stdout)
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except OSError as failure:
        if failure.errno != errno.ESRCH:
            raise
        sys.exit("the driver ended before it could be followed")
