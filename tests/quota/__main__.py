"""Runs the tests below `cases/` in a guest; the arguments go to pytest."""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.quota.machine import GuestError, run_in_guest
from tests.sanity.build import BuildError, build

CASES = str(Path(__file__).with_name("cases"))
DEADLINE_S = 900.0


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status of pytest."""
    # Otherwise the guest would go on when this is told to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # The guest's own disk is its memory, and the tree is read-only there.
    color = "yes" if sys.stdout.isatty() else "no"
    # Neither pytest nor Hypothesis can keep anything there.
    plugins = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest")
    options = (*plugins, "--basetemp=/tmp/pytest", f"--color={color}")
    try:
        # Built out here: in the guest there is nowhere to keep it.
        environment = {"CSI_SANITY": str(build()), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", "pytest", *options, CASES, *arguments]
        return run_in_guest(command, environment, DEADLINE_S)
    except (BuildError, GuestError) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
