"""Filesystems for tests: image files on loop devices, mounted and always taken away again."""

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from csi.linux import freeze, loop, mounts
from csi.linux.extents import first_extent_flags
from csi.linux.filesystems import FILESYSTEMS, make_filesystem
from csi.linux.loop_status import LoopDevice

UNMOUNT_TIMEOUT_S = 10.0

_NO_PLACE_YET = 0x4  # FIEMAP_EXTENT_DELALLOC of linux/fiemap.h


@contextlib.contextmanager
def mounted_filesystem(fs_type: str, directory: Path, size_bytes: int) -> Iterator[Path]:
    """Makes a filesystem of that size below a directory and yields where it is mounted.

    Whatever is still mounted or frozen in it afterwards is unmounted and thawed; the image is
    removed. The loop device goes with the last mount. Needs root.
    """
    require_root()
    folder = Path(tempfile.mkdtemp(prefix=f"{fs_type}-", dir=directory))
    image, target = folder / "disk.img", folder / "mounted"
    target.mkdir()
    with image.open("xb") as file:
        file.truncate(max(size_bytes, FILESYSTEMS[fs_type].minimum_bytes))
    make_filesystem(fs_type, str(image))
    try:
        mount_image(image, target, fs_type)
        yield target
    finally:
        release(target)
        image.unlink()
        target.rmdir()
        folder.rmdir()


def mount_image(
    image: Path, target: Path, fs_type: str, *, options: tuple[str, ...] = ()
) -> LoopDevice:
    """Mounts an image file on a loop device that goes with the mount."""
    with (
        opened(image, os.O_RDWR) as file,
        opened(target, os.O_PATH) as place,
        loop.attach(file, autoclear=True) as attached,
    ):
        mounts.mount_filesystem(attached.device.path, place, fs_type, options=options)
        return attached.device


def release(target: Path) -> None:
    """Unmounts what is mounted at a path and below it, the last first, thawed if need be."""
    for path in reversed(mounted_below(target)):
        with contextlib.suppress(OSError), opened(path, os.O_RDONLY) as root:
            freeze.thaw(root)
        deadline = time.monotonic() + UNMOUNT_TIMEOUT_S
        while True:
            try:
                mounts.unmount(str(path))
                break
            except OSError:
                # The kernel may be closing a loop device that was on a file in it.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)


def mounted_below(directory: Path) -> list[Path]:
    """The targets of all mounts at a directory and below it, in the order they were made."""
    targets = (Path(mount.target) for mount in mounts.read_mounts())
    return [target for target in targets if target.is_relative_to(directory.resolve())]


@contextlib.contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    """Opens a path for the body of a `with`, and gives its descriptor."""
    fd = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def is_unwritten_back(fd: int) -> bool:
    """Whether the first bytes of a file are in memory alone; asking writes nothing back."""
    return bool(first_extent_flags(fd) & _NO_PLACE_YET)


def require_root() -> None:
    """Fails where mounts and loop devices cannot be had."""
    if os.geteuid() != 0:
        raise PermissionError("these tests mount and attach loop devices: run them as root")
