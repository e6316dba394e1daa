"""ptrace(2) by ctypes, as far as the tracer needs it: x86-64 Linux 5.3 or newer."""

import ctypes
import os
import struct
from typing import NamedTuple

SEIZE, INTERRUPT, LISTEN = 0x4206, 0x4207, 0x4208
SYSCALL, CONT, POKEUSER = 24, 7, 6
GET_SYSCALL_INFO, GETEVENTMSG = 0x420E, 0x4201

O_SYSGOOD, O_FORK, O_VFORK, O_CLONE, O_EXEC = 0x01, 0x02, 0x04, 0x08, 0x10
OPTIONS = O_SYSGOOD | O_FORK | O_VFORK | O_CLONE | O_EXEC
EVENT_EXEC, EVENT_STOP = 4, 128
WALL = 0x40000000

_ENTRY, _EXIT = 1, 2
_INFO_BYTES = 88
_RAX, _ORIG_RAX = 10 * 8, 15 * 8  # in struct user_regs_struct
_NO_CALL = (1 << 64) - 1

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


class Entry(NamedTuple):
    """A system call that is about to run."""

    number: int
    arguments: tuple[int, ...]


def request(what: int, task: int, address: int = 0, data: int = 0) -> None:
    """Makes a request that returns nothing.

    Raises:
        ProcessLookupError: The task is gone, or is not stopped.
    """
    if _libc.ptrace(what, task, address, data) == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace {what:#x}: {os.strerror(number)}", str(task))


def entered(task: int) -> Entry | None:
    """Returns the system call at whose entry a task is stopped; None at its exit."""
    info = ctypes.create_string_buffer(_INFO_BYTES)
    if _libc.ptrace(GET_SYSCALL_INFO, task, _INFO_BYTES, ctypes.addressof(info)) == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"PTRACE_GET_SYSCALL_INFO: {os.strerror(number)}", str(task))
    if info.raw[0] != _ENTRY:
        return None
    number, *arguments = struct.unpack_from("=7Q", info.raw, 24)
    return Entry(number, tuple(arguments))


def skip_call(task: int) -> None:
    """Lets the system call at whose entry a task is stopped not run."""
    request(POKEUSER, task, _ORIG_RAX, _NO_CALL)


def set_result(task: int, value: int) -> None:
    """Sets what the system call returns at whose exit a task is stopped."""
    request(POKEUSER, task, _RAX, value & _NO_CALL)


def read_memory(task: int, address: int, length: int) -> bytes:
    """Reads from a stopped task; fewer bytes where its memory ends."""
    descriptor = os.open(f"/proc/{task}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(descriptor, length, address)
    finally:
        os.close(descriptor)


def read_string(task: int, address: int) -> str:
    """Reads a path from a stopped task."""
    # A page at a time, for the next one may not be there.
    data = read_memory(task, address, 4096 - address % 4096)
    if b"\0" not in data:
        data += read_memory(task, address + len(data), 4096)
    return os.fsdecode(data.partition(b"\0")[0])
