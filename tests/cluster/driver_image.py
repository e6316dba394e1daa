"""The driver's own image, built from the repository's Dockerfile as a user would build it."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from csi import __version__
from tests.cluster.base import BASE_NAME, base_archive, base_key
from tests.cluster.build import cache_folder
from tests.cluster.errors import ClusterError

REPOSITORY = Path(__file__).resolve().parents[2]
# As deploy/sidecars names it; the kubelet looks for names without a host there.
DRIVER_NAME = f"docker.io/library/csi-local-path:{__version__}"
BUILD_TIMEOUT_S = 1800
ARCHIVES_KEPT = 4
LAYERS_KEPT = 100
SOURCES = ("Dockerfile", ".dockerignore", "requirements.lock", "csi")
# Options of pip whose value names a file or folder, which has to be there during the build, too.
PIP_PATHS = ("cert", "client-cert", "find-links")


def driver_image(name: str = DRIVER_NAME) -> Path:
    """Builds the image where the cache has none of these very sources.

    Args:
        name: What to call it; another name gives an image that can be told apart, for upgrades.

    Returns:
        An archive for `load_image`.

    Raises:
        ClusterError: The build failed; the message has the end of what it printed.
    """
    folder = cache_folder() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    key = sources_key(REPOSITORY, base_key(), name)
    target = folder / f"driver-{key}.tar"
    with _only_build(folder):
        if target.exists():
            # It counts as used, and is not among those that go next.
            target.touch()
            return target
        base = base_archive()
        print(f"Building {name} from the Dockerfile", flush=True)
        _buildah("pull", "--quiet", f"docker-archive:{base}")
        with tempfile.TemporaryDirectory(prefix="driver-", dir=folder) as workspace:
            _build(name, Path(workspace))
            unfinished = Path(workspace) / "image.tar"
            _buildah("push", "--quiet", name, f"docker-archive:{unfinished}:{name}")
            unfinished.replace(target)
        _remove_old(folder)
    return target


def sources_key(repository: Path, base: str, name: str) -> str:
    """A digest of all that goes into the image."""
    digest = hashlib.sha256(f"{base} {name}".encode())
    for source in SOURCES:
        path = repository / source
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(str(file.relative_to(repository)).encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _build(name: str, workspace: Path) -> None:
    configuration = workspace / "pip.conf"
    text, paths = pip_configuration(_pip_options())
    configuration.write_text(text, encoding="utf-8")
    shared = [(configuration, "/etc/pip.conf"), *((path, str(path)) for path in paths)]
    _buildah(
        # The chroot is enough of a container for a build, and works where others are not allowed.
        *("bud", "--isolation", "chroot", "--pull-never", "--layers", "--quiet"),
        *("--build-arg", f"BASE_IMAGE={BASE_NAME}", "--tag", name),
        # Its label is what tells images of the same sources apart.
        *("--build-arg", f"VERSION={name.rpartition(':')[2]}"),
        *(word for path, at in shared for word in ("--volume", f"{path}:{at}:ro")),
        *("--file", str(REPOSITORY / "Dockerfile"), str(REPOSITORY)),
    )


def _pip_options() -> dict[str, str]:
    """What pip is told on this host, by its files and by the environment, `cert` for `:env:.cert`.

    What the environment says comes last in pip's list and prevails.
    """
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if listed.returncode != 0:
        raise ClusterError(f"pip config list failed: {listed.stderr.strip()}")
    return parse_pip_options(listed.stdout)


def parse_pip_options(text: str) -> dict[str, str]:
    """Reads what `pip config list` printed; the environment prevails over the files."""
    from_files: dict[str, str] = {}
    from_environment: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition("=")
        section, _, option = key.rpartition(".")
        if section in {":env:", "global", "install"} and option != "config-file":
            where = from_environment if section == ":env:" else from_files
            where[option] = value[1:-1].replace("\\n", "\n")
    return from_files | from_environment


def pip_configuration(options: dict[str, str]) -> tuple[str, list[Path]]:
    """Makes the configuration of the pip in the build of the one of the host.

    Returns:
        The text of a pip.conf, and the files and folders of the host that it names.
    """
    words = (word for option in PIP_PATHS for word in options.get(option, "").split())
    paths = [path for path in map(Path, words) if path.is_absolute() and path.exists()]
    lines = ["[global]"]
    for option, value in sorted(options.items()):
        lines.append(f"{option} = " + "\n    ".join(value.split("\n")))
    return "\n".join(lines) + "\n", paths


def _buildah(*arguments: str) -> None:
    storage = _storage()
    storage.mkdir(parents=True, exist_ok=True)
    settings = storage / "containers.conf"
    # By default it puts a lock file into the host's folder of networks, and it needs none.
    settings.write_text(f'[network]\nnetwork_config_dir = "{storage / "cni"}"\n', encoding="utf-8")
    command = [
        *("buildah", "--root", str(storage / "root"), "--runroot", str(storage / "run")),
        *("--storage-driver", "overlay", *arguments),
    ]
    with tempfile.TemporaryFile("w+b") as output:
        try:
            done = subprocess.run(
                command,
                stdout=output,
                stderr=output,
                timeout=BUILD_TIMEOUT_S,
                check=False,
                env={**os.environ, "CONTAINERS_CONF": str(settings)},
            )
        except FileNotFoundError:
            raise ClusterError(
                "there is no buildah; tests/cluster/system-packages installs it"
            ) from None
        if done.returncode != 0:
            output.seek(0)
            text = output.read().decode(errors="replace").splitlines()[-40:]
            raise ClusterError(f"buildah {arguments[0]} failed:\n" + "\n".join(text))


def _remove_old(folder: Path) -> None:
    archives = sorted(folder.glob("driver-*.tar"), key=lambda path: path.stat().st_mtime)
    for archive in archives[:-ARCHIVES_KEPT]:
        archive.unlink()
    # buildah keeps the layers of every build, and cannot tell those that are still of use.
    if len(list((_storage() / "root" / "overlay").glob("*"))) > LAYERS_KEPT:
        shutil.rmtree(_storage())


def _storage() -> Path:
    # Of its own: the user's, if there is one, is left alone.
    return cache_folder() / "buildah"


@contextlib.contextmanager
def _only_build(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    try:
        print(driver_image())
    except ClusterError as error:
        sys.exit(str(error))
