"""A mount namespace in which nothing of the machine can be written: for tests that might get out.

Mounts that are made there are seen nowhere else and go with the last process in it. Everything is
read-only but one folder, which is a filesystem in memory.
"""

import ctypes
import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.cluster.mounts import foreign_mounts
from tests.leftovers import Before, release_leftovers

_MOUNT_SETATTR, _MNT_DETACH = 442, 2
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_READ_ONLY = 1
_STRICTATIME = 1 << 24  # each reading leaves its time
_WRITABLE = ("/dev", "/sys/fs/cgroup")
"""What shows a device is as read-only as the folder of the device; limits are written to groups."""
_OUTSIDE = "CSI_TESTS_OUTSIDE"
"""The variable that tells such a program which namespace it must not be in."""
_FOLDER_BYTES = 4 << 30


def run_confined(program: str, folder: Path, *arguments: object, timeout_s: float) -> Any:
    """Runs a module of the tests in a namespace of its own; returns what it prints, as JSON.

    Args:
        program: The module. It has to call `confine` before anything else.
        folder: Empty; its first argument.
        arguments: More arguments.
        timeout_s: When it is ended.
    """
    folder.mkdir()
    before = Before.now()
    repository = Path(__file__).resolve().parents[2]
    try:
        done = subprocess.run(
            [
                *("unshare", "--mount", "--propagation", "private"),
                *(sys.executable, "-B", "-m", program, str(folder), *map(str, arguments)),
            ],
            cwd=repository,
            env={**os.environ, _OUTSIDE: _namespace()},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=False,
            text=True,
        )
    finally:
        # Its mounts are gone with it; loop devices are everybody's.
        release_leftovers(before, folder, folder)
    assert done.returncode == 0, f"it ended with {done.returncode}: {done.stderr[-6000:]}"
    return json.loads(done.stdout)


def confine(folder: Path) -> None:
    """Makes everything read-only and a folder a filesystem in memory.

    Raises:
        PermissionError: This process is in the namespace of the machine.
    """
    if os.environ.get(_OUTSIDE, _namespace()) == _namespace():
        raise PermissionError("this program would spoil the machine: run it by `run_confined`")
    libc = ctypes.CDLL(None, use_errno=True)

    def check(status: int) -> None:
        if status:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def set_attributes(path: str, wanted: int, cleared: int) -> None:
        packed = struct.pack("=4Q", wanted, cleared, 0, 0)
        where = os.fsencode(path)
        check(libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, where, _AT_RECURSIVE, packed, len(packed)))

    # A copy of the mounts of others would keep their loop devices, whatever they unmount.
    mountinfo = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    for target in foreign_mounts(mountinfo, [folder, Path(__file__), Path(sys.prefix)]):
        libc.umount2(os.fsencode(target), _MNT_DETACH)
    set_attributes("/", _READ_ONLY, 0)
    for path in _WRITABLE:
        set_attributes(path, 0, _READ_ONLY)
    options = f"size={_FOLDER_BYTES}".encode()
    check(libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", _STRICTATIME, options))
    probe = Path(__file__).with_suffix(".probe")
    try:
        probe.touch()
    except OSError:
        return
    probe.unlink()
    raise PermissionError("the machine is still writable here")


def _namespace() -> str:
    return os.readlink("/proc/self/ns/mnt")
