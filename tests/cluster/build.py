"""Compiles the programs that a cluster is made of, once for each version and each Go.

They land in the user's cache, outside the tree, so that neither a fresh checkout nor a cleaned one
compiles them again. `python -m tests.cluster.build` compiles all of them.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.cluster.errors import ClusterError
from tests.cluster.versions import (
    ALL_PROGRAMS,
    PARTS,
    SNAPSHOT_CLIENT,
    SNAPSHOT_METADATA_CLIENT,
    Program,
)
from tests.sanity.build import parse_go_version

OLDEST_GO = "1.26.0"
BUILD_TIMEOUT_S = 3600
# Where a line of output is watched, silence looks like a standstill.
SIGN_OF_LIFE_S = 20.0


def cache_folder() -> Path:
    """Where everything is kept that a second run need not make again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "csi-local-path"


def find_go() -> tuple[str, str]:
    """Finds Go.

    Returns:
        The command, and its version as it calls itself.

    Raises:
        ClusterError: There is none, or it is too old.
    """
    # Root's PATH often lacks the folder that Go's own installation uses.
    go = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
    advice = f"the cluster needs Go {OLDEST_GO} or newer (https://go.dev/doc/install)"
    if go is None:
        raise ClusterError(f"There is no Go on this machine; {advice}")
    # In the parts' folder, since a newer Go may fetch the version that a go.mod names and use that.
    asked = subprocess.run(
        [go, "env", "GOVERSION"],
        cwd=PARTS / "kubernetes",
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if asked.returncode != 0:
        raise ClusterError(f"{go} cannot be used: {asked.stderr.strip()}; {advice}")
    version = asked.stdout.split()[0]
    if parse_go_version(version) < parse_go_version(OLDEST_GO):
        raise ClusterError(f"{go} is {version}; {advice}")
    return go, version


def cache_name(program: Program, go_version: str) -> str:
    """The file name of a program: its version, Go's, and a digest of all else that goes into it."""
    digest = hashlib.sha256(f"{program.package} {program.linker_flags}".encode())
    for path in sorted(program.folder.rglob("*")):
        if path.suffix in {".go", ".mod", ".sum"}:
            digest.update(path.relative_to(program.folder).as_posix().encode())
            digest.update(path.read_bytes())
    return f"{program.name}-{program.version}-{go_version}-{digest.hexdigest()[:10]}"


def build(programs: Sequence[Program] = ALL_PROGRAMS) -> dict[str, Path]:
    """Compiles the programs that are not there yet.

    Safe to interrupt, and to run twice at once: each program is compiled under another name and
    renamed at the end, and a second run waits for the first.

    Returns:
        The programs' files by their names.

    Raises:
        ClusterError: One could not be compiled.
    """
    go, go_version = find_go()
    folder = cache_folder() / "programs"
    files = {program.name: folder / cache_name(program, go_version) for program in programs}
    if all(file.exists() for file in files.values()):
        return files
    with _only_build(folder):
        missing = [program for program in programs if not files[program.name].exists()]
        if missing:
            print(
                f"Compiling {len(missing)} programs with {go_version} into {folder}; this is done "
                "once and can be interrupted",
                flush=True,
            )
        for number, program in enumerate(missing, start=1):
            title = f"{number} of {len(missing)}: {program.name} {program.version}"
            with _workspace(folder) as workspace:
                unfinished = workspace / program.name
                _compile(go, go_version, program, unfinished, title)
                unfinished.replace(files[program.name])
    return files


def _compile(go: str, go_version: str, program: Program, target: Path, title: str) -> None:
    # -buildvcs: the state of this repository is no business of theirs.
    command = [
        *(go, "build", "-mod=readonly", "-trimpath", "-buildvcs=false"),
        *("-ldflags", program.linker_flags, "-o", str(target), program.package),
    ]
    environment = {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off"}
    if parse_go_version(go_version) >= (1, 27, 0):
        # kubectl apply fails on the schemas with the JSON of Go 1.27.
        environment["GOEXPERIMENT"] = "nojsonv2"
    started = time.monotonic()
    print(f"{title} ", end="", flush=True)
    with (target.parent / "output").open("w+b") as output:
        process = subprocess.Popen(
            command, cwd=program.folder, env=environment, stdout=output, stderr=output
        )
        try:
            _wait(process, program)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if process.returncode != 0:
            output.seek(0)
            text = output.read().decode(errors="replace").strip()
            raise ClusterError(f"Compiling {program.name} in {program.folder} failed:\n{text}")
    print(f" {time.monotonic() - started:.0f} s", flush=True)


def _wait(process: subprocess.Popen[bytes], program: Program) -> None:
    deadline = time.monotonic() + BUILD_TIMEOUT_S
    while True:
        try:
            process.wait(SIGN_OF_LIFE_S)
            return
        except subprocess.TimeoutExpired as error:
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"Compiling {program.name} took longer than {BUILD_TIMEOUT_S} s; "
                    "can Go reach its module proxy from here?"
                ) from error
            print(".", end="", flush=True)


@contextlib.contextmanager
def _only_build(folder: Path) -> Iterator[None]:
    """Waits for another build, and clears away what an interrupted one has left."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another build is under way: waiting for it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in folder.glob("building-*"):
            shutil.rmtree(leftover)
        yield


@contextlib.contextmanager
def _workspace(folder: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="building-", dir=folder) as workspace:
        yield Path(workspace)


def module_folder(part: str, module: str) -> Path:
    """The folder of a pinned module's sources in Go's own cache, fetched where it is missing."""
    go, _ = find_go()
    asked = subprocess.run(
        [go, "mod", "download", "-json", module],
        cwd=PARTS / part,
        env={**os.environ, "GOWORK": "off"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if asked.returncode != 0:
        raise ClusterError(f"Fetching {module} failed: {asked.stderr or asked.stdout}")
    return Path(json.loads(asked.stdout)["Dir"])


def snapshot_crds() -> Path:
    """A folder for `kubectl apply -k`: the CRDs of snapshots and group snapshots, as pinned."""
    return module_folder("external-snapshotter", SNAPSHOT_CLIENT) / "config" / "crd"


def changed_blocks_crds() -> Path:
    """A folder for `kubectl apply -f`: the CRD of SnapshotMetadataService, as pinned."""
    part = "external-snapshot-metadata"
    return module_folder(part, SNAPSHOT_METADATA_CLIENT) / "config" / "crd"


if __name__ == "__main__":
    try:
        for built in build().values():
            print(built)
    except ClusterError as error:
        sys.exit(str(error))
