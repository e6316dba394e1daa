"""The mark of a pool: a file that says that this directory is one, and which.

A directory without the mark is never used: an unmounted disk leaves an empty mount point behind,
and volumes made there would fill the root filesystem and vanish once the disk is back.
"""

from __future__ import annotations

import os
import time
import uuid

import msgspec

from csi.errors import InvalidRequest, PoolUnavailable
from csi.pool.building import BUILDING, TRASH

MARK_NAME = "pool.json"
FOLDERS = ("volumes", "snapshots", "groups", BUILDING, TRASH)
_API_VERSION = "local-path.csi.dev/v1"


class Mark(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What the mark says."""

    api_version: str
    kind: str
    uuid: str
    created: str


def create_mark(path: str) -> Mark:
    """Makes the directory at `path` a pool, durably. The directory must exist.

    Raises:
        InvalidRequest: It is a pool already, or it holds other files.
    """
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        present = sorted(set(os.listdir(folder)) - {"lost+found"})
        if MARK_NAME in present:
            raise InvalidRequest(f"{path} is a pool already; nothing was changed")
        if present:
            raise InvalidRequest(
                f"{path} is not empty (it holds {present[0]!r}); give a pool a directory of its own"
            )
        mark = Mark(
            api_version=_API_VERSION,
            kind="Pool",
            uuid=str(uuid.uuid4()),
            created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        )
        for name in FOLDERS:
            os.mkdir(name, 0o700, dir_fd=folder)
        descriptor = os.open(
            MARK_NAME, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder
        )
        try:
            os.write(descriptor, msgspec.json.format(msgspec.json.encode(mark), indent=1) + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.fsync(folder)
        return mark
    finally:
        os.close(folder)


def is_pool(path: str) -> bool:
    """Whether a directory carries the mark of a pool."""
    return os.path.isfile(os.path.join(path, MARK_NAME))


def read_mark(descriptor: int, path: str) -> Mark:
    """Reads the mark behind an open descriptor; `path` names the pool in the error.

    Raises:
        PoolUnavailable: The mark is damaged, or of a newer version.
    """
    try:
        mark = msgspec.json.decode(os.pread(descriptor, 1 << 16, 0), type=Mark)
        uuid.UUID(mark.uuid)
    except (msgspec.DecodeError, ValueError) as error:
        raise PoolUnavailable(f"the mark {path}/{MARK_NAME} is damaged: {error}") from error
    if mark.api_version != _API_VERSION:
        raise PoolUnavailable(
            f"the pool {path} has version {mark.api_version}, this driver reads {_API_VERSION}"
        )
    return mark
