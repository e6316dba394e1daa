"""Staging and target paths: opened without following a link, removed without touching data.

The folders above them are the kubelet's and may well be reached over a link (many nodes keep
/var/lib/kubelet elsewhere). The last part is ours: it has to be a plain directory or file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator

from csi.errors import InvalidRequest, NotNow, Unavailable
from csi.linux import mounts
from csi.linux.faults import BROKEN
from csi.linux.paths import is_mount_root

_PARENT = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_NAME_BYTES = 255
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP})
_HOLDS_SOMETHING = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY, errno.EPERM})
_LAST = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def directory_target(path: str, field: str) -> Iterator[int]:
    """Opens a directory to mount on, made if only it is missing; removed again if the block fails.

    Raises:
        InvalidRequest: It is no directory, or there is none to make it in; `field` names it.
        Unavailable: It cannot be made.
    """
    with _parent(path, field) as (parent, name):
        made = True
        try:
            os.mkdir(name, 0o750, dir_fd=parent)
        except FileExistsError:
            made = False
        except OSError as error:
            raise _cannot_be_made(path, field, error) from error
        try:
            with _last(parent, name, path, field, stat.S_ISDIR, "directory") as target:
                yield target
        except BaseException:
            if made:
                with contextlib.suppress(OSError):
                    os.rmdir(name, dir_fd=parent)
            raise


@contextlib.contextmanager
def file_target(path: str, field: str) -> Iterator[int]:
    """Opens a file to mount a device on, made if it is missing; removed again if the block fails.

    Raises:
        InvalidRequest: It is no file, or there is no directory to make it in.
        Unavailable: It cannot be made.
    """
    with _parent(path, field) as (parent, name):
        made = True
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            os.close(os.open(name, flags, 0o640, dir_fd=parent))
        except FileExistsError:
            made = False
        except OSError as error:
            raise _cannot_be_made(path, field, error) from error
        try:
            with _last(parent, name, path, field, _is_file_or_device, "file") as target:
                yield target
        except BaseException:
            if made:
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=parent)
            raise


def check_absolute(path: str, field: str) -> None:
    """Checks that a path means the same to everybody.

    Raises:
        InvalidRequest: It is relative, or longer than paths can be.
    """
    if not path.startswith("/"):
        raise InvalidRequest(f"{field} {path!r} is not an absolute path")
    if any(len(os.fsencode(part)) > _NAME_BYTES for part in path.split("/")):
        raise InvalidRequest(f"{field} {path!r} has a part of more than {_NAME_BYTES} bytes")


def is_mounted(path: str) -> bool:
    """Whether something is mounted at a path; one that does not exist has nothing mounted."""
    try:
        return is_mount_root(path)
    except OSError as error:
        if error.errno in _ABSENT:
            return False
        if error.errno not in BROKEN:
            raise
    # A filesystem that has failed does not even tell that; it has to be unmounted all the same.
    wanted = os.path.realpath(path)
    return any(mount.target == wanted for mount in mounts.read_mounts())


def remove_target(path: str) -> None:
    """Removes what `directory_target` or `file_target` made; it can never remove data.

    A directory goes only if it is empty, a file only if it has no bytes.

    Raises:
        NotNow: Something is in it.
    """
    try:
        status = os.lstat(path)
    except OSError as error:
        if error.errno in _ABSENT:
            return
        raise
    try:
        if stat.S_ISDIR(status.st_mode):
            os.rmdir(path)
        elif stat.S_ISREG(status.st_mode) and status.st_size == 0:
            os.unlink(path)
        else:
            raise NotNow(f"{path} is not empty and is left as it is; look at it and remove it")
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in _HOLDS_SOMETHING:
            raise
        raise NotNow(
            f"{path} cannot be removed ({error.strerror}) and is left as it is; if it has files "
            "in it, they were written while nothing was mounted there"
        ) from error


@contextlib.contextmanager
def _parent(path: str, field: str) -> Iterator[tuple[int, str]]:
    check_absolute(path, field)
    folder, name = os.path.split(path.rstrip("/"))
    if name in ("", ".", ".."):
        raise InvalidRequest(f"{field} {path!r} does not name a file or directory")
    try:
        parent = os.open(folder, _PARENT)
    except OSError as error:
        if error.errno not in _ABSENT | {errno.EACCES}:
            raise
        raise InvalidRequest(
            f"{field} {path!r}: its parent directory cannot be opened: {error.strerror}"
        ) from error
    try:
        yield parent, name
    finally:
        os.close(parent)


@contextlib.contextmanager
def _last(
    parent: int, name: str, path: str, field: str, wanted: Callable[[int], bool], kind: str
) -> Iterator[int]:
    descriptor = os.open(name, _LAST, dir_fd=parent)
    try:
        if not wanted(os.fstat(descriptor).st_mode):
            raise InvalidRequest(f"{field} {path!r} is not a {kind}")
        yield descriptor
    finally:
        os.close(descriptor)


def _cannot_be_made(path: str, field: str, error: OSError) -> Unavailable:
    return Unavailable(f"{field} {path!r} cannot be made: {error.strerror}")


def _is_file_or_device(mode: int) -> bool:
    """A target that is in use already shows the device that is mounted on it."""
    return stat.S_ISREG(mode) or stat.S_ISBLK(mode)
