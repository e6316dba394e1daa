"""The command csi-local-path, run as an administrator would, to its end."""

import os
import subprocess
import sys
from types import ModuleType

from csi.volumes import driver
from tests.driver import COMMAND

DONE, FAILED, WRONG_ARGUMENTS = 0, 1, 2


def hurried(interval: str, seconds: float, module: ModuleType = driver) -> list[str]:
    """The real command, but that the driver does something sooner than it usually does.

    Args:
        interval: The name of the interval in the module.
        seconds: What it is to be.
        module: Where it is.
    """
    assert hasattr(module, interval), f"{module.__name__} has no {interval}"
    program = (
        f"import sys; import {module.__name__} as module; module.{interval} = {seconds}; "
        "from csi import cli; sys.exit(cli.main())"
    )
    return [sys.executable, "-c", program]


def csi_local_path(
    *arguments: object, stdout: int = subprocess.PIPE
) -> "subprocess.CompletedProcess[str]":
    """Runs the command and returns what came of it; one that does not end is an error."""
    environment = {
        key: value for key, value in os.environ.items() if key not in ("CSI_ENDPOINT", "NODE_ID")
    }
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )


def fails(code: int, *arguments: object) -> str:
    """Runs the command, expects that it ends with that code, and returns its complaint."""
    done = csi_local_path(*arguments)
    assert done.returncode == code, done.stderr or done.stdout
    assert done.stderr.strip(), "a failure has to say what is wrong"
    assert "Traceback" not in done.stderr
    return done.stderr


def succeeds(*arguments: object) -> str:
    """Runs the command, expects that all is well, and returns what it printed."""
    done = csi_local_path(*arguments)
    assert done.returncode == DONE, done.stderr or done.stdout
    return done.stdout
