"""The io controller of control groups: how fast the processes of a group may use a block device.

In version 2 a limit on a group holds all that is below it, together ("IO" in cgroup-v2.rst). In
version 1 (blkio-controller.rst) it holds the processes of that very group and of none below, and
it counts only what they submit themselves: direct and synced I/O, not what the kernel writes back
for them later. Either way the kernel keeps a rule for as long as the group is there, also when the
device has gone and its number has been given to another.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass

from csi.linux.mounts import Mount, read_mounts
from csi.model import NO_LIMITS, Limits

_DEPTH = 10
_V1_FILES = (
    ("read_iops", "blkio.throttle.read_iops_device"),
    ("write_iops", "blkio.throttle.write_iops_device"),
    ("read_bandwidth_bytes", "blkio.throttle.read_bps_device"),
    ("write_bandwidth_bytes", "blkio.throttle.write_bps_device"),
)
_V2_FILE = "io.max"
_V2_WORDS = (
    ("read_iops", "riops"),
    ("write_iops", "wiops"),
    ("read_bandwidth_bytes", "rbps"),
    ("write_bandwidth_bytes", "wbps"),
)


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """The tree of control groups that limits I/O.

    Attributes:
        path: Where its root is mounted, or the part of it that this process sees.
        version: 1 or 2.
    """

    path: str
    version: int


def find_hierarchy() -> Hierarchy | None:
    """Returns the hierarchy that has the io controller, None where it cannot be written to.

    A container may see a part of it and, mounted besides, the host's: the most of it is taken.
    """
    found = [
        (_height(mount), Hierarchy(mount.target, version))
        for mount in read_mounts()
        if "ro" not in mount.options and (version := _io_version(mount))
    ]
    return max(found, key=lambda pair: pair[0])[1] if found else None


def groups_below(path: str, depth: int = _DEPTH) -> Iterator[str]:
    """Yields the groups below one, each before those below it; what is removed is passed over."""
    try:
        with os.scandir(path) as entries:
            below = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return
    for group in below:
        yield group
        if depth > 1:
            yield from groups_below(group, depth - 1)


def device_numbers(path: str) -> str:
    """Returns `major:minor` of a block device, by which groups know it."""
    number = os.stat(path).st_rdev
    return f"{os.major(number)}:{os.minor(number)}"


def ensure_limits(hierarchy: Hierarchy, group: str, device: str, limits: Limits) -> None:
    """Sets what a group may do with a device, where it is not set already.

    A group that is being removed is no error: it has no processes. Nor is a group without the
    controller, where there is no limit to be set.

    Args:
        hierarchy: Whose group it is.
        group: The path of the group.
        device: Its `device_numbers`.
        limits: Those that are 0 are taken away.

    Raises:
        OSError: The kernel did not take them, or the group has no io controller.
    """
    try:
        if hierarchy.version == 1:
            _ensure_v1(group, device, limits)
        else:
            _ensure_v2(group, device, limits)
    except OSError as error:
        nothing_to_remove = error.errno == errno.ENOENT and limits == NO_LIMITS
        if nothing_to_remove or not os.path.isdir(group):
            return
        if hierarchy.version == 2 and error.errno == errno.ENOENT:
            words = "the io controller is off there (cgroup.subtree_control of the groups above)"
            raise OSError(errno.ENOENT, words, f"{group}/{_V2_FILE}") from error
        raise


def _ensure_v1(group: str, device: str, limits: Limits) -> None:
    for field, file in _V1_FILES:
        path, wanted = f"{group}/{file}", str(getattr(limits, field))
        if _line_of(path, device) != ([] if wanted == "0" else [wanted]):
            _write(path, f"{device} {wanted}")


def _ensure_v2(group: str, device: str, limits: Limits) -> None:
    path = f"{group}/{_V2_FILE}"
    wanted = [f"{word}={getattr(limits, field) or 'max'}" for field, word in _V2_WORDS]
    present = set(_line_of(path, device)) or {f"{word}=max" for _, word in _V2_WORDS}
    if present != set(wanted):
        _write(path, f"{device} {' '.join(wanted)}")


def _line_of(path: str, device: str) -> list[str]:
    """Returns the words behind a device in a file of rules, none where it has no rule."""
    with open(path, encoding="ascii") as file:
        for line in file:
            words = line.split()
            if words and words[0] == device:
                return words[1:]
    return []


def _write(path: str, rule: str) -> None:
    # Unbuffered: the kernel takes a rule in one piece, and answers to that very write.
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, rule.encode("ascii"))
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
    finally:
        os.close(descriptor)


def _io_version(mount: Mount) -> int:
    """Returns the version of a hierarchy with the io controller, 0 for any other mount."""
    if mount.fs_type == "cgroup" and "blkio" in mount.super_options:
        return 1
    if mount.fs_type != "cgroup2":
        return 0
    try:
        with open(f"{mount.target}/cgroup.controllers", encoding="ascii") as file:
            return 2 if "io" in file.read().split() else 0
    except OSError:
        return 0  # something else is mounted over it


def _height(mount: Mount) -> int:
    """How far up in its hierarchy a mount begins: what is above this process's root is `/..`."""
    parts = [part for part in mount.root.split("/") if part]
    return sum(1 if part == ".." else -1 for part in parts)
