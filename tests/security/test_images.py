"""Filesystems that a tenant has crafted, and what one tenant has left for the next.

The bits that are flipped are few, and of xfs and btrfs only in what they check by a sum: the kernel
that runs these tests reads them.
"""

import contextlib
import os
import random
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from csi.v1 import csi_pb2 as pb
from tests.contract import requests
from tests.contract.bench import Bench, read_bytes, repeat_while_aborted, wait_until, write_synced
from tests.contract.node_fixtures import image_of, mounts_at, no_loop_over, run, the_mount_at
from tests.contract.pods import Pods, pods_of
from tests.contract.refusals import Code, as_call
from tests.contract.requests import (
    LEAST_BYTES,
    MIB,
    filesystem,
    from_snapshot,
    from_volume,
    raw_block,
)
from tests.disks import mounted_filesystem
from tests.driver import create_pool, running_driver
from tests.kubelet import Kubelet
from tests.security import scale

pytestmark = pytest.mark.kernel

NOBODY = 65534
BLOCK = 4096
ANSWERS_S = 30.0
NO_SUMS = {"mkfsOptions": "-O ^metadata_csum"}
"""So that the kernel has to understand what it reads, and cannot refuse it by its sum."""
REFUSALS = (Code.FAILED_PRECONDITION, Code.UNAVAILABLE)
PATTERN = bytes(range(1, 256)) * 257


@pytest.fixture
def pods(bench: Bench) -> Iterator[Pods]:
    yield from pods_of(bench)


def flip(image: Path, rng: random.Random, ranges: list[tuple[int, int]], bits: int) -> None:
    """Flips bits of an image, in some of its ranges of bytes."""
    with image.open("r+b") as file:
        for _ in range(bits):
            first, end = rng.choice(ranges)
            place = rng.randrange(first, end)
            file.seek(place)
            value = file.read(1)[0] ^ (1 << rng.randrange(8))
            file.seek(place)
            file.write(bytes([value]))


def metadata_of_ext4(image: Path) -> list[tuple[int, int]]:
    """The superblock, the groups, inodes and directories at the start, and all of the journal."""
    words = run("dumpe2fs", str(image)).splitlines()
    tables = [line for line in words if "Inode table at" in line]
    first = int(tables[0].split("Inode table at ")[1].split("-")[0])
    found = [(1024, 2048), (BLOCK, 3 * BLOCK), (first * BLOCK, (first + 4) * BLOCK)]
    for inode in ("<2>", "<8>", "<12>"):
        blocks = run("debugfs", "-R", f"blocks {inode}", str(image)).split()
        found += [(int(block) * BLOCK, (int(block) + 1) * BLOCK) for block in blocks[:8]]
    return found


RANGES: dict[str, Callable[[Path], list[tuple[int, int]]]] = {
    "ext4": metadata_of_ext4,
    "xfs": lambda _image: [(0, 512), (BLOCK, BLOCK + 256), (2 * BLOCK, 2 * BLOCK + 256)],
    "btrfs": lambda _image: [(64 << 10, (64 << 10) + 1024)],
}
FLIPPED = [
    ("ext4", scale.choose(3, 150)),
    ("xfs", scale.choose(1, 40)),
    ("btrfs", scale.choose(1, 40)),
]


