"""Limits of directories on XFS and ext4: a project for each, whose quota is the limit.

Which numbers are free the kernel knows best: others use the same filesystem, and the bytes of a
deleted volume may wait in the trash still. So a number is free when nobody has a file, a directory
or a limit under it. It is then taken by putting the new directory under it, and that directory
has to be the only thing there: of two that take one number at the same time, be they in two
processes, neither keeps it.
"""

from __future__ import annotations

import errno
import random
import threading
from collections.abc import Iterable

from csi.linux import project_quota, projects
from csi.pool.directory import opened_data

FIRST_NUMBER = 1 << 30
"""Far from what people choose by hand and from where the kubelet and container runtimes begin."""
COUNT = 1 << 30
_TRIES = 10_000


class ProjectLimits:
    """The limits of a pool on XFS or ext4. See `csi.pool.limits.Limits`."""

    def __init__(self, pool_fd: int, pool_uuid: str) -> None:
        """Prepares to count up from a number that follows from the pool's identity.

        Pools on one filesystem so keep apart, and the kernel has its records of a pool together.
        """
        self._fd = pool_fd
        self._next = int(pool_uuid[:8], 16) % COUNT
        self._known: set[int] = set()
        self._guard = threading.Lock()

    def know(self, numbers: Iterable[int]) -> None:
        """Learns which numbers the records hold, so that they are given to nobody else."""
        with self._guard:
            self._known |= {number for number in numbers if number}
            newest = max(self._known, default=0) - FIRST_NUMBER
            if 0 <= newest < COUNT:
                self._next = (newest + 1) % COUNT

    def hold_new(self, folder: int, size_bytes: int) -> int:
        """Puts the new directory under a number of its own and limits that.

        Raises:
            OSError: EAGAIN when no number is to be had.
        """
        with opened_data(folder) as data:
            for _ in range(_TRIES):
                number = self._reserve()
                try:
                    projects.join(data, number)
                    if project_quota.usage(self._fd, number).inodes == 1:
                        project_quota.limit(self._fd, number, size_bytes)
                        return number
                except BaseException:
                    self.release(number)
                    raise
                self._step_aside(number)
            raise OSError(errno.EAGAIN, "all project numbers that were tried are in use")

    def change(self, folder: int, number: int, size_bytes: int) -> None:  # noqa: ARG002
        """Sets the limit of a project."""
        project_quota.limit(self._fd, number, size_bytes)

    def set_right(self, folder: int, number: int, size_bytes: int) -> int:
        """Puts the directory back into its project, and the limit where there is none.

        A limit above the size stays: it is about to be the size. What was made in the directory
        while it was in another project stays where it is.
        """
        changed = 0
        with opened_data(folder) as data, self._guard:
            if number not in self._known:  # it is being deleted
                return 0
            if projects.membership(data) != (number, True):
                projects.join(data, number)
                changed += 1
            limit_bytes = project_quota.usage(self._fd, number).limit_bytes
            if limit_bytes < size_bytes:
                project_quota.limit(self._fd, number, size_bytes)
                changed += 1
        return changed

    def used_bytes(self, number: int) -> int:
        """Returns the bytes that the members of a project take."""
        return project_quota.usage(self._fd, number).used_bytes

    def release(self, number: int) -> None:
        """Takes the limit away; the number is free once the bytes are gone."""
        with self._guard:
            self._known.discard(number)
            project_quota.limit(self._fd, number, 0)

    def abandon(self, folder: int) -> None:
        """Takes the limit of a directory away that no tenant has ever had."""
        with opened_data(folder) as data:
            number = projects.membership(data).project
        if FIRST_NUMBER <= number < FIRST_NUMBER + COUNT:
            self.release(number)

    def settle(self) -> None:
        """Has nothing to take away: a limit goes with `release`."""

    def _reserve(self) -> int:
        """Returns a number that nobody uses, and that this process gives to nobody else."""
        with self._guard:
            for _ in range(_TRIES):
                number = FIRST_NUMBER + self._next
                self._next = (self._next + 1) % COUNT
                if number not in self._known and project_quota.usage(self._fd, number).free:
                    self._known.add(number)
                    return number
        raise OSError(errno.EAGAIN, "all project numbers that were tried are in use")

    def _step_aside(self, number: int) -> None:
        """Leaves a number to whoever took it at the same time, and goes on somewhere else."""
        with self._guard:
            self._known.discard(number)
            self._next = random.randrange(COUNT)  # noqa: S311
