"""Boots User-Mode Linux over this machine's files, runs something in it and takes it away.

The guest's root filesystem is this machine's, read-only; what it writes goes to its own memory and
to disks of its own, which are sparse files in a folder that is removed. It is an ordinary process
tree in a session of its own, so ending that session ends it whole.
"""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
WHOLE_REGISTERS = Path(__file__).with_name("whole_registers.c")
MODULES = Path("/usr/lib/uml/modules")
MEMORY_MIB = 1024
DISKS = {
    "/dev/ubda": 20 << 30,
    "/dev/ubdb": 20 << 30,
    "/dev/ubdc": 2 << 30,
    "/dev/ubdd": 20 << 30,
}
"""The guest's disks and their sizes in bytes; they are empty at first."""
READY, DONE = "the guest is ready", "the guest is done"
"""What it says before and after it runs the command; the kernel's own chatter is outside of them.
"""
STATUS = "status"
"""The file in which the guest leaves the exit status of what it ran."""


class GuestError(Exception):
    """The guest cannot be had, or did not come to its end; the message says what to do."""


def run_in_guest(command: Sequence[str], environment: dict[str, str], deadline_s: float) -> int:
    """Boots a guest, runs a command in it as root, and returns its exit status.

    What the command prints is printed.

    Raises:
        GuestError: There is no User-Mode Linux here, it did not boot, or the time was up.
    """
    kernel = shutil.which("linux.uml")
    if kernel is None:
        raise GuestError("there is no linux.uml; tests/quota/system-packages installs it")
    # Not in TMPDIR: the guest looks for it in the same place.
    with tempfile.TemporaryDirectory(prefix="csi-quota-", dir="/tmp") as name:
        folder = Path(name)
        with _started(kernel, _write_init(folder, command, environment), folder) as process:
            deadline = threading.Timer(deadline_s, _end, [process])
            deadline.start()
            try:
                said = _relay(process)
            finally:
                expired = not deadline.is_alive()
                deadline.cancel()
        if expired:
            raise GuestError(f"the guest was not done within {deadline_s:.0f} s and was ended")
        try:
            return int((folder / STATUS).read_text(encoding="ascii"))
        except (OSError, ValueError) as error:
            raise GuestError(f"the guest ended without a result; it said:\n{said}") from error


def _write_init(folder: Path, command: Sequence[str], environment: dict[str, str]) -> Path:
    """Writes what the guest's kernel starts first."""
    init = folder / "init"
    variables = [f"{name}={value}" for name, value in environment.items()]
    guest = ["env", *variables, sys.executable, "-B", "-m", "tests.quota.guest", str(folder)]
    init.write_text(
        f"#!/bin/sh\ncd {shlex.quote(str(REPOSITORY))}\nexec {shlex.join([*guest, *command])}\n",
        encoding="utf-8",
    )
    init.chmod(0o700)
    return init


@contextlib.contextmanager
def _started(kernel: str, init: Path, folder: Path) -> Iterator[subprocess.Popen[str]]:
    arguments = [
        f"mem={MEMORY_MIB}M",
        *("rootfstype=hostfs", "rootflags=/", "ro"),
        f"init={init}",
        # The console is our pipe, and there are no other terminals.
        *("con=null", "con0=null,fd:1", "ssl=null"),
        *("quiet", "panic=-1"),
        f"uml_dir={folder}",
        *_disks(folder),
    ]
    process = subprocess.Popen(
        [kernel, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | _preloaded(folder),
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        yield process
    finally:
        _end(process)
        process.wait()


def _preloaded(folder: Path) -> dict[str, str]:
    """Builds what the guest's kernel needs to run on a processor with AMX, where this is one."""
    if "amx_tile" not in Path("/proc/cpuinfo").read_text(encoding="utf-8").split():
        return {}
    compiler, library = shutil.which("cc"), folder / "whole_registers.so"
    if compiler is None:
        raise GuestError(
            "on a processor with AMX the guest needs a C compiler; tests/quota/system-packages "
            "installs one"
        )
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(WHOLE_REGISTERS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise GuestError(f"{WHOLE_REGISTERS} cannot be compiled: {done.stderr}")
    return {"LD_PRELOAD": str(library)}


def _disks(folder: Path) -> list[str]:
    """Makes the files behind the guest's disks; returns the words that name them to its kernel."""
    words = []
    for number, (disk, size_bytes) in enumerate(DISKS.items()):
        file = folder / Path(disk).name
        with file.open("xb") as image:
            image.truncate(size_bytes)
        words.append(f"ubd{number}={file}")
    return words


def _relay(process: subprocess.Popen[str]) -> str:
    """Prints what the guest says between its two marks; returns what it said outside of them."""
    assert process.stdout is not None
    outside: list[str] = []
    inside = False
    for raw in process.stdout:
        line = raw.replace("\r", "")
        if line.strip() in (READY, DONE):
            inside = line.strip() == READY
        elif inside:
            print(line, end="", flush=True)
        else:
            outside.append(line)
    return "".join(outside)


def _end(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
