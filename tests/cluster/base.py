"""The image that the driver's own is based on: a small Debian with Python, made by debootstrap.

It takes the place of the one that the Dockerfile names, which would have to be pulled.
"""

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.cluster.archives import Image, write_archive
from tests.cluster.build import cache_folder
from tests.cluster.errors import ClusterError

SUITE = "bookworm"
PACKAGES = ("ca-certificates", "python3", "python3-venv")
BASE_NAME = f"localhost/csi-local-path-base:{SUITE}"
# What an image has no use for.
REMOVED = ("var/cache/apt", "var/lib/apt/lists", "var/log", "usr/share/doc", "usr/share/man")
TIMEOUT_S = 1200


def base_key() -> str:
    """A digest of what the base is made of."""
    return hashlib.sha256(" ".join((SUITE, *PACKAGES, *REMOVED)).encode()).hexdigest()[:10]


def base_archive() -> Path:
    """Makes the archive of the base where the cache has none.

    Raises:
        ClusterError: debootstrap failed.
    """
    target = cache_folder() / "images" / f"base-{SUITE}-{base_key()}.tar"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    print(f"Making a base image of Debian {SUITE} with Python, once, at {target}", flush=True)
    with tempfile.TemporaryDirectory(prefix="base-", dir=target.parent) as workspace:
        root, layer = Path(workspace) / "root", Path(workspace) / "layer.tar"
        _run("debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, root)
        for folder in REMOVED:
            shutil.rmtree(root / folder)
            (root / folder).mkdir()
        # The device files are the runtime's to make.
        _run("tar", "--create", "--file", layer, "--directory", root, "--exclude=./dev/*", ".")
        write_archive(Image(BASE_NAME, layer, arguments=("bash",)), target)
    return target


def _run(*command: str | Path) -> None:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
    )
    if done.returncode != 0:
        output = "\n".join((done.stdout + done.stderr).splitlines()[-25:])
        raise ClusterError(f"{command[0]} failed:\n{output}")
