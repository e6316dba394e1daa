"""Builds csi-sanity, the conformance test of CSI drivers, once for each version and each Go.

Its version is pinned by go.mod and go.sum beside this file. The program lands in the user's cache,
outside the tree, so that a fresh checkout or a cleaned one does not build it again. To renew it:
`go get -tool github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity@latest` in this folder.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
MODULE = "github.com/kubernetes-csi/csi-test/v5"
PACKAGE = f"{MODULE}/cmd/csi-sanity"
BUILD_TIMEOUT_S = 1200


class BuildError(Exception):
    """csi-sanity cannot be had; the message says what to do."""


def pinned_version() -> str:
    """The version of csi-test that go.mod pins, such as `v5.5.0`."""
    return _from_go_mod(rf"^\s*(?:require\s+)?{re.escape(MODULE)}\s+(v\S+)")


def needed_go() -> str:
    """The oldest version of Go that can build it, such as `1.25.0`."""
    return _from_go_mod(r"^go\s+(\S+)")


def _from_go_mod(pattern: str) -> str:
    text = (FOLDER / "go.mod").read_text(encoding="utf-8")
    match = re.search(pattern, text, re.MULTILINE)
    if match is None:
        raise BuildError(f"{FOLDER / 'go.mod'} does not name what {pattern!r} looks for")
    return match[1]


def parse_go_version(text: str) -> tuple[int, ...]:
    """Reads `go1.26.8`, `go1.26rc1` or `go1.26.8 X:experiment` as numbers to compare."""
    match = re.match(r"(?:go)?(\d+)\.(\d+)(?:\.(\d+))?", text)
    if match is None:
        raise BuildError(f"'go env GOVERSION' printed {text!r}, which is no version of Go")
    return tuple(int(number or 0) for number in match.groups())


def find_go() -> tuple[str, str]:
    """Finds Go.

    Returns:
        The command, and its version as it calls itself.

    Raises:
        BuildError: There is none, or it is too old.
    """
    needed = needed_go()
    advice = (
        f"csi-sanity needs Go {needed} or newer, which the tests expect to be installed already "
        "(https://go.dev/doc/install); `make demo`, `make test-unit` and `make check` do without"
    )
    # Root's PATH often lacks the folder that Go's own installation uses.
    go = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
    if go is None:
        raise BuildError(f"There is no Go on this machine. {advice}")
    # In this folder, since a newer Go may fetch the version that go.mod names and use that.
    here = _run([go, "env", "GOVERSION"], FOLDER)
    if here.returncode != 0:
        bare = _run([go, "env", "GOVERSION"], Path("/"), {"GOTOOLCHAIN": "local"})
        raise BuildError(
            f"{go} is {bare.stdout.strip() or 'of an unknown version'} and cannot build it: "
            f"{here.stderr.strip()}. {advice}"
        )
    version = here.stdout.split()[0] if here.stdout.split() else ""
    if parse_go_version(version) < parse_go_version(needed):
        raise BuildError(f"{go} is {version}. {advice}")
    return go, version


def build() -> Path:
    """Builds csi-sanity where it is not there yet.

    Safe beside other builds: each works under a name of its own and renames at the end.

    Returns:
        The program.

    Raises:
        BuildError: It could not be built.
    """
    go, go_version = find_go()
    version = pinned_version()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "csi-local-path"
    program = cache / f"csi-sanity-{version}-{go_version}"
    if program.exists():
        return program

    print(f"Building csi-sanity {version} with {go_version}, once, into {cache}", flush=True)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="building-", dir=cache) as workspace:
        unfinished = Path(workspace) / "csi-sanity"
        # -buildvcs: the state of this repository is none of csi-sanity's business, and asking for
        # it fails where the checkout belongs to another user.
        command = [
            *(go, "build", "-mod=readonly", "-trimpath", "-buildvcs=false"),
            *("-o", str(unfinished), PACKAGE),
        ]
        try:
            done = _run(command, FOLDER, {"CGO_ENABLED": "0", "GOWORK": "off"}, BUILD_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise BuildError(
                f"Building csi-sanity took longer than {BUILD_TIMEOUT_S} s; "
                "can Go reach its module proxy from here?"
            ) from error
        if done.returncode != 0:
            raise BuildError(f"Building csi-sanity failed:\n{done.stderr.strip()}")
        unfinished.replace(program)
    return program


def _run(
    command: list[str], folder: Path, variables: dict[str, str] | None = None, timeout_s: int = 300
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **(variables or {})},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


if __name__ == "__main__":
    try:
        print(f"csi-sanity is {build()}")
    except BuildError as error:
        sys.exit(str(error))
