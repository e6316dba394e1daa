"""Every error the driver knows, as one tree.

The tree says what went wrong in the driver's own terms. Which gRPC code that is, one table in
`csi.rpc.interceptors` decides, along the class's ancestry; no other place names a code.

    DriverError
    ├── InvalidRequest            the caller has to change the request
    │   └── UnsupportedRequest    well-formed, yet nothing this driver does
    │       └── NotEnforceable    the pool cannot hold a volume to the size that was asked for
    ├── NotFound                  no such volume, snapshot, group, node or path
    ├── AlreadyExists             the name or path is taken by something incompatible
    ├── OutOfRange                no pool of this size could ever hold it
    ├── NoRoom                    it would fit another time, or elsewhere
    ├── NotNow                    the state of the volume forbids it until somebody acts
    │   └── InUse                 still published, mounted or a source of a copy
    ├── OperationPending          the same object is being worked on: ask again
    ├── BadToken                  a paging token this driver did not give out
    └── Unavailable               nothing is known to be lost; ask again
        ├── NotReady              the driver is still starting
        ├── PoolUnavailable       the pool's disk is gone, read-only or not marked
        └── ProgramFailed         a filesystem tool failed or ran out of time
"""

from __future__ import annotations


class DriverError(Exception):
    """The root: carries one sentence for a person, never a secret and never a traceback."""


class InvalidRequest(DriverError):
    """A field is missing, malformed or contradicts another one."""


class UnsupportedRequest(InvalidRequest):
    """A well-formed request for something this driver does not do."""


class NotEnforceable(UnsupportedRequest):
    """The pool cannot enforce the size and the StorageClass did not waive that."""


class NotFound(DriverError):
    """The volume, snapshot, group, node or path that was named does not exist."""


class AlreadyExists(DriverError):
    """The name or path is in use by something that does not match the request."""


class OutOfRange(DriverError):
    """The size asked for could never be had, however empty the pool."""


class NoRoom(DriverError):
    """The pool, or a limit, has no room for it now."""


class NotNow(DriverError):
    """The present state of the volume or snapshot forbids it; the message says what to do."""


class InUse(NotNow):
    """Still published, staged or attached; it has to be released first."""


class OperationPending(DriverError):
    """Another operation on the same object is under way."""


class BadToken(DriverError):
    """A paging token that this driver did not give out."""


class Unavailable(DriverError):
    """Failed in a way that another try may cure; what was rolled back is not certain."""


class NotReady(Unavailable):
    """The driver is still reading its pools."""


class PoolUnavailable(Unavailable):
    """A pool's disk is missing, read-only, locked by another driver or carries no mark."""


class ProgramFailed(Unavailable):
    """A program such as mkfs failed, or did not end in time.

    Attributes:
        program: The name of the program.
        status: Its exit status, or None when it was ended for taking too long.
        output: The end of what it printed on standard error.
    """

    def __init__(self, program: str, status: int | None, output: str) -> None:
        self.program = program
        self.status = status
        self.output = output
        how = "did not end in time" if status is None else f"failed with status {status}"
        super().__init__(f"{program} {how}: {output or 'it printed nothing'}")
