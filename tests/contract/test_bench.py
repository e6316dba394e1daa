"""The bench, at its smallest: real drivers, every part, a whole result, and nothing left behind."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from bench.figures import Figure
from bench.report import Result
from csi.v1 import csi_pb2 as pb
from tests.driver import Driver
from tests.leftovers import Before, release_leftovers

SMALLEST = (
    *("--clients", "1,4", "--calls", "20", "--lives", "8", "--rounds", "2", "--counts", "0,5"),
    *("--few", "3", "--copy-mib", "1", "--extents", "20", "--io-mib", "4", "--io-s", "0.1"),
    *("--files", "1500"),
)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (folder := tmp_path / "place").mkdir()
    return folder


def test_every_part_is_measured_beside_a_peer(xfs_driver: Driver, place: Path) -> None:
    before = Before.now()
    chosen = (
        "--parts",
        "short,lifecycles,counts,copies,ownership",
        "--kinds",
        "unenforced,block",
        "--attach",
    )
    # Both are asked for the same kind, so that both can do all of it.
    peer = "--peer", xfs_driver.endpoint, "--peer-parameter", "enforceSize=false"

    result = _measured(place, *chosen, *peer)

    ours = {case: series for (case, subject), series in result.items() if subject != "peer"}
    theirs = {case: series for (case, subject), series in result.items() if subject == "peer"}
    assert ours.keys() == theirs.keys()
    for case, series in ours.items():
        # Only ours is started again; all else is measured on both, by the same series.
        assert series.keys() - {"start to ready", "memory after start"} == theirs[case].keys()
    # Two rounds of eight lives each, and every life has all calls.
    life = ours["lifecycle, unenforced, 4 at once"]
    calls = ("create", "attach", "stage", "publish", "unpublish", "unstage", "detach", "delete")
    assert {call: life[call].count for call in calls} == dict.fromkeys(calls, 16)
    # A life is not shorter than its parts, and 4 at once are done in no more time than one by one.
    assert life["whole"].high > sum(life[call].low for call in calls)
    assert 0 < life["lifecycles"].median < 4 * 1000 / life["whole"].low
    assert ours["beside 5 volumes"]["start to ready"].count == 2
    # The memory is that of the process, which no Python with gRPC gets by below.
    assert 20 < theirs["beside 5 volumes"]["memory"].median < 500
    assert _left(before, place) == []
    listed = xfs_driver.controller.ListVolumes(pb.ListVolumesRequest()).entries
    assert not listed, "the bench left volumes with the peer"


def test_what_cannot_be_had_is_said(ext4_driver: Driver, ext4_pool: Path, place: Path) -> None:
    """A pool of the user's that holds no directory to its size, as the one pool of the run."""
    ext4_driver.stop_cleanly()
    try:
        done = _run(
            place, "--pool", str(ext4_pool), "--parts", "lifecycles", "--kinds", "directory,block"
        )
    finally:
        ext4_driver.start()

    assert "cannot hold a directory to its size" in done
    assert (ext4_pool / "pool.json").exists()
    assert list((ext4_pool / "volumes").iterdir()) == []


def test_io_is_compared_with_the_bare_pool(place: Path) -> None:
    # One kind and one round: fio takes a second for each of its jobs, however short they are.
    result = _measured(place, "--parts", "io", "--kinds", "block", "--rounds", "1")

    series = result["I/O, block", "csi-local-path"]
    assert series["random write, depth 32"].median > 0
    through, bare = series["sequential read"], series["sequential read, bare"]
    assert series["sequential read, of bare"].median == pytest.approx(through.median / bare.median)


def _measured(place: Path, *arguments: str) -> dict[tuple[str, str], dict[str, Figure]]:
    _run(place, *arguments)
    result = msgspec.json.decode((place.parent / "bench.json").read_bytes(), type=Result)
    left_out = {o.case: o.left_out for o in result.outcomes if o.left_out}
    assert not left_out
    assert not any(outcome.failures for outcome in result.outcomes)
    return {
        (outcome.case, outcome.subject): {figure.series: figure for figure in outcome.figures}
        for outcome in result.outcomes
    }


def _run(place: Path, *arguments: str) -> str:
    command: Sequence[str] = (sys.executable, "-m", "bench", *SMALLEST, *arguments)
    paths = ("--place", str(place), "--json", str(place.parent / "bench.json"))
    done = subprocess.run(
        [*command, *paths], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(place.iterdir()) == [], "the bench left files"
    return done.stdout


def _left(before: Before, place: Path) -> list[str]:
    return release_leftovers(before, place, place)
