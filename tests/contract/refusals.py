"""Errors as a caller sees them: the code, and a message that names what is at fault."""

import contextlib
from collections.abc import Iterator
from typing import cast

import grpc
import pytest

Code = grpc.StatusCode

DETAILS_KEY = "grpc-status-details-bin"


class Refusal:
    """What came of a call that was refused; filled in at the end of the `with` block."""

    message: str = ""


@contextlib.contextmanager
def refused(code: grpc.StatusCode, *names: str) -> Iterator[Refusal]:
    """Expects that the call in the body of the `with` is refused.

    Args:
        code: With exactly this code.
        names: What its message has to hold, so that a person knows what to change.
    """
    refusal = Refusal()
    with pytest.raises(grpc.RpcError) as caught:
        yield refusal
    error = as_call(caught.value)
    refusal.message = error.details() or ""
    assert error.code() is code, f"{error.code()}: {refusal.message}"
    assert refusal.message, "an error has to say what is wrong"
    missing = [name for name in names if name not in refusal.message]
    assert not missing, f"{refusal.message!r} does not name {missing}"
    # The specification keeps the details of a status for later: they have to be empty.
    assert DETAILS_KEY not in {key for key, _ in error.trailing_metadata() or ()}


def as_call(error: grpc.RpcError) -> grpc.Call:
    """The error as what it is as well: the call that failed, with code and message."""
    return cast(grpc.Call, error)
