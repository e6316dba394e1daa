"""The images of a cluster that stand in no registry here: made of the compiled programs.

They have the names that manifests name, so that what the tests apply is what users apply.
"""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.cluster.archives import File, Folder, Image, Link, write_archive
from tests.cluster.build import cache_folder
from tests.cluster.errors import ClusterError
from tests.cluster.versions import BACKUP, PAUSE, SIDECARS, STAND_INS, Program

PAUSE_NAME = f"registry.k8s.io/pause:{PAUSE.version}"
BACKUP_NAME = f"localhost/{BACKUP.name}:{BACKUP.version}"
# The host's, by the name that the examples use: `busybox:stable`.
BUSYBOX_NAME = "docker.io/library/busybox:stable"
_USERS = b"root:x:0:0:root:/:/bin/sh\nnonroot:x:65532:65532:nonroot:/:/bin/sh\n"
_GROUPS = b"root:x:0:\nnonroot:x:65532:\n"
_BASE = (File("etc/passwd", _USERS), File("etc/group", _GROUPS), Folder("tmp", 0o1777))


def sidecar_name(program: Program) -> str:
    """The image of a sidecar, such as `registry.k8s.io/sig-storage/csi-provisioner:v6.3.0`."""
    return f"registry.k8s.io/sig-storage/{program.name}:{program.version}"


def archives(programs: Mapping[str, Path]) -> list[Path]:
    """Makes the archives that are not in the cache yet.

    Args:
        programs: The compiled programs by their names.

    Returns:
        One archive for each image: pause, busybox, every sidecar, and the tests' own tool.
    """
    named = {sidecar_name(sidecar): sidecar for sidecar in SIDECARS}
    named |= {PAUSE_NAME: PAUSE, BACKUP_NAME: BACKUP}
    made = [
        _archive(programs[program.name], _program_image(name, program, programs))
        for name, program in named.items()
    ]
    return [*made, _busybox()]


def _program_image(name: str, program: Program, programs: Mapping[str, Path]) -> Image:
    file = File(program.name, programs[program.name], 0o755)
    title = f"{program.name}{' (a stand-in for tests)' if program.module == STAND_INS else ''}"
    return Image(
        name,
        (*_BASE, file),
        entrypoint=(f"/{program.name}",),
        labels=(("org.opencontainers.image.title", title),),
    )


def _archive(program: Path, image: Image) -> Path:
    # The program's file is named by all that went into it.
    target = cache_folder() / "images" / f"{program.name}.tar"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        write_archive(image, target)
    return target


def _busybox() -> Path:
    program = shutil.which("busybox")
    if program is None:
        raise ClusterError("there is no busybox; tests/cluster/system-packages installs it")
    listed = subprocess.run(
        [program, "--list"], capture_output=True, text=True, timeout=30, check=True
    )
    applets = [name for name in listed.stdout.split() if name != "busybox"]
    image = Image(
        BUSYBOX_NAME,
        (
            *_BASE,
            File("bin/busybox", Path(program), 0o755),
            *(Link(f"bin/{applet}", "busybox") for applet in applets),
        ),
        arguments=("sh",),
    )
    status = Path(program).stat()
    target = cache_folder() / "images" / f"busybox-stable-{status.st_size}-{status.st_mtime_ns}.tar"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        write_archive(image, target)
    return target
