"""What happens around every call: reading it, admitting it, its status, its line in the log.

It is one wrapper around each method and no interceptor of gRPC's: those run on the thread that
serves all connections, and before the request is there to be looked at.

Here is also the one table that says which gRPC code an error is. No other place names a code.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import secrets
import time
import traceback
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple, NoReturn

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message

from csi.errors import (
    AlreadyExists,
    BadToken,
    DriverError,
    InvalidRequest,
    NoRoom,
    NotFound,
    NotNow,
    NotReady,
    OperationPending,
    OutOfRange,
    Unavailable,
)
from csi.rpc import limits, redaction
from csi.rpc.admission import Admission
from csi.rpc.verbs import Driver
from csi.v1 import csi_pb2

Behaviour = Callable[[bytes, grpc.ServicerContext], bytes]
StreamBehaviour = Callable[[bytes, grpc.ServicerContext], Iterator[bytes]]

MESSAGE_BYTES = 2048
"""gRPC carries the message in a header, where a byte may take three; a peer need not take more
than 8 KiB of headers."""

_CODES: dict[type[BaseException], grpc.StatusCode] = {
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    OutOfRange: grpc.StatusCode.OUT_OF_RANGE,
    NoRoom: grpc.StatusCode.RESOURCE_EXHAUSTED,
    NotNow: grpc.StatusCode.FAILED_PRECONDITION,
    OperationPending: grpc.StatusCode.ABORTED,
    BadToken: grpc.StatusCode.ABORTED,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    DriverError: grpc.StatusCode.INTERNAL,
}
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_ASK_FOR_ROOM = frozenset(
    {
        "CreateVolume",
        "ControllerExpandVolume",
        "CreateSnapshot",
        "CreateVolumeGroupSnapshot",
    }
)
"""To all others the specification has no RESOURCE_EXHAUSTED, or gives it another meaning."""

_log = logging.getLogger("csi.rpc")


class Status(NamedTuple):
    """How a failed call is answered."""

    code: grpc.StatusCode
    message: str
    surprising: bool
    """Whether the log is to show where the error came from."""


def status_of(error: Exception, method: str = "") -> Status:
    """Returns the status for an error, by the closest of its ancestors that the table has.

    A full disk is told as such by the methods that ask for room.
    """
    for ancestor in type(error).__mro__:
        code = _CODES.get(ancestor)
        if code is not None:
            surprising = code is grpc.StatusCode.INTERNAL
            return Status(code, str(error) or code.value[1], surprising)
    if isinstance(error, OSError):
        full = error.errno in _FULL and method in _ASK_FOR_ROOM
        code = grpc.StatusCode.RESOURCE_EXHAUSTED if full else grpc.StatusCode.UNAVAILABLE
        return Status(code, _in_words(error), surprising=True)
    # What went wrong is nothing that a caller could act on, and may hold what it must not see.
    reference = secrets.token_hex(4)
    return Status(
        grpc.StatusCode.INTERNAL,
        f"an unexpected error; the driver's log has it under reference {reference}",
        surprising=True,
    )


def _in_words(error: OSError) -> str:
    words = os.strerror(error.errno) if error.errno else "an operation on a file or device failed"
    if isinstance(error.filename, str | bytes):
        return f"{words}: {os.path.basename(os.fsdecode(error.filename))}"
    return words


def _fit_to_travel(text: str) -> str:
    return text.encode("utf-8", "backslashreplace")[:MESSAGE_BYTES].decode("utf-8", "ignore")


class Calls:
    """Wraps the methods of services; one for all sockets, so that it admits calls to all."""

    def __init__(self, driver: Driver, admission: Admission) -> None:
        self._driver = driver
        self._admission = admission

    def methods(
        self, service: object, descriptor: ServiceDescriptor, *, always: bool = False
    ) -> dict[str, grpc.RpcMethodHandler[bytes, bytes]]:
        """Returns the methods of a service by their names, wrapped.

        Args:
            service: Has the methods of the descriptor, in snake_case; one that it does not have
                is answered as UNIMPLEMENTED.
            descriptor: The service in the wire contract.
            always: Whether calls are answered even while the driver starts or is overloaded.
        """
        found: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {}
        for method in descriptor.methods:
            handle = getattr(service, _snake_case(method.name), None)
            if handle is None:
                continue
            if method.server_streaming:
                wrapped = self.wrap_stream(method, handle)
                found[method.name] = grpc.unary_stream_rpc_method_handler(wrapped)
            else:
                behaviour = self.wrap(method, handle, always=always)
                found[method.name] = grpc.unary_unary_rpc_method_handler(behaviour)
        return found

    def wrap(
        self, method: MethodDescriptor, handle: Callable[[Any], Message], *, always: bool
    ) -> Behaviour:
        """Returns a method as gRPC calls it.

        It takes and returns bytes: gRPC would answer INTERNAL to a request that it cannot parse,
        and parse it on the one thread that serves all connections.
        """
        name = method.name
        request_type: type[Message] = getattr(csi_pb2, method.input_type.name)
        gate = contextlib.nullcontext() if always else self._admission

        def call(data: bytes, context: grpc.ServicerContext) -> bytes:
            started = time.perf_counter()
            request = request_type()
            try:
                _parse(request, data)
                if not always:
                    self._check_ready()
                with gate:
                    limits.check(request)
                    response = handle(request)
                answer = response.SerializeToString()
            except Exception as error:  # noqa: BLE001 - every error becomes a status, here only
                status = _report_failure(name, request, error, started)
            else:
                _report_success(name, request, response, started)
                return answer
            # Not in the handler above: the exception by which gRPC aborts would drag the error on.
            _abort(context, status)

        return call

    def wrap_stream(
        self, method: MethodDescriptor, handle: Callable[[Any], Generator[Message]]
    ) -> StreamBehaviour:
        """Returns a method that answers with many messages; it counts as one call to its end.

        gRPC takes the next message when the one before is on its way, and closes the generator
        when the caller has cancelled or is gone. Its `with` blocks then end like those of a call.
        """
        name = method.name
        request_type: type[Message] = getattr(csi_pb2, method.input_type.name)

        def call(data: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
            started = time.perf_counter()
            request = request_type()
            try:
                _parse(request, data)
                self._check_ready()
                with self._admission:
                    limits.check(request)
                    with contextlib.closing(handle(request)) as responses:
                        for response in responses:
                            yield response.SerializeToString()
            except GeneratorExit:
                _report_abandoned(name, request, started)
                raise
            except Exception as error:  # noqa: BLE001 - as above
                status = _report_failure(name, request, error, started)
            else:
                _report_success(name, request, None, started)
                return
            _abort(context, status)

        return call

    def _check_ready(self) -> None:
        if not self._driver.is_ready():
            self._driver.check()  # where the start has failed, this says why
            raise NotReady("the driver is starting and reads its pools; try again soon")


def _parse(request: Message, data: bytes) -> None:
    try:
        request.ParseFromString(data)
    except DecodeError as error:
        request.Clear()  # what it read so far may be half a value
        raise InvalidRequest(
            f"the request is not a valid {request.DESCRIPTOR.full_name} message"
        ) from error


def _abort(context: grpc.ServicerContext, status: Status) -> NoReturn:
    context.abort(status.code, status.message)


def _report_success(name: str, request: Message, response: Message | None, started: float) -> None:
    if _log.isEnabledFor(logging.INFO):
        known = redaction.identifiers(request)
        if response is not None:
            known |= redaction.result_identifiers(response)
        _log.info("%s OK", name, extra=_extra(name, "OK", request, known, started))


def _report_abandoned(name: str, request: Message, started: float) -> None:
    code = grpc.StatusCode.CANCELLED.name
    known = redaction.identifiers(request)
    _log.info("%s %s", name, code, extra=_extra(name, code, request, known, started))


def _report_failure(name: str, request: Message, error: Exception, started: float) -> Status:
    status = status_of(error, name)
    # First scrubbed, then cut: half a secret would not be found.
    message = _fit_to_travel(redaction.scrub(status.message, request))
    known = redaction.identifiers(request)
    extra = _extra(name, status.code.name, request, known, started) | {"error": message}
    if status.surprising:
        extra["exception"] = redaction.scrub(
            "".join(traceback.format_exception(error)).rstrip(), request
        )
    elif error.__cause__ is not None:
        extra["cause"] = redaction.scrub(repr(error.__cause__), request)
    level = logging.ERROR if status.surprising else logging.WARNING
    _log.log(level, "%s %s", name, status.code.name, extra=extra)
    return status._replace(message=message)


def _extra(
    name: str, code: str, request: Message, known: dict[str, str], started: float
) -> dict[str, Any]:
    elapsed_ms = round((time.perf_counter() - started) * 1000, 3)
    extra: dict[str, Any] = {"method": name, **known, "code": code, "duration_ms": elapsed_ms}
    if _log.isEnabledFor(logging.DEBUG):
        extra["request"] = redaction.stripped(request)
    return extra


def _snake_case(name: str) -> str:
    return re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower()