@pytest.mark.parametrize(("fs_type", "count"), FLIPPED)
def test_a_damaged_filesystem_does_not_take_the_driver_down(
    pods: Pods, bench: Bench, fs_type: str, count: int
) -> None:
    capability = filesystem(
        fs_type, flags=["errors=remount-ro"] if fs_type == "ext4" else ["noatime"]
    )
    parameters = NO_SUMS if fs_type == "ext4" else None
    size = LEAST_BYTES[fs_type]
    model = bench.create(size=size, capability=capability, parameters=parameters).volume_id
    with bench.used(model, capability) as target:
        for number in range(20):
            (target / f"folder-{number}").mkdir()
            write_synced(target / f"folder-{number}" / "file", PATTERN)
    refused = 0
    for number in range(count):
        rng = random.Random(f"{scale.SEED} {fs_type} {number}")
        volume_id = bench.create(
            size=size, capability=capability, parameters=parameters, source=from_volume(model)
        ).volume_id
        image = image_of(bench.pool, volume_id)
        flip(image, rng, RANGES[fs_type](image), rng.choice((1, 4, 32)))
        if rng.random() < 0.3:
            grow(bench, volume_id, size + 256 * MIB)
        started = time.monotonic()
        try:
            staging = pods.stage(volume_id, capability)
        except grpc.RpcError as error:
            refused += 1
            call = as_call(error)
            assert call.code() in REFUSALS, call.details()
            assert call.details()
            staging = bench.kubelet.staging_path(volume_id)
        else:
            use(bench, pods, volume_id, staging, capability)
        pods.unstage(volume_id, staging)
        assert time.monotonic() - started < ANSWERS_S
        assert not mounts_at(staging)
        assert no_loop_over(image)
        bench.delete(volume_id)
        scale.FIGURES["damaged filesystems"] += 1
    scale.FIGURES["of them refused by the kernel"] += refused
    with bench.used(model, capability) as target:
        assert (target / "folder-7" / "file").read_bytes() == PATTERN
    assert bench.driver.identity.Probe(pb.ProbeRequest()).ready.value
    assert "INTERNAL" not in bench.driver.log_text()


def grow(bench: Bench, volume_id: str, size: int) -> None:
    request = requests.controller_expand(volume_id, size)
    bench.driver.controller.ControllerExpandVolume(request)


def use(
    bench: Bench, pods: Pods, volume_id: str, staging: Path, capability: pb.VolumeCapability
) -> None:
    """Reads all there is, as a pod would, in a process that may be ended."""
    target = pods.publish(volume_id, staging, capability)
    shown = the_mount_at(target)
    assert {"nosuid", "nodev"} <= shown.options
    with_end = ["timeout", "--signal=KILL", "20", "find", str(target), "-type", "f", "-size", "-1M"]
    subprocess.run([*with_end, "-exec", "cat", "{}", "+"], capture_output=True, check=False)
    bench.driver.node.NodeGetVolumeStats(requests.stats(volume_id, target))
    bench.driver.controller.ControllerGetVolume(requests.get_volume(volume_id))
    with contextlib.suppress(grpc.RpcError):
        bench.snapshot(volume_id)
    pods.unpublish(volume_id, target)


class TestPrivileges:
    """A filesystem that was made elsewhere has programs of root and devices in it."""

    @pytest.fixture(params=["image", "directory"])
    def target(self, pods: Pods, bench: Bench, request: pytest.FixtureRequest) -> Path:
        directory = {"kind": "directory", "enforceSize": "false"}
        parameters = directory if request.param == "directory" else {}
        capability = filesystem("" if parameters else "ext4")
        volume_id = bench.create(capability=capability, parameters=parameters).volume_id
        staging = pods.stage(volume_id, capability)
        target = pods.publish(volume_id, staging, capability)
        target.chmod(0o755)
        for folder in {path.parent for path in (target, *target.parents) if path != Path("/")}:
            folder.chmod(folder.stat().st_mode | 0o011)
        return target

    def _euid_of_program(self, program: Path) -> str:
        """Runs it as nobody; returns whose rights it has."""
        script = (
            "import os, sys\n"
            "os.setgroups([]), os.setgid(int(sys.argv[2])), os.setuid(int(sys.argv[2]))\n"
            "os.execv(sys.argv[1], [sys.argv[1], '-u'])"
        )
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", script, str(program), str(NOBODY)],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
        return done.stdout.strip()

    def test_a_program_of_root_has_the_rights_of_its_caller(self, target: Path) -> None:
        program = target / "id"
        shutil.copy("/usr/bin/id", program)
        program.chmod(0o4755)
        assert program.stat().st_mode & stat.S_ISUID

        assert self._euid_of_program(program) == str(NOBODY)

        run("mount", "-o", "remount,bind,suid", str(target))
        assert self._euid_of_program(program) == "0", "without nosuid it would have those of root"

    def test_a_device_cannot_be_opened(self, target: Path) -> None:
        os.mknod(target / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))

        with pytest.raises(PermissionError):
            (target / "null").read_bytes()

        run("mount", "-o", "remount,bind,nosuid,dev", str(target))
        assert (target / "null").read_bytes() == b"", "without nodev it would be a device"


