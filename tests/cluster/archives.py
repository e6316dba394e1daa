"""Writes container images as archives that containerd, buildah and others import.

The form is that of `docker save`: a tar with manifest.json, the configuration and one layer. The
same content gives the same bytes: no times, no owners, the entries in the order they are named.
"""

import hashlib
import io
import json
import platform
import tarfile
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PATH_VARIABLE = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_EPOCH = "1970-01-01T00:00:00Z"


@dataclass(frozen=True)
class File:
    """A file of an image: its path there, and its content or the file that has it."""

    path: str
    content: bytes | Path
    mode: int = 0o644


@dataclass(frozen=True)
class Folder:
    """A folder of an image."""

    path: str
    mode: int = 0o755


@dataclass(frozen=True)
class Link:
    """A symbolic link of an image."""

    path: str
    target: str


Entry = File | Folder | Link


@dataclass(frozen=True)
class Image:
    """An image of one layer.

    Attributes:
        name: The full name with its tag, as the kubelet will ask for it.
        entries: What is in it, or a tar that has all of it. Folders above an entry need no mention.
        entrypoint: The command.
        arguments: The command's arguments where a pod gives none.
        labels: Labels of the image.
    """

    name: str
    entries: tuple[Entry, ...] | Path
    entrypoint: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()


def architecture() -> str:
    """This machine's architecture, as images call it."""
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


def write_archive(image: Image, target: Path) -> None:
    """Writes an image as an archive; the file appears whole or not at all."""
    with tempfile.TemporaryDirectory(prefix="writing-", dir=target.parent) as workspace:
        layer, unfinished = Path(workspace) / "layer.tar", Path(workspace) / "image.tar"
        if isinstance(image.entries, Path):
            layer = image.entries
        else:
            _write_layer(image.entries, layer)
        configuration = _configuration(image, _sha256(layer))
        digest = hashlib.sha256(configuration).hexdigest()
        manifest = [{"Config": f"{digest}.json", "RepoTags": [image.name], "Layers": ["layer.tar"]}]
        with tarfile.open(unfinished, "w", format=tarfile.PAX_FORMAT) as archive:
            _add_file(archive, "manifest.json", _json(manifest))
            _add_file(archive, f"{digest}.json", configuration)
            _add_file(archive, "layer.tar", layer)
        unfinished.replace(target)


def _configuration(image: Image, layer_digest: str) -> bytes:
    return _json(
        {
            "architecture": architecture(),
            "os": "linux",
            "created": _EPOCH,
            "config": {
                "Env": [PATH_VARIABLE],
                "Entrypoint": list(image.entrypoint) or None,
                "Cmd": list(image.arguments) or None,
                "Labels": dict(image.labels) or None,
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]},
            "history": [{"created": _EPOCH, "created_by": "tests/cluster/archives.py"}],
        }
    )


def _write_layer(entries: Iterable[Entry], target: Path) -> None:
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as layer:
        present: set[str] = set()
        for entry in entries:
            for parent in reversed(Path(entry.path).parents):
                _add_folder(layer, str(parent), 0o755, present)
            match entry:
                case Folder():
                    _add_folder(layer, entry.path, entry.mode, present)
                case Link():
                    info = tarfile.TarInfo(entry.path)
                    info.type, info.linkname, info.mode = tarfile.SYMTYPE, entry.target, 0o777
                    layer.addfile(info)
                case File():
                    _add_file(layer, entry.path, entry.content, entry.mode)


def _add_folder(layer: tarfile.TarFile, path: str, mode: int, present: set[str]) -> None:
    if path in present or path == ".":
        return
    present.add(path)
    info = tarfile.TarInfo(path)
    info.type, info.mode = tarfile.DIRTYPE, mode
    layer.addfile(info)


def _add_file(
    archive: tarfile.TarFile, path: str, content: bytes | Path, mode: int = 0o644
) -> None:
    info = tarfile.TarInfo(path)
    info.mode = mode
    if isinstance(content, bytes):
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
        return
    info.size = content.stat().st_size
    with content.open("rb") as file:
        archive.addfile(info, file)


def image_name(archive: Path) -> str:
    """The name of the image in an archive."""
    with tarfile.open(archive) as opened:
        manifest = opened.extractfile("manifest.json")
        if manifest is None:
            raise ValueError(f"{archive} has no manifest.json")
        return str(json.load(manifest)[0]["RepoTags"][0])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
