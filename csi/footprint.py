"""Keeping the process small: a driver runs on every node and mostly waits."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator
from typing import Any, cast

from csi.linux import heap

_OPENSSL = ("ssl", "_hashlib")


def leave_out_openssl() -> None:
    """Lets libraries do without OpenSSL, which costs 5 MiB; to be called before they are imported.

    asyncio, which comes with gRPC, and hashlib would load it. The driver serves Unix sockets alone,
    and Python has the hashes that it needs itself. What is loaded already stays.
    """
    modules = cast("dict[str, Any]", sys.modules)
    for name in _OPENSSL:
        modules.setdefault(name, None)  # as if it were not installed


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Imports modules in its block without looking for garbage: what they make stays."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def settle() -> None:
    """Is called when what lives as long as the process is there.

    Nothing of it is looked through for garbage again, and what its making took is given back.
    """
    gc.collect()
    gc.freeze()
    heap.trim()
