"""Records on disk: one JSON file an object, whole or not there.

A record is written beside its data under a temporary name of its own, made durable (see
`csi.pool.durability`) and renamed: a reader sees the old record or the new one, and a crash leaves
at most a temporary file that the next write does not trip over.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
from typing import TypeVar

import msgspec

from csi.linux.paths import open_beneath
from csi.model import RECORD_VERSION, Record
from csi.pool.durability import Durability

RECORD_NAME = "record.json"
_MAX_RECORD_BYTES = 1 << 20
_READ_BYTES = 1 << 14
"""More than any record has, and little enough that room for it costs nothing."""

R = TypeVar("R", bound=Record)


class DamagedRecordError(Exception):
    """A record that cannot be used; the message says why."""


class _Versioned(msgspec.Struct):
    version: int


def write_record(folder: int, record: Record, durability: Durability) -> None:
    """Writes the record into the open folder, replacing the one that is there.

    The caller makes the new name durable, with whatever else it has to: `Durability.names`.

    Raises:
        OSError: The old record stands, or, where only its place could not be synced, the new one
            for now: `read_record` tells which is seen.
    """
    temporary = f".{RECORD_NAME}.{secrets.token_hex(6)}"
    descriptor = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder
    )
    try:
        try:
            _write_all(descriptor, msgspec.json.format(msgspec.json.encode(record), indent=1))
            durability.contents(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, RECORD_NAME, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise


def drop_unfinished(folder: int) -> None:
    """Removes what a write that was cut off has left in the open folder."""
    # btrfs lists what was there when the folder was opened, or rewound.
    os.lseek(folder, 0, os.SEEK_SET)
    for name in os.listdir(folder):
        if name.startswith(f".{RECORD_NAME}."):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)


def read_record(folder: int, path: str, record_type: type[R]) -> R:
    """Reads the record at `path`, relative to the open folder.

    Raises:
        DamagedRecordError: It is missing, truncated, malformed or of a newer version.
    """
    try:
        descriptor = open_beneath(folder, path, os.O_RDONLY)
        try:
            data = _read_all(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise DamagedRecordError(f"its record cannot be read: {error.strerror}") from error
    return decode_record(data, record_type)


def decode_record(data: bytes, record_type: type[R]) -> R:
    """Turns the bytes of a record into a value.

    Raises:
        DamagedRecordError: They are truncated, malformed or of a newer version.
    """
    try:
        record: R = _decoder(record_type).decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        _check_version(data)  # what a newer driver wrote may look like damage
        raise DamagedRecordError(f"its record is damaged: {error}") from error
    if record.version > RECORD_VERSION:
        _check_version(data)
    return record


@functools.cache
def _decoder(record_type: type[R]) -> msgspec.json.Decoder[R]:
    return msgspec.json.Decoder(record_type)


def _check_version(data: bytes) -> None:
    """Raises what a record of a newer version is; of one that is damaged nothing is said."""
    try:
        version = msgspec.json.decode(data, type=_Versioned).version
    except (msgspec.DecodeError, UnicodeDecodeError):
        return
    if version > RECORD_VERSION:
        raise DamagedRecordError(
            f"its record has version {version} and this driver reads up to {RECORD_VERSION}; "
            "install the newer driver again"
        )


def _read_all(descriptor: int) -> bytes:
    data = part = os.read(descriptor, _READ_BYTES)
    while len(part) == _READ_BYTES and len(data) < _MAX_RECORD_BYTES:
        part = os.read(descriptor, _READ_BYTES)
        data += part
    return data


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
