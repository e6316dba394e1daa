"""Fuzzes every call: `run_confined("tests.security.fuzz", folder, seed, count)`.

Requests are numbered, and each is drawn from the seed and its number. So a failing one is had
again by `--only`, with the objects as they were made.
"""

import argparse
import faulthandler
import hashlib
import json
import logging
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from csi.linux import loop
from csi.observe.logs import JsonLines, TextLines
from csi.volumes import releases
from tests.disks import mounted_filesystem, release
from tests.driver import create_pool
from tests.security.allowed import ALLOWED
from tests.security.fuzz_requests import SECRET, RightRequests
from tests.security.fuzz_world import World
from tests.security.inside import Answer, Inside, running
from tests.security.mutations import REQUESTS, Mutator, parsed
from tests.security.sandbox import confine

SLOW_S = 5.0
HANGS_S = 60.0
POOL_BYTES = 8 << 30
MOST_VIOLATIONS = 20
READ_ONLY = "Read-only file system"
"""What is told of a target anywhere but in the folder, for this is a namespace of its own."""
WATCH_EVERY = 100
DEBUG_EVERY = 20
"""How many requests there are for one that is logged with all it holds, as text and as JSON."""

_RPCS = sorted(REQUESTS)
_WEIGHTS = [1.0 if REQUESTS[rpc].DESCRIPTOR.fields else 0.1 for rpc in _RPCS]


class Violation(NamedTuple):
    """A request that was answered as none may be."""

    number: int
    rpc: str
    what: str
    request: str


class Log(logging.Handler):
    """Keeps what is logged of one request, formatted as it would be written."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._json, self._text = JsonLines(), TextLines()

    def emit(self, record: logging.LogRecord) -> None:
        """Formats a record, in both ways where all is logged."""
        self.lines.append(self._json.format(record))
        if logging.getLogger().level == logging.DEBUG:
            self.lines.append(self._text.format(record))


def main() -> int:
    """Fuzzes as asked, and prints the figures as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("seed", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("--only", type=int, help="the number of one request")
    arguments = parser.parse_args()
    confine(arguments.folder)
    releases.LONGEST_S = 0.01  # a delete waits for an unstage that no other caller is there to make
    log = Log()
    root = logging.getLogger()
    root.handlers = [log]
    with world_in(arguments.folder) as (inside, world):
        numbers = range(arguments.count)
        if arguments.only is not None:
            numbers = range(arguments.only, arguments.only + 1)
        figures = fuzz(inside, world, log, arguments.seed, numbers)
        if not figures["violations"]:  # what they leave may be in the way
            world.close()
    json.dump(figures, sys.stdout)
    return 0


@contextmanager
def world_in(folder: Path) -> Iterator[tuple[Inside, World]]:
    """Makes pools, starts the driver and makes its objects; checks that nothing else changed."""
    canary = folder / "canary"
    (canary / "sub").mkdir(parents=True)
    (canary / "file").write_text("outside")
    (canary / "sub" / "file").write_text("outside")
    (folder / "link-to-canary").symlink_to("canary")
    before = digest(canary)
    with ExitStack() as stack:
        pools = []
        for name, fs_type in (("default", "xfs"), ("dirs", "btrfs")):
            path = stack.enter_context(mounted_filesystem(fs_type, folder, POOL_BYTES))
            stack.callback(_detach_all, path)
            create_pool(path)
            pools.append((name, path))
        inside = stack.enter_context(running(pools, folder))
        stack.callback(release, folder / "kubelet")
        yield inside, World(inside, folder)
    assert digest(canary) == before, "something outside of the pools was changed"


def _detach_all(pool: Path) -> None:
    """Takes away the loop devices that a world leaves which was not closed after a violation."""
    home = pool.stat().st_dev
    for device in loop.bound():
        if device.backing_device == home:
            loop.detach_unmounted(device.path)


def digest(folder: Path) -> str:
    """All files in a folder, in one value; callers may well make directories there."""
    sums = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if not path.is_dir():
            status = path.lstat()
            sums.update(f"{path}{status.st_mode}{status.st_uid}{status.st_mtime_ns}".encode())
            sums.update(path.read_bytes())
    return sums.hexdigest()


def fuzz(inside: Inside, world: World, log: Log, seed: int, numbers: range) -> dict[str, object]:
    """Makes the calls and judges each answer."""
    right = RightRequests(world, random.Random(seed))
    codes: Counter[str] = Counter()
    violations: list[Violation] = []
    started = time.monotonic()
    slowest_s = 0.0
    for number in numbers:
        if number % WATCH_EVERY == 0:
            faulthandler.dump_traceback_later(HANGS_S, exit=True)
        logging.getLogger().setLevel("DEBUG" if number % DEBUG_EVERY == 0 else "INFO")
        rng = random.Random(seed << 32 | number)
        right.draw_from(rng)
        rpc = rng.choices(_RPCS, _WEIGHTS)[0]
        data = Mutator(rng, world.ids).spoil(right.request(rpc))
        begun = time.monotonic()
        answer = inside.call(rpc, data)
        elapsed_s = time.monotonic() - begun
        slowest_s = max(slowest_s, elapsed_s)
        codes[f"{rpc} {answer.code.name}"] += 1
        found = list(faults(rpc, answer, elapsed_s, log.lines))
        if found and shows_its_secret(rpc, data):
            found = [what for what in found if SECRET not in what]
        try:
            world.tidy(rpc, data, answer)
        except AssertionError as error:
            found.append(f"cannot be undone: {error}")
            world.start_over()
        log.lines.clear()
        text = repr(parsed(REQUESTS[rpc], data)) if found else ""
        violations += [Violation(number, rpc, what, text) for what in found]
        for what in found:
            print(f"request {number} of seed {seed}: {rpc} {what}: {text}", file=sys.stderr)
        if len(violations) >= MOST_VIOLATIONS:
            break
    faulthandler.cancel_dump_traceback_later()
    elapsed = time.monotonic() - started
    return {
        "requests": sum(codes.values()),
        "rate": sum(codes.values()) / elapsed,
        "slowest_s": slowest_s,
        "codes": dict(sorted(codes.items())),
        "violations": [violation._asdict() for violation in violations],
    }


def shows_its_secret(rpc: str, data: bytes) -> bool:
    """Whether spoilt bytes say a secret in a field where none belongs: an id, for one."""
    message = parsed(REQUESTS[rpc], data)
    if message is None:
        return False
    if "secrets" in message.DESCRIPTOR.fields_by_name:
        message.ClearField("secrets")
    return SECRET.encode() in message.SerializeToString()


def faults(rpc: str, answer: Answer, elapsed_s: float, lines: list[str]) -> Iterator[str]:
    """Says what is wrong with an answer, or nothing."""
    if answer.code not in ALLOWED[rpc] and READ_ONLY not in answer.message:
        yield f"{answer.code.name}: {answer.message}"
    if answer.code.name != "OK" and not answer.message.strip():
        yield f"{answer.code.name} without a message"
    if elapsed_s > SLOW_S:
        yield f"it took {elapsed_s:.1f} s"
    if "Traceback" in answer.message or SECRET in answer.message:
        yield f"the message shows what it must not: {answer.message}"
    for line in lines:
        if "Traceback" in line:
            yield f"a traceback in the log: {line}"
        if SECRET in line:
            yield f"a secret in the log: {line}"
        if "\n" in line or "\r" in line:
            yield f"a line of the log that a caller broke in two: {line!r}"


if __name__ == "__main__":
    sys.exit(main())
