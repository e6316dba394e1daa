"""Attacks, each against the driver as it is and against the driver without the defence.

`run_confined("tests.security.escapes", folder)` prints what came of each. A defence that is taken
out lets the attack reach what lies beside the volumes, so this runs in a namespace where nothing
else can be written.
"""

import contextlib
import json
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from csi.errors import DriverError
from csi.linux import mounts, paths, removal, unlinking
from csi.linux.mounts import bind_mount
from csi.model import Access, AccessMode, Capability, Kind
from csi.pool.pool import Pool
from csi.volumes import capabilities, presence, staging, targets
from tests.disks import opened
from tests.driver import create_pool
from tests.security.canary import Canary
from tests.security.sandbox import confine

Attack = Callable[[Path, Canary], bool | None]
"""Takes the tree that a tenant has and what it is not to reach; it may say that it has won."""
Patch = Callable[[], contextlib.AbstractContextManager[Any]]

HANGS_S = 1.0


def main() -> int:
    """Tries every attack twice, and prints what was touched each time."""
    folder = Path(sys.argv[1])
    confine(folder)
    outcome = {}
    for number, (name, (attack, without)) in enumerate(ATTACKS.items()):
        outcome[name] = {
            "defended": _try(folder / f"{number}-defended", attack, contextlib.nullcontext),
            "undefended": _try(folder / f"{number}-undefended", attack, without),
        }
    json.dump(outcome, sys.stdout)
    return 0


def _try(place: Path, attack: Attack, patch: Patch) -> list[str]:
    place.mkdir()
    canary = Canary(place / "canary")
    tree = place / "tree"
    tree.mkdir()
    won = False
    with patch(), _refused():
        won = bool(attack(tree, canary))
    return canary.touched() + (["it came to what it was after"] if won else [])


def _refused() -> contextlib.AbstractContextManager[None]:
    """Goes on where the driver or the kernel refuses something."""
    return contextlib.suppress(OSError, DriverError)


def _remove(tree: Path) -> None:
    with opened(tree.parent, os.O_RDONLY) as above:
        removal.remove_tree(above, tree.name, keep_going=lambda: True, pause=lambda: None)


def _without_resolve(*flags: int) -> Patch:
    """The kernel looks paths up without some of the rules that it is told."""
    kept = paths._RESOLVE & ~sum(flags)
    return lambda: mock.patch.object(paths, "_RESOLVE", kept)


@contextlib.contextmanager
def _just_before_opening(module: Any, name: str, swap: Callable[[], None]) -> Iterator[None]:
    """A tenant with the luckiest moment: between a look at a name and its opening."""
    real = module.open_beneath

    def open_later(root: int, path: str, flags: int, mode: int = 0) -> int:
        if path == name:
            swap()
        return int(real(root, path, flags, mode))

    with mock.patch.object(module, "open_beneath", open_later):
        yield


# --- removal ---------------------------------------------------------------------------------


def _a_link_for_a_directory(tree: Path, canary: Canary) -> None:
    (tree / "victim").mkdir()

    def swap() -> None:
        if not (tree / "victim").is_symlink():
            (tree / "victim").rmdir()
            (tree / "victim").symlink_to("../canary")

    with _just_before_opening(removal, "victim", swap):
        _remove(tree)


def _a_mount_in_the_tree(tree: Path, canary: Canary) -> None:
    (tree / "mounted").mkdir()
    with opened(canary.root, os.O_PATH) as source, opened(tree / "mounted", os.O_PATH) as target:
        bind_mount(source, target)
    _remove(tree)


def _a_link_for_a_large_file(tree: Path, canary: Canary) -> None:
    (tree / "large").write_bytes(b"x" * (64 << 10))

    def swap() -> None:
        (tree / "large").unlink()
        (tree / "large").symlink_to(canary.root / "large")

    with (
        mock.patch.object(unlinking, "_STEP_BYTES", 4 << 10),
        _just_before_opening(unlinking, "large", swap),
    ):
        _remove(tree)


