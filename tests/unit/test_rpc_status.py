"""Errors on the wire: their codes, their messages, and what of them only the log shows."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from csi import errors
from csi.errors import (
    AlreadyExists,
    BadToken,
    DriverError,
    InUse,
    InvalidRequest,
    NoRoom,
    NotEnforceable,
    NotFound,
    NotNow,
    NotReady,
    OperationPending,
    OutOfRange,
    PoolUnavailable,
    ProgramFailed,
    Unavailable,
    UnsupportedRequest,
)
from csi.rpc.interceptors import MESSAGE_BYTES, status_of
from csi.v1 import csi_pb2
from tests.unit.test_rpc_fake import Client, FakeDriver, captured_log, served

Code = grpc.StatusCode

TABLE: list[tuple[Exception, Code, str]] = [
    (InvalidRequest("bad"), Code.INVALID_ARGUMENT, "bad"),
    (UnsupportedRequest("not here"), Code.INVALID_ARGUMENT, "not here"),
    (NotEnforceable("no quota"), Code.INVALID_ARGUMENT, "no quota"),
    (NotFound("gone"), Code.NOT_FOUND, "gone"),
    (AlreadyExists("taken"), Code.ALREADY_EXISTS, "taken"),
    (OutOfRange("never"), Code.OUT_OF_RANGE, "never"),
    (NoRoom("full"), Code.RESOURCE_EXHAUSTED, "full"),
    (NotNow("staged"), Code.FAILED_PRECONDITION, "staged"),
    (InUse("mounted"), Code.FAILED_PRECONDITION, "mounted"),
    (OperationPending("busy"), Code.ABORTED, "busy"),
    (BadToken("token"), Code.ABORTED, "token"),
    (Unavailable("later"), Code.UNAVAILABLE, "later"),
    (NotReady("starting"), Code.UNAVAILABLE, "starting"),
    (PoolUnavailable("no disk"), Code.UNAVAILABLE, "no disk"),
    (ProgramFailed("mkfs.xfs", 1, "oh"), Code.UNAVAILABLE, "mkfs.xfs failed with status 1: oh"),
    (DriverError("odd"), Code.INTERNAL, "odd"),
    (
        OSError(errno.EIO, "x", "/pool/volumes/abc/disk.img"),
        Code.UNAVAILABLE,
        "Input/output error: disk.img",
    ),
    (OSError(errno.EROFS, "x", b"/pool/f\xff"), Code.UNAVAILABLE, "Read-only file system: f"),
    (OSError(errno.EIO, "x", 7), Code.UNAVAILABLE, "Input/output error"),
    (OSError("odd"), Code.UNAVAILABLE, "an operation on a file or device failed"),
    (PermissionError(errno.EPERM, "x"), Code.UNAVAILABLE, "Operation not permitted"),
    (TimeoutError(), Code.UNAVAILABLE, "an operation on a file or device failed"),
    (OSError(errno.ENOSPC, "x", "/a/b"), Code.UNAVAILABLE, "No space left on device: b"),
    (KeyError("detail"), Code.INTERNAL, "an unexpected error; the driver's log has it under"),
    (AssertionError(), Code.INTERNAL, "an unexpected error"),
    (MemoryError(), Code.INTERNAL, "an unexpected error"),
]


class Running(NamedTuple):
    driver: FakeDriver
    client: Client

    def fail_with(self, error: Exception) -> tuple[Code, str]:
        self.driver.script.error = error
        with pytest.raises(grpc.RpcError) as caught:
            self.client.controller.DeleteVolume(csi_pb2.DeleteVolumeRequest(volume_id="vol-1"))
        return caught.value.code(), caught.value.details() or ""


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    driver = FakeDriver()
    with served(driver, tmp_path) as client:
        yield Running(driver, client)


@pytest.mark.parametrize(("error", "code", "message"), TABLE, ids=lambda value: str(value)[:40])
def test_every_error_has_its_code(
    running: Running, error: Exception, code: Code, message: str
) -> None:
    answered, details = running.fail_with(error)
    assert answered is code
    assert details.startswith(message)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_to_who_asks_for_room(number: int) -> None:
    error = OSError(number, "x", "/a/b")

    assert status_of(error, "CreateVolume").code is Code.RESOURCE_EXHAUSTED
    assert status_of(error, "CreateSnapshot").code is Code.RESOURCE_EXHAUSTED
    assert status_of(error, "ControllerPublishVolume").code is Code.UNAVAILABLE
    assert status_of(error, "CreateVolume").message == f"{os.strerror(number)}: b"


def test_the_table_knows_the_whole_tree() -> None:
    def below(type_: type[DriverError]) -> Iterator[type[DriverError]]:
        yield type_
        for subclass in type_.__subclasses__():
            if subclass.__module__ == errors.__name__:
                yield from below(subclass)

    assert {type(error) for error, _, _ in TABLE} >= set(below(DriverError))


def test_a_class_of_a_later_day_takes_the_code_of_its_parent() -> None:
    class Elsewhere(NotFound, LookupError):
        """Made for this test."""

    assert status_of(Elsewhere("x")).code is Code.NOT_FOUND


@pytest.mark.parametrize(
    "error", [NotFound(), InvalidRequest(""), DriverError(), OSError(), RuntimeError()]
)
def test_a_message_is_never_empty(running: Running, error: Exception) -> None:
    _, details = running.fail_with(error)
    assert details


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("é\n\N{FIRE}", "é\n\N{FIRE}"),
        ("name \udcff", r"name \udcff"),
        ("x" * 100_000, "x" * MESSAGE_BYTES),
        ("\N{FIRE}" * 100_000, "\N{FIRE}" * (MESSAGE_BYTES // 4)),
    ],
)
def test_any_message_travels(running: Running, text: str, shown: str) -> None:
    assert running.fail_with(NotFound(text)) == (Code.NOT_FOUND, shown)


def test_the_unexpected_is_told_to_the_log_alone(running: Running) -> None:
    with captured_log() as records:
        _, details = running.fail_with(ValueError("what nobody should see"))
    assert "nobody" not in details
    (record,) = records
    fields = vars(record)
    reference = details.rsplit(" ", 1)[1]
    assert len(reference) == 8
    assert reference in fields["error"]
    assert "ValueError: what nobody should see" in fields["exception"]
    assert record.levelno == logging.ERROR


def test_the_cause_of_a_known_error_is_in_the_log(running: Running) -> None:
    error = Unavailable("the pool cannot be read")
    error.__cause__ = OSError(errno.EIO, "Input/output error")
    with captured_log() as records:
        _, details = running.fail_with(error)
    assert details == "the pool cannot be read"
    assert "Input/output error" in vars(records[0])["cause"]
    assert "exception" not in vars(records[0])


@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 40,
        b"\x0a\x05ab",  # a string that ends too soon
        b"\x0a\x02\xff\xfe",  # a string that is no UTF-8
        b"\x12\x04\x0a\x02\xc3\x28",  # likewise, in a map
    ],
)
def test_bytes_that_are_no_message(running: Running, data: bytes) -> None:
    with captured_log() as records, pytest.raises(grpc.RpcError) as caught:
        running.client.raw("Controller/DeleteVolume", data)
    assert caught.value.code() is Code.INVALID_ARGUMENT
    assert caught.value.details() == (
        "the request is not a valid csi.v1.DeleteVolumeRequest message"
    )
    assert running.driver.calls == []
    assert [vars(record)["code"] for record in records] == ["INVALID_ARGUMENT"]


METHODS = [
    f"{service}/{method.name}"
    for service in ("Identity", "Controller", "GroupController", "Node")
    for method in csi_pb2.DESCRIPTOR.services_by_name[service].methods
]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from(METHODS), st.binary(max_size=64))
def test_any_bytes_get_an_answer_or_a_refusal(running: Running, method: str, data: bytes) -> None:
    try:
        running.client.raw(method, data)
    except grpc.RpcError as error:
        answered = error.code()
    else:
        answered = Code.OK
    assert answered in {Code.OK, Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION}


def test_limits_are_checked_on_the_wire(running: Running) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        running.client.controller.DeleteVolume(csi_pb2.DeleteVolumeRequest(volume_id="v" * 129))
    assert caught.value.code() is Code.INVALID_ARGUMENT
    assert caught.value.details() == "volume_id has 129 bytes; at most 128 are allowed"
    assert running.driver.calls == []


def test_an_answer_that_cannot_be_written(running: Running) -> None:
    running.driver.script.volume = running.driver.script.volume.replace(size_bytes=1 << 70)
    with pytest.raises(grpc.RpcError) as caught:
        running.client.controller.ControllerGetVolume(
            csi_pb2.ControllerGetVolumeRequest(volume_id="vol-1")
        )
    assert caught.value.code() is Code.INTERNAL
    assert "unexpected error" in (caught.value.details() or "")
