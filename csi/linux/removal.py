"""Removing directory trees that a tenant may still be changing, in bounded steps."""

from __future__ import annotations

import errno
import itertools
import os
from typing import TYPE_CHECKING

from csi.linux import subvolume, unlinking
from csi.linux.paths import open_beneath

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_STEP_ENTRIES = 256
_OPEN_FRAMES = 32
_PATH_NAMES = 15  # of 255 bytes each, within the 4,095 that the kernel takes
_CHANGED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENOTEMPTY)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY


def remove_tree(
    parent_fd: int, name: str, *, keep_going: Callable[[], bool], pause: Callable[[], None]
) -> bool:
    """Removes a name in an open directory and all below it; none is fine.

    Nothing outside is touched, although somebody moves directories and swaps names for links
    meanwhile: names are opened below an open directory only, never `..`, no link is followed and
    no mount is crossed. btrfs subvolumes are destroyed whole, read-only and nested ones, too; flags
    that forbid removing are cleared. It takes few descriptors however deep the tree is.

    Args:
        parent_fd: The directory, open for reading.
        name: A single name in it.
        keep_going: Asked before the first step and between any two. A step removes 256 entries,
            one subvolume or 1 GiB of a large file, though never less than 1/4096 of its length.
        pause: Called between steps, to leave the disk to others.

    Returns:
        False when `keep_going` said no; another call goes on from there.

    Raises:
        ValueError: The name is not a single one.
        OSError: EXDEV or EBUSY when something is mounted in the tree, EROFS, EIO and so on.
    """
    if "/" in name or name in ("", ".", ".."):
        raise ValueError(f"{name!r} is not a name in a directory")
    removal = _Removal(parent_fd, name, keep_going, pause)
    try:
        removal.run()
    except _Stopped:
        return False
    finally:
        removal.close()
    return True


class _Stopped(Exception):
    """The caller wants no further step."""


class _Frame:
    """A directory on the way down; those far above are closed, and opened again on the way up."""

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self.fd = -1
        self.open(fd)

    def open(self, fd: int) -> None:
        """Takes the descriptor over and lists the directory from its start."""
        try:
            self.entries = os.scandir(fd)
        except OSError:
            os.close(fd)
            raise
        self.fd = fd

    def close(self) -> None:
        """Closes the descriptor and the one that the listing has; may be called again."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            self.entries.close()
            os.close(fd)


class _Removal:
    """One walk: down into the first directory found, up when it is empty."""

    def __init__(
        self, parent_fd: int, name: str, keep_going: Callable[[], bool], pause: Callable[[], None]
    ) -> None:
        self._parent_fd = parent_fd
        self._name = name
        self._keep_going = keep_going
        self._pause = pause
        self._frames: list[_Frame] = []
        self._removed = 0

    def run(self) -> None:
        if not self._keep_going():
            raise _Stopped
        self._remove(self._parent_fd, self._name, directory=True)
        while self._frames:
            frame = self._frames[-1]
            entry = next(frame.entries, None)
            if entry is None:
                self._leave()
            else:
                directory = entry.is_dir(follow_symlinks=False)
                self._remove(frame.fd, entry.name, directory=directory)

    def close(self) -> None:
        while self._frames:
            self._frames.pop().close()

    def _step(self) -> None:
        self._pause()
        if not self._keep_going():
            raise _Stopped

    def _count(self) -> None:
        self._removed += 1
        if self._removed % _STEP_ENTRIES == 0:
            self._step()

    def _remove(self, above: int, name: str, *, directory: bool) -> None:
        """Removes what is no directory, enters what is one, whatever it was a moment ago."""
        while True:
            try:
                if directory:
                    self._enter(above, name)
                else:
                    unlinking.unlink(above, name, self._step)
                    self._count()
                return
            except FileNotFoundError:
                return
            except OSError as error:
                if error.errno not in (errno.EISDIR, errno.ENOTDIR, errno.ELOOP):
                    raise
                directory = error.errno == errno.EISDIR
            self._count()

    def _enter(self, above: int, name: str) -> None:
        fd = open_beneath(above, name, _DIRECTORY)
        try:
            if subvolume.is_subvolume(fd):
                unlinking.destroy_subvolumes(fd, above, self._step)
                return
            frame = _Frame(name, os.dup(fd))
        finally:
            os.close(fd)
        self._frames.append(frame)
        if len(self._frames) > _OPEN_FRAMES:
            self._frames[-1 - _OPEN_FRAMES].close()

    def _leave(self) -> None:
        """Removes the directory that has been emptied and goes on in the one above."""
        left = self._frames.pop()
        left.close()
        try:
            above = self._open_above()
            unlinking.remove_directory(above, left.name)
        except OSError as error:
            if error.errno not in _CHANGED:
                raise
            # Something was moved, made in it or put in its place: what is left is found again.
            self.close()
            self._remove(self._parent_fd, self._name, directory=True)
        self._count()

    def _open_above(self) -> int:
        """Returns the directory that the walk is in now, opened again if it was closed.

        From the top and by names, never by `..`: that leads wherever somebody moves a directory.
        """
        if not self._frames:
            return self._parent_fd
        if self._frames[-1].fd < 0:
            first = max(0, len(self._frames) - _OPEN_FRAMES)
            names = [frame.name for frame in self._frames[: first + 1]]
            self._frames[first].open(_open_deep(self._parent_fd, names))
            for upper, frame in itertools.pairwise(self._frames[first:]):
                frame.open(open_beneath(upper.fd, frame.name, _DIRECTORY))
        return self._frames[-1].fd


def _open_deep(root: int, names: Sequence[str]) -> int:
    """Opens a directory far below another, a path of bearable length at a time."""
    fd = os.dup(root)
    for start in range(0, len(names), _PATH_NAMES):
        path = "/".join(names[start : start + _PATH_NAMES])
        try:
            deeper = open_beneath(fd, path, _DIRECTORY)
        finally:
            os.close(fd)
        fd = deeper
    return fd