def _a_fifo_for_a_large_file(tree: Path, _canary: Canary) -> bool:
    """Opening it waits for somebody at the other end, who never comes."""
    (tree / "large").write_bytes(b"x" * (64 << 10))

    def swap() -> None:
        (tree / "large").unlink()
        os.mkfifo(tree / "large")

    def work() -> None:
        with (
            mock.patch.object(unlinking, "_STEP_BYTES", 4 << 10),
            _just_before_opening(unlinking, "large", swap),
        ):
            _remove(tree)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    worker.join(HANGS_S)
    hangs = worker.is_alive()
    if hangs:
        os.close(os.open(tree / "large", os.O_RDONLY | os.O_NONBLOCK))
        worker.join()
    return hangs


@contextlib.contextmanager
def _opening_whatever_it_is() -> Iterator[None]:
    @contextlib.contextmanager
    def plainly(above: int, name: str, flags: int) -> Iterator[int]:
        with contextlib.suppress(OSError):
            os.close(getattr(unlinking, "open_beneath")(above, name, os.O_PATH))  # noqa: B009 - the tenant swaps
        fd = os.open(name, flags, dir_fd=above)
        try:
            yield fd
        finally:
            os.close(fd)

    with mock.patch.object(unlinking, "_opened", plainly):
        yield


# --- the pool ---------------------------------------------------------------------------------


def _a_key_that_leads_out(tree: Path, canary: Canary) -> None:
    with opened(tree, os.O_RDONLY) as pool:
        os.close(paths.open_beneath(pool, "../canary/file", os.O_WRONLY | os.O_TRUNC))


def _a_key_that_is_absolute(tree: Path, canary: Canary) -> None:
    with opened(tree, os.O_RDONLY) as pool:
        os.close(paths.open_beneath(pool, str(canary.root / "file"), os.O_WRONLY | os.O_TRUNC))


def _a_link_in_the_pool(tree: Path, canary: Canary) -> None:
    (tree / "volumes").symlink_to("../canary")
    with opened(tree, os.O_RDONLY) as pool:
        os.close(paths.open_beneath(pool, "volumes/file", os.O_WRONLY | os.O_TRUNC))


# --- targets ----------------------------------------------------------------------------------


def _a_link_for_a_target(tree: Path, canary: Canary) -> bool:
    """What is mounted at the link would cover somebody else's folder."""
    (tree / "target").symlink_to(canary.root)
    (tree / "data").mkdir()
    with (
        _refused(),
        targets.directory_target(str(tree / "target"), "target_path") as target,
        opened(tree / "data", os.O_PATH) as data,
    ):
        bind_mount(data, target)
    return _took_away(canary.root)


def _a_link_for_a_mount(tree: Path, _canary: Canary) -> bool:
    """What is unmounted at the link would be somebody else's."""
    theirs = _mount_of_somebody_else(tree)
    (tree / "target").symlink_to(theirs)
    with _refused():
        mounts.unmount(str(tree / "target"))
    return not _took_away(theirs)


def _somebody_elses_mount(tree: Path, _canary: Canary) -> bool:
    theirs = _mount_of_somebody_else(tree)
    create_pool(tree)
    pool = Pool.open("default", str(tree))
    try:
        with _refused():
            staging.take_away("vol", str(theirs), presence.look(pool, "0" * 32))
    finally:
        pool.close()
    return not _took_away(theirs)


def _a_target_with_data(tree: Path, canary: Canary) -> None:
    """Written while nothing was mounted there."""
    for name in ("file", "inner"):
        with _refused():
            targets.remove_target(str(canary.root / name))


def _a_mount_with_programs_of_root(tree: Path, _canary: Canary) -> bool:
    (tree / "data").mkdir()
    (tree / "target").mkdir()
    with opened(tree / "data", os.O_PATH) as data, opened(tree / "target", os.O_PATH) as target:
        bind_mount(data, target)
    shown = next(m for m in mounts.read_mounts() if m.target == str(tree / "target"))
    mounts.unmount(str(tree / "target"))
    return not {"nosuid", "nodev"} <= shown.options


