"""Mount flags of NodeStageVolume: which take effect, which are refused, and what never changes."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.contract import requests
from tests.contract.bench import Bench
from tests.contract.node_fixtures import image_of, loops_over, mounts_at, the_mount_at
from tests.contract.pods import Pods, pods_of
from tests.contract.refusals import Code, refused
from tests.contract.requests import READER, filesystem

pytestmark = pytest.mark.kernel


@pytest.fixture
def pods(bench: Bench) -> Iterator[Pods]:
    yield from pods_of(bench)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([], ["noatime"]),
        (["noexec"], []),
        (["ro"], []),
        ([], ["ro"]),
        (["noatime"], ["noatime", "nodiratime"]),
        ([], ["sync"]),
        (["commit=7"], ["commit=9"]),
        ([], ["data=journal"]),
    ],
    ids=lambda flags: "+".join(flags) or "none",
)
def test_other_mount_flags_at_the_same_path_are_refused(
    pods: Pods, bench: Bench, first: Sequence[str], second: Sequence[str]
) -> None:
    volume_id = bench.create().volume_id
    staging = pods.stage(volume_id, filesystem(flags=first))
    mount = the_mount_at(staging)

    with refused(Code.ALREADY_EXISTS, str(staging)):
        pods.stage(volume_id, filesystem(flags=second))

    assert the_mount_at(staging) == mount
    pods.stage(volume_id, filesystem(flags=first))


def test_another_access_mode_at_the_same_path_is_refused(pods: Pods, bench: Bench) -> None:
    volume_id = bench.create().volume_id
    staging = pods.stage(volume_id, filesystem(mode=READER))
    assert the_mount_at(staging).read_only

    with refused(Code.ALREADY_EXISTS, str(staging)):
        pods.stage(volume_id, filesystem())

    assert the_mount_at(staging).read_only


@pytest.mark.parametrize(
    ("flags", "in_mount", "in_filesystem"),
    [
        (["noatime"], {"noatime"}, set()),
        (["noexec", "nodiratime"], {"noexec", "nodiratime"}, set()),
        (["ro"], {"ro"}, {"ro"}),
        (["commit=7", "errors=remount-ro"], set(), {"commit=7", "errors=remount-ro"}),
        (["discard", "sync"], set(), {"discard", "sync"}),
    ],
    ids=str,
)
def test_mount_flags_take_effect(
    pods: Pods, bench: Bench, flags: list[str], in_mount: set[str], in_filesystem: set[str]
) -> None:
    volume_id = bench.create().volume_id

    mount = the_mount_at(pods.stage(volume_id, filesystem(flags=flags)))

    assert in_mount <= mount.options
    assert in_filesystem <= mount.super_options
    assert {"nosuid", "nodev"} <= mount.options


@pytest.mark.parametrize(
    "flag",
    ["suid", "dev", "exec,suid", "errors=panic", "journal_path=/dev/vda", "bind", "remount", "x y"],
)
def test_mount_flags_outside_the_list_are_refused(bench: Bench, tmp_path: Path, flag: str) -> None:
    volume_id = bench.create().volume_id

    with refused(Code.INVALID_ARGUMENT, flag.partition("=")[0], "mount flag"):
        bench.driver.node.NodeStageVolume(
            requests.stage(volume_id, tmp_path, filesystem(flags=[flag]))
        )

    assert not mounts_at(tmp_path)
    assert not loops_over(image_of(bench.pool, volume_id))


def test_nothing_on_a_volume_gains_privileges(pods: Pods, bench: Bench) -> None:
    volume_id = bench.create().volume_id

    mount = the_mount_at(pods.stage(volume_id, filesystem(flags=["nosuid", "rw", "relatime"])))

    assert {"nosuid", "nodev"} <= mount.options
