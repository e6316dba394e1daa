"""The first process of the guest: makes it a place to run tests in, runs them, and switches off."""

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.quota.machine import DONE, MODULES, READY, STATUS

# Of what the tests need these are no part of the kernel itself; in this order.
NEEDED_MODULES = ("drivers/block/loop.ko", "fs/quota/quota_tree.ko", "fs/quota/quota_v2.ko")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SHARED = "/tmp/host"


def main(folder: str, command: list[str]) -> None:
    """Runs the command and leaves its exit status in the folder, which lies on the host."""
    os.environ |= {"PATH": PATH, "HOME": "/tmp", "LC_ALL": "C.UTF-8"}
    for fs_type, place in (("proc", "/proc"), ("sysfs", "/sys"), ("tmpfs", "/tmp")):
        _run("mount", "-t", fs_type, fs_type, place)
    _run("mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup")
    for module in NEEDED_MODULES:
        _run("insmod", str(MODULES / os.uname().release / "kernel" / module))
    # All else of the host is read-only in here.
    Path(SHARED).mkdir()
    _run("mount", "-t", "hostfs", "-o", folder, "hostfs", SHARED)
    print(READY, flush=True)
    status = subprocess.run(command, check=False).returncode
    print(DONE, flush=True)
    (Path(SHARED) / STATUS).write_text(str(status), encoding="ascii")


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2:])
    finally:
        sys.stdout.flush()
        Path("/proc/sysrq-trigger").write_text("o", encoding="ascii")
        time.sleep(60)  # it is switched off meanwhile
