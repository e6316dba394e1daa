"""Running the few programs there is no system call for."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from csi.errors import ProgramFailed
from csi.linux import processors

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

_OUTPUT_CHARACTERS = 2000
_NOT_FOUND, _NOT_RUNNABLE = 127, 126  # as a shell reports them

_PACKAGES = {
    "mkfs.ext4": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "e2image": "e2fsprogs",
    "resize2fs": "e2fsprogs",
    "mkfs.xfs": "xfsprogs",
    "mkfs.btrfs": "btrfs-progs",
    "btrfstune": "btrfs-progs",
    "blkid": "util-linux",
}


def run(
    argv: Sequence[str],
    *,
    timeout_s: float,
    pass_fds: Sequence[int] = (),
    ok: Container[int] = (0,),
) -> str:
    """Runs a program to its end and returns what it printed on standard output.

    It gets no shell, no input, English messages and no other environment than a PATH, and of the
    open descriptors only `pass_fds`, under their own numbers. One that takes too long is killed
    and waited for: nothing writes any more when this returns.

    Raises:
        ProgramFailed: It ended with a status not in `ok`, or not in time, or is not installed.
    """
    program = os.path.basename(argv[0])
    with _started(program, argv, pass_fds) as process:
        try:
            output, errors = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            _, errors = process.communicate()
            raise ProgramFailed(program, None, _end(errors)) from None
        except BaseException:
            process.kill()
            raise
    if process.returncode not in ok:
        # Some, e2fsck among them, complain on standard output.
        raise ProgramFailed(program, process.returncode, _end(errors) or _end(output))
    return output


def _started(program: str, argv: Sequence[str], pass_fds: Sequence[int]) -> subprocess.Popen[str]:
    try:
        with processors.scattered():
            return subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                env={"LC_ALL": "C", "PATH": _search_path()},
                pass_fds=pass_fds,
                start_new_session=True,  # a Ctrl-C at the driver's terminal is not for mkfs
            )
    except FileNotFoundError:
        package = _PACKAGES.get(program)
        where = f"; it is in the package {package}" if package else ""
        raise ProgramFailed(program, _NOT_FOUND, f"it is not installed{where}") from None
    except PermissionError:
        raise ProgramFailed(program, _NOT_RUNNABLE, "it is not executable") from None


def _search_path() -> str:
    """The PATH, and where the tools lie when a service was started without these in it."""
    return os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"


def _end(text: str) -> str:
    return text.strip()[-_OUTPUT_CHARACTERS:]
