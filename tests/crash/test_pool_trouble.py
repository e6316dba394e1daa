"""A pool that is full to its last block, or whose disk has failed: told, nothing lost, cured."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from tests.contract import requests
from tests.contract.bench import read_bytes, wait_until, write_synced
from tests.contract.node_fixtures import run, the_mount_at
from tests.contract.refusals import Code, as_call
from tests.contract.requests import GIB, MIB, filesystem, raw_block
from tests.crash import sweep
from tests.crash.lives import SORTS, Life
from tests.crash.world import World, world_on, world_over
from tests.disks import mount_image, release
from tests.driver import create_pool

pytestmark = pytest.mark.kernel

DATA = b"from before"


def answer(call: Callable[[], object]) -> Code | None:
    """The code of a call that has failed, or None."""
    try:
        call()
    except grpc.RpcError as error:
        return as_call(error).code()
    return None


def changing_calls(
    world: World, used: str, unused: str, snapshot: str
) -> dict[str, Callable[[], object]]:
    """A call of each sort that writes to the pool."""
    controller, group, node = world.driver.controller, world.driver.group, world.driver.node
    block = raw_block()
    inline = f"csi-{'0' * 64}"
    context = {
        "csi.storage.k8s.io/ephemeral": "true",
        "csi.storage.k8s.io/pod.name": "web-0",
        "csi.storage.k8s.io/pod.namespace": "default",
        "csi.storage.k8s.io/pod.uid": "pod-x",
        "csi.storage.k8s.io/serviceAccount.name": "default",
        "size": str(64 * MIB),
    }
    target = world.kubelet.target_path("inline", "pod-x")
    return {
        "create": lambda: controller.CreateVolume(
            requests.create_volume("later", size=8 * MIB, capabilities=[block])
        ),
        "clone": lambda: controller.CreateVolume(
            requests.create_volume(
                "clone", size=8 * MIB, capabilities=[block], source=requests.from_volume(unused)
            )
        ),
        "expand": lambda: controller.ControllerExpandVolume(
            requests.controller_expand(unused, 12 * MIB)
        ),
        "snapshot": lambda: controller.CreateSnapshot(requests.create_snapshot("later", unused)),
        "group": lambda: group.CreateVolumeGroupSnapshot(requests.create_group("later", [unused])),
        "publish": lambda: controller.ControllerPublishVolume(
            requests.controller_publish(unused, block)
        ),
        "inline": lambda: node.NodePublishVolume(
            requests.publish(inline, "", target, filesystem("ext4"), context=context)
        ),
        "modify": lambda: controller.ControllerModifyVolume(
            requests.modify(used, {"writeIOPS": "5000"})
        ),
        "delete a snapshot": lambda: controller.DeleteSnapshot(requests.delete_snapshot(snapshot)),
        "delete": lambda: controller.DeleteVolume(requests.delete_volume(unused)),
    }


ROOM = {"create", "clone", "expand", "snapshot", "group", "inline"}


@pytest.mark.parametrize("fs_type", ["xfs", "ext4", "btrfs"] if sweep.WHOLE else ["xfs"])
def test_a_pool_without_a_free_block(tmp_path: Path, fs_type: str) -> None:
    """Others have taken all of it: who asks for room hears that, and deleting still works."""
    with world_on(fs_type, tmp_path, size_bytes=GIB) as world:
        used, unused, snapshot = _volumes(world)
        before = world.state()
        _take_all(world.pool / "foreign")

        answers = {
            name: answer(call)
            for name, call in changing_calls(
                world, used.volume_id, unused.volume_id, snapshot
            ).items()
            if not name.startswith("delete")
        }

        assert {answers[name] for name in ROOM} == {Code.RESOURCE_EXHAUSTED}, answers
        assert {answers[name] for name in set(answers) - ROOM} <= {None, Code.UNAVAILABLE}
        assert read_bytes(used.target() / "data", len(DATA)) == DATA
        world.wait_for_trash()
        assert world.state() == before
        assert answer(
            lambda: world.driver.controller.DeleteSnapshot(requests.delete_snapshot(snapshot))
        ) in (None, Code.UNAVAILABLE)

        (world.pool / "foreign").unlink()
        run("sync", "--file-system", str(world.pool))
        wait_until(lambda: _available(world) > 128 * MIB, "that there is room again")
        for name, call in changing_calls(world, used.volume_id, unused.volume_id, snapshot).items():
            if name == "delete":
                unpublish = requests.controller_unpublish(unused.volume_id)
                world.driver.controller.ControllerUnpublishVolume(unpublish)
            world.call(call)
            world.wait_for_background()
        target = world.kubelet.target_path("inline", "pod-x")
        world.driver.node.NodeUnpublishVolume(requests.unpublish(f"csi-{'0' * 64}", target))
        used.unpublish()
        used.unstage()


def test_a_pool_that_its_kernel_has_made_read_only(tmp_path: Path) -> None:
    """As after a bad sector: all is UNAVAILABLE, and there again once the disk is repaired."""
    image = tmp_path / "pool.img"
    with image.open("xb") as file:
        file.truncate(GIB)
    run("mkfs.ext4", "-q", "-b", "4096", str(image))
    pool = tmp_path / "pool"
    pool.mkdir()
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    mount_image(image, pool, "ext4", options=("errors=remount-ro",))
    try:
        create_pool(pool)
        with world_over(pool, "ext4", tmp_path / "one") as world:
            used, unused, snapshot = _volumes(world)
            device = Path(the_mount_at(pool).source).name
            Path(f"/sys/fs/ext4/{device}/trigger_fs_error").write_text("1", encoding="ascii")

            calls = changing_calls(world, used.volume_id, unused.volume_id, snapshot)
            answers = {name: answer(call) for name, call in calls.items()}

            assert set(answers.values()) == {Code.UNAVAILABLE}, answers
            assert read_bytes(used.target() / "data", len(DATA)) == DATA
            used.unpublish()
            used.unstage()
        release(pool)
        subprocess.run(["e2fsck", "-fy", str(image)], check=False, capture_output=True)
        mount_image(image, pool, "ext4", options=("errors=remount-ro",))
        with world_over(pool, "ext4", tmp_path / "two") as world:
            again = changing_calls(world, used.volume_id, unused.volume_id, snapshot)
            again["inline"] = lambda: None
            world.driver.controller.ControllerUnpublishVolume(
                requests.controller_unpublish(unused.volume_id)
            )
            for name, call in again.items():
                if name == "delete":
                    unpublish = requests.controller_unpublish(unused.volume_id)
                    world.driver.controller.ControllerUnpublishVolume(unpublish)
                world.call(call)
                world.wait_for_background()
    finally:
        release(pool)


def _volumes(world: World) -> tuple[Life, Life, str]:
    """A volume in use with data, an unused one, and a snapshot of that."""
    used = Life(world, SORTS["copied" if world.fs_type == "ext4" else "ext4"])
    used.bring_up()
    write_synced(used.target() / "data", DATA)
    unused = Life(world, SORTS["block"])
    unused.create()
    unused.snapshot()
    (snapshot,) = unused.snapshot_ids
    return used, unused, snapshot


def _take_all(file: Path) -> None:
    """Fills a filesystem, as far as anybody can."""
    with file.open("wb") as foreign:
        step = 64 * MIB
        position = 0
        while step >= 4096:
            try:
                os.posix_fallocate(foreign.fileno(), position, step)
                position += step
            except OSError:
                step //= 2
        os.fsync(foreign.fileno())


def _available(world: World) -> int:
    return world.driver.controller.GetCapacity(requests.get_capacity()).available_capacity
