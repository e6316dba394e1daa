"""Limits of volumes in force: in the control groups of the pods that use them.

The record says what a volume's limits are, the kernel which pods use it. What is kept here besides
is which volumes have to be looked after, because groups come later than volumes: the kubelet
starts containers once their volumes are there, and starts them again when they fail. A thread asks
`hold` for that once a second.

The loop device is the volume's alone, so a rule for it touches nothing else. Rules outlive the
device and are taken away when a pod lets go of the volume.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from csi.errors import NotNow, Unavailable, UnsupportedRequest
from csi.linux import cgroups, loop
from csi.linux.cgroups import Hierarchy
from csi.model import NO_LIMITS, Kind, LimitChanges, Limits, Volume
from csi.pool.image import IMAGE_NAME
from csi.pool.shelf import FileId
from csi.volumes import presence
from csi.volumes.pod_groups import PodGroups, pod_of
from csi.volumes.pools import Found, Pools

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Use:
    """A volume in use: what its pods may do with which devices; changed under its lock alone."""

    volume_id: str
    limits: Limits = NO_LIMITS
    devices: tuple[str, ...] = ()
    pods: frozenset[str] = frozenset()
    problem: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)


class Throttling:
    """Holds the pods of each volume to its limits; safe from any thread."""

    def __init__(self) -> None:
        self._uses: dict[str, _Use] = {}
        self._guard = threading.Lock()
        self._groups = PodGroups()
        self._hierarchy: Hierarchy | None = None

    def check(self, changes: LimitChanges, kind: Kind) -> None:
        """Checks that a volume can be held to new limits; to have none is always possible.

        Raises:
            UnsupportedRequest: It has no device of its own that could be limited.
            NotNow: This driver cannot reach the groups of pods.
        """
        if not any(changes.values()):
            return
        if kind is Kind.DIRECTORY:
            raise UnsupportedRequest(
                "a directory shares the device of its pool, so its I/O cannot be limited: use "
                "kind: image, or 0 or max for no limit"
            )
        if self._find_hierarchy() is None:
            raise NotNow(
                "the I/O of pods cannot be limited here: no control group hierarchy with the io "
                "(or blkio) controller is mounted writable where the driver runs; give it the "
                "host's /sys/fs/cgroup"
            )

    def start(self, found: Found[Volume]) -> None:
        """Begins to hold the pods of a volume that was published, if it has limits.

        Raises:
            Unavailable: The kernel did not take the limits.
        """
        if found.record.limits != NO_LIMITS or found.key in self._uses:
            self.change(found)

    def change(self, found: Found[Volume]) -> None:
        """Brings the limits of a volume into force, and looks after its pods from now on.

        Raises:
            Unavailable: The kernel did not take the limits.
        """
        volume, present = found.record, presence.look(found.depot.pool, found.key)
        with self._guard:
            use = self._uses.setdefault(found.key, _Use(volume.id))
        with use.lock:
            use.limits = volume.limits
            use.devices = tuple(cgroups.device_numbers(device.path) for device in present.devices)
            use.pods = frozenset(filter(None, (pod_of(mount.target) for mount in present.mounts)))
            self._apply(use)
            problem = use.problem
            if not problem and (volume.limits == NO_LIMITS or not use.pods):
                self._forget(found.key, use)
        if problem:
            raise Unavailable(f"the limits of volume {volume.id} are not in force: {problem}")

    def leave(self, key: str, target_path: str) -> None:
        """Takes away the rules of a pod that has let go of a volume."""
        use = self._uses.get(key)
        if use is None:
            return
        pod = pod_of(target_path)
        with use.lock:
            self._set(use, NO_LIMITS, use.pods & {pod})
            use.pods -= {pod}
            if not use.pods:
                self._forget(key, use)

    def end(self, key: str) -> None:
        """Takes away the rules of all pods: the volume's devices are about to go."""
        use = self._uses.get(key)
        if use is not None:
            with use.lock:
                self._set(use, NO_LIMITS, use.pods)
                use.pods = frozenset()
                self._forget(key, use)

    def resume(self, pools: Pools) -> None:
        """Looks after the volumes that are in use already, after a restart."""
        limited = [found for found in pools.volumes() if found.record.limits != NO_LIMITS]
        if not limited:
            return  # nor may a driver without a pool look at devices
        files = {(device.backing_device, device.backing_inode) for device in loop.bound()}
        for found in limited:
            if _file_of(found) in files:
                try:
                    self.change(found)
                except (OSError, Unavailable) as error:
                    _report(found.record.id, str(error))

    def hold(self) -> None:
        """Brings limits into force in the groups that were made since."""
        for use in list(self._uses.values()):
            with use.lock:
                before = use.problem
                self._apply(use)
                if use.problem and use.problem != before:
                    _report(use.volume_id, use.problem)

    def problem(self, key: str) -> str:
        """Returns why the limits of a volume are not in force, or nothing."""
        use = self._uses.get(key)
        return use.problem if use is not None else ""

    def _apply(self, use: _Use) -> None:
        use.problem = self._set(use, use.limits, use.pods)

    def _set(self, use: _Use, limits: Limits, pods: Collection[str]) -> str:
        """Sets limits in all groups of pods; returns what went wrong, or nothing."""
        hierarchy = self._find_hierarchy()
        if hierarchy is None or not pods:
            return "" if limits == NO_LIMITS or not pods else "there is no io controller"
        with self._guard:
            tops = self._groups.find(hierarchy, pods)
        try:
            for top in tops.values():
                for group in _groups_to_set(hierarchy, top):
                    for device in use.devices:
                        cgroups.ensure_limits(hierarchy, group, device, limits)
        except OSError as error:
            return f"{error.strerror}: {error.filename}"
        return ""

    def _forget(self, key: str, use: _Use) -> None:
        with self._guard:
            if self._uses.get(key) is use:
                del self._uses[key]

    def _find_hierarchy(self) -> Hierarchy | None:
        if self._hierarchy is None:
            self._hierarchy = cgroups.find_hierarchy()
        return self._hierarchy


def _groups_to_set(hierarchy: Hierarchy, top: str) -> Iterator[str]:
    """Yields the groups of a pod that need a rule: its own, and in version 1 each below it."""
    yield top
    if hierarchy.version == 1:
        yield from cgroups.groups_below(top)


def _file_of(found: Found[Volume]) -> FileId | None:
    try:
        return found.depot.pool.volumes.file_id(found.key, IMAGE_NAME)
    except OSError:
        return None


def _report(volume_id: str, reason: str) -> None:
    _log.error(
        "a volume's pods are not held to its limits",
        extra={"volume_id": volume_id, "reason": reason},
    )