def _options_in_one_flag(tree: Path, _canary: Canary) -> bool:
    flags = ("noatime,suid", "ro,context=a", "noatime context=b", "noatime\nsuid")
    for flag in flags:
        with _refused():
            capability = Capability(
                access=Access.FILESYSTEM, mode=AccessMode.SINGLE_NODE_WRITER, mount_flags=(flag,)
            )
            capabilities.check_mount_flags([capability], Kind.IMAGE, "ext4")
            return True
    return False


def _mount_of_somebody_else(tree: Path) -> Path:
    theirs, data = tree.parent / "theirs", tree.parent / "their data"
    theirs.mkdir()
    data.mkdir()
    with opened(data, os.O_PATH) as source, opened(theirs, os.O_PATH) as target:
        bind_mount(source, target)
    return theirs


def _took_away(path: Path) -> bool:
    """Unmounts what is mounted at a path; whether there was anything."""
    if not paths.is_mount_root(str(path)):
        return False
    mounts.unmount(str(path))
    return True


def _all_layers(self: presence.Presence, path: str) -> int:
    return len(self._stack(path))


def _remove_all(path: str) -> None:
    shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)


_NO_XDEV, _NO_SYMLINKS, _BENEATH = 1, 4, 8
ATTACKS: dict[str, tuple[Attack, Patch]] = {
    "a link takes the place of a directory that is removed": (
        _a_link_for_a_directory,
        _without_resolve(_NO_SYMLINKS, _BENEATH),
    ),
    "something is mounted in a tree that is removed": (
        _a_mount_in_the_tree,
        _without_resolve(_NO_XDEV),
    ),
    "a link takes the place of a large file that is removed": (
        _a_link_for_a_large_file,
        _opening_whatever_it_is,
    ),
    "a fifo takes the place of a large file that is removed": (
        _a_fifo_for_a_large_file,
        _opening_whatever_it_is,
    ),
    "a path leads out of the pool": (_a_key_that_leads_out, _without_resolve(_BENEATH)),
    "a path below the pool is absolute": (
        _a_key_that_is_absolute,
        _without_resolve(_BENEATH, _NO_XDEV),
    ),
    "there is a link in the pool": (
        _a_link_in_the_pool,
        _without_resolve(_NO_SYMLINKS, _BENEATH),
    ),
    "a link takes the place of a target": (
        _a_link_for_a_target,
        lambda: mock.patch.object(targets, "_LAST", os.O_PATH | os.O_CLOEXEC),
    ),
    "a link takes the place of a mount": (
        _a_link_for_a_mount,
        lambda: mock.patch.object(mounts, "_UMOUNT_NOFOLLOW", 0),
    ),
    "somebody else has mounted at a target": (
        _somebody_elses_mount,
        lambda: mock.patch.object(presence.Presence, "layers_at", _all_layers),
    ),
    "a target has data": (
        _a_target_with_data,
        lambda: mock.patch.object(targets, "remove_target", _remove_all),
    ),
    "a volume has programs of root and devices": (
        _a_mount_with_programs_of_root,
        lambda: mock.patch.multiple(mounts, _ATTR_NOSUID=0, _ATTR_NODEV=0),
    ),
    "a mount flag has another one in it": (
        _options_in_one_flag,
        lambda: mock.patch.object(capabilities, "re", _ContentWithTheBeginning()),
    ),
}


class _ContentWithTheBeginning:
    """Stands for `re`: its patterns match what only begins like something on the list."""

    ASCII = re.ASCII

    def compile(self, pattern: str, flags: int) -> Any:
        compiled = re.compile(pattern, flags)
        return SimpleNamespace(fullmatch=compiled.match)


if __name__ == "__main__":
    sys.exit(main())
