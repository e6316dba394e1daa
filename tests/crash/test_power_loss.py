"""The power cut at each flush of a pool's disk, and with parts of what was written since."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from csi.linux.filesystems import make_filesystem
from tests.crash import sweep
from tests.crash.lives import SORTS
from tests.crash.recording import Recording, copy_sparse, recorded_disk
from tests.crash.session import Aftermath, Session
from tests.crash.world import World, world_over
from tests.disks import mount_image, release
from tests.driver import create_pool

pytestmark = pytest.mark.kernel

DISK_BYTES = 3 << 30
_TORN = 2
_SAMPLED = ("copied",)
_CUTS = 2


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", list(SORTS) if sweep.WHOLE else list(_SAMPLED))
def test_what_was_answered_is_on_disk(tmp_path: Path, name: str) -> None:
    """Volumes, snapshots, growth, limits, deletions, and what workloads have synced."""
    recording, session = _recorded(tmp_path, name)
    cuts = sweep.sample(recording.cuts(sweep.SEED, _TORN), _CUTS, "power", name)
    sweep.count("power cuts", f"{name} on {SORTS[name].pool}", len(cuts))
    violations = []
    for number, cut in enumerate(recording.states(cuts, tmp_path / "state.img")):
        place = tmp_path / str(number)
        place.mkdir()
        try:
            with _world_of(tmp_path / "state.img", SORTS[name].pool, place) as world:
                Aftermath(world, session, cut.mark).check()
        except Exception as violation:  # noqa: BLE001 - whatever it is, the sweep goes on
            words = f"after flush {cut.flush}, {cut.words}: {violation}"
            violations.append(sweep.violation(name, words))
    assert not violations, f"{len(violations)} violations:\n  " + "\n  ".join(violations)


def _recorded(folder: Path, name: str) -> tuple[Recording, Session]:
    """Plays a session on a recorded disk, to its end and a clean unmount."""
    sort = SORTS[name]
    base, disk, log = folder / "base.img", folder / "disk.img", folder / "log"
    with base.open("xb") as file:
        file.truncate(DISK_BYTES)
    make_filesystem(sort.pool, str(base))
    with _mounted(base, sort.pool, folder / "new") as pool:
        create_pool(pool)
    copy_sparse(base, disk)
    shown, place = folder / "shown", folder / "session"
    shown.mkdir()
    place.mkdir()
    with (
        recorded_disk(disk, shown, log),
        _mounted(shown / "disk", sort.pool, folder / "pool") as pool,
        world_over(pool, sort.pool, place) as world,
    ):
        session = Session(world, sort, shown / "mark")
        session.play()
    return Recording(base, log), session


@contextlib.contextmanager
def _world_of(image: Path, fs_type: str, place: Path) -> Iterator[World]:
    with (
        _mounted(image, fs_type, place / "pool") as pool,
        world_over(pool, fs_type, place) as world,
    ):
        yield world


@contextlib.contextmanager
def _mounted(image: Path, fs_type: str, target: Path) -> Iterator[Path]:
    target.mkdir()
    # All states have one UUID, and the kernel may still be letting go of the one before.
    mount_image(image, target, fs_type, options=("nouuid",) if fs_type == "xfs" else ())
    try:
        yield target
    finally:
        release(target)