SIZE = 32 * MIB
POOLS = scale.choose(1, 3)


@pytest.fixture(scope="module", params=["xfs", "ext4", "btrfs"][:POOLS])
def small(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    """A bench on a small pool that another tenant has written full, and left."""
    folder = tmp_path_factory.mktemp("small")
    with mounted_filesystem(request.param, folder, 300 * MIB) as pool:
        create_pool(pool)
        with running_driver(pool, folder) as driver:
            bench = Bench(driver, Kubelet(folder / "kubelet"), pool)
            write_all(bench)
            yield bench


def write_all(bench: Bench) -> None:
    """Writes to nearly every block of the pool, by volumes that are gone afterwards."""
    usage = shutil.disk_usage(bench.pool)
    size = (usage.free - usage.total // 8) // MIB * MIB
    volume_id = bench.create(size=size, capability=raw_block()).volume_id
    with bench.used(volume_id, raw_block()) as device:
        write_synced(device, PATTERN * (size // len(PATTERN)))
    repeat_while_aborted(lambda: bench.delete(volume_id))
    wait_until(lambda: not os.listdir(bench.pool / "trash"), "that the bytes are free", 60)


class TestOldData:
    """Blocks that were another tenant's read as zeros, whoever gets them next."""

    @pytest.fixture
    def used_up(self, small: Bench) -> Iterator[Bench]:
        yield small
        small.clean_up()

    def _expect_zeros(self, device: Path, first: int, end: int) -> None:
        with device.open("rb") as file:
            file.seek(first)
            while first < end:
                part = file.read(min(4 * MIB, end - first))
                assert not part.strip(b"\0"), "somebody else's data"
                first += len(part)
        scale.FIGURES["bytes looked at for another's"] += end

    @pytest.mark.parametrize("allocation", ["thin", "thick"])
    def test_a_new_volume(self, used_up: Bench, allocation: str) -> None:
        volume_id = used_up.create(
            size=SIZE, capability=raw_block(), parameters={"allocation": allocation}
        ).volume_id
        device = used_up.use(volume_id, raw_block())
        write_synced(device, b"x" * BLOCK)
        self._expect_zeros(device, BLOCK, SIZE)

    def test_what_a_volume_grows_by(self, used_up: Bench) -> None:
        small_size = 8 * MIB
        volume_id = used_up.create(size=small_size, capability=raw_block()).volume_id
        device = used_up.use(volume_id, raw_block())
        write_synced(device, b"x" * small_size)
        grown = used_up.driver.node.NodeExpandVolume(requests.node_expand(volume_id, device, SIZE))
        assert grown.capacity_bytes == SIZE
        self._expect_zeros(device, small_size, SIZE)

    def test_made_again_smaller_and_grown(self, used_up: Bench) -> None:
        name, size = used_up.name(), 16 * MIB
        first = used_up.create(name, size=size, capability=raw_block()).volume_id
        with used_up.used(first, raw_block()) as device:
            write_synced(device, b"secret" * (size // 6))
        used_up.delete(first)
        second = used_up.create(name, size=size // 2, capability=raw_block()).volume_id
        grow(used_up, second, size)
        with used_up.used(second, raw_block()) as device:
            self._expect_zeros(device, 0, size)

    @pytest.mark.parametrize("how", ["snapshot", "clone"])
    def test_what_a_copy_has_beyond_its_source(self, used_up: Bench, how: str) -> None:
        size = 8 * MIB
        source = used_up.create(size=size, capability=raw_block()).volume_id
        with used_up.used(source, raw_block()) as device:
            write_synced(device, b"mine" * (size // 4))
        made = (
            from_volume(source)
            if how == "clone"
            else from_snapshot(used_up.snapshot(source).snapshot_id)
        )
        copy = used_up.create(size=3 * size, capability=raw_block(), source=made).volume_id
        device = used_up.use(copy, raw_block())
        assert read_bytes(device, size) == b"mine" * (size // 4)
        self._expect_zeros(device, size, 3 * size)
