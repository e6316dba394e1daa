"""What /proc/PID/mountinfo says, see proc(5)."""

from collections.abc import Sequence
from pathlib import Path


def foreign_mounts(mountinfo: str, needed: Sequence[Path]) -> list[str]:
    """The mounts of loop devices that none of the paths lies on, the last mounted first.

    Args:
        mountinfo: What /proc/PID/mountinfo says, see proc(5).
        needed: Paths that have to stay reachable.
    """
    found = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        target, source = before.split(" ")[4], after.split(" ")[1]
        target = target.encode().decode("unicode_escape")
        if source.startswith("/dev/loop") and not any(p.is_relative_to(target) for p in needed):
            found.append(target)
    return found[::-1]


def mounts_below(mountinfo: str, folder: Path) -> list[str]:
    """The mounts at a folder and below it, from what /proc/self/mountinfo says."""
    targets = (line.split(" ")[4] for line in mountinfo.splitlines())
    return [target for target in targets if Path(target).is_relative_to(folder)]
