"""The kubelet's SELinux mount option: what becomes of it, and who may not use it for what.

On a kernel without SELinux what mount(2) is asked for is looked at, and the kernel's answer; the
guest of `make test-quota` has SELinux, and shows the labels (tests/quota/cases/test_selinux.py).
"""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract import requests
from tests.contract.bench import Bench
from tests.contract.node_fixtures import (
    image_of,
    mounts_at,
    mounts_below,
    no_loop_over,
    the_mount_at,
)
from tests.contract.pods import Pods, pods_of
from tests.contract.refusals import Code, refused
from tests.contract.requests import GIB, MIB, filesystem
from tests.disks import mounted_filesystem
from tests.driver import create_pool, running_driver
from tests.kubelet import Kubelet

pytestmark = pytest.mark.kernel

LABEL = "system_u:object_r:container_file_t:s0:c15,c25"
OPTION = f'context="{LABEL}"'
"""Byte for byte what the kubelet appends for that label (AddSELinuxMountOption)."""
HAS_SELINUX = "selinuxfs" in Path("/proc/filesystems").read_text(encoding="ascii").split()
DIRECTORY = {"kind": "directory", "enforceSize": "false"}
NAME = "image.local-path.csi.dev"
CONFIGURATION = f"""\
apiVersion: local-path.csi.dev/v1
kind: DriverConfiguration
driverName: {NAME}
seLinuxMount: true
"""


@pytest.fixture(scope="module")
def labelling(ext4_pool: Path, folder: Path) -> Iterator[Bench]:
    """A bench on a driver with contexts, under the name that is for images alone."""
    place = folder / "labelling"
    place.mkdir()
    with running_driver(ext4_pool, place, config=CONFIGURATION) as driver:
        yield Bench(driver, Kubelet(place / "kubelet", NAME), ext4_pool)


@pytest.fixture
def pods(labelling: Bench) -> Iterator[Pods]:
    yield from pods_of(labelling)
    labelling.clean_up()


def nothing_is_left(bench: Bench, volume_id: str) -> bool:
    return not mounts_below(bench.kubelet.directory) and no_loop_over(
        image_of(bench.pool, volume_id)
    )


@pytest.mark.parametrize("fs_type", ["ext4", "xfs", "btrfs"])
def test_the_kubelets_option_reaches_the_kernel_as_it_came(
    pods: Pods, labelling: Bench, tmp_path: Path, fs_type: str
) -> None:
    size = requests.LEAST_BYTES[fs_type]
    volume_id = labelling.create(size=size, capability=filesystem(fs_type)).volume_id
    capability = filesystem(fs_type, flags=["noatime", OPTION])
    log = tmp_path / "mounts"
    with mounts_traced(labelling.driver.pid, log):
        if HAS_SELINUX:
            staging = pods.stage(volume_id, capability)
            assert os.getxattr(staging, "security.selinux").rstrip(b"\0") == LABEL.encode()
            pods.stage(volume_id, capability)
            with refused(Code.ALREADY_EXISTS, "c1,c2", LABEL):
                other = OPTION.replace("c15,c25", "c1,c2")
                pods.stage(volume_id, filesystem(fs_type, flags=["noatime", other]))
        else:
            with refused(Code.FAILED_PRECONDITION, "SELinux is off in this node's kernel"):
                pods.stage(volume_id, capability)
            assert nothing_is_left(labelling, volume_id)

    asked = log.read_text(encoding="utf-8")
    escaped = OPTION.replace('"', r"\"")
    always = "nouuid," if fs_type == "xfs" else ""
    assert f'"{fs_type}", MS_NOSUID|MS_NODEV|MS_NOATIME, "{always}{escaped}")' in asked, asked
    assert HAS_SELINUX or "= -1 EINVAL" in asked, asked


@contextlib.contextmanager
def mounts_traced(pid: int, log: Path) -> Iterator[None]:
    """Notes each mount(2) of a process meanwhile."""
    command = ["strace", "-f", "-s", "4096", "-e", "trace=mount", "-o", str(log), "-p", str(pid)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        assert "attached" in tracer.stderr.readline()
        time.sleep(0.2)  # it says so before it has all threads
        try:
            yield
        finally:
            tracer.terminate()


@pytest.mark.parametrize(
    "flags",
    [
        [f"context={LABEL}"],
        [f"context='{LABEL}'"],
        [f"{OPTION},dev"],
        [f'context="{LABEL},dev"'],
        [f'context="{LABEL}","x"'],
        [f'context="{LABEL} dev"'],
        [f'context="{LABEL}\n"'],
        ['context="container_file_t"'],
        ['context=""'],
        [OPTION, OPTION],
        [OPTION, OPTION.replace("c15", "c16")],
        [f"fs{OPTION}"],
        [f"root{OPTION}"],
        [f"def{OPTION}"],
        [f"noatime,{OPTION}"],
    ],
    ids=str,
)
def test_only_one_whole_context_is_taken(pods: Pods, labelling: Bench, flags: list[str]) -> None:
    volume_id = labelling.create().volume_id

    with refused(Code.INVALID_ARGUMENT, "context="):
        pods.stage(volume_id, filesystem(flags=flags))

    assert nothing_is_left(labelling, volume_id)


def test_a_pod_with_another_context_than_its_volume_is_refused(
    pods: Pods, labelling: Bench
) -> None:
    volume_id = labelling.create().volume_id
    staging = pods.stage(volume_id)
    target = pods.publish(volume_id, staging)
    assert the_mount_at(target).root == "/"

    with refused(Code.ALREADY_EXISTS, "SELinux", "none", "c15"):
        pods.stage(volume_id, filesystem(flags=[OPTION]))
    for place in (None, target):
        with refused(Code.ALREADY_EXISTS, "SELinux", "none", "c15"):
            pods.publish(volume_id, staging, filesystem(flags=[OPTION]), target=place)


def test_contexts_are_off_unless_they_are_turned_on(bench: Bench) -> None:
    volume_id = bench.create().volume_id
    staging = bench.kubelet.staging_path(volume_id)

    with refused(Code.INVALID_ARGUMENT, "context=", "seLinuxMount is off"):
        bench.driver.node.NodeStageVolume(
            requests.stage(volume_id, staging, filesystem(flags=[OPTION]))
        )

    assert not mounts_at(staging)
    assert no_loop_over(image_of(bench.pool, volume_id))


def test_a_class_cannot_ask_for_a_context(labelling: Bench) -> None:
    """It is the kubelet's to add; in a class it would hold for all pods, and twice with theirs."""
    with refused(Code.INVALID_ARGUMENT, "context="):
        labelling.create(capability=filesystem(flags=[OPTION]))


def test_directories_are_not_served_with_contexts(labelling: Bench) -> None:
    """They share the filesystem of the pool, which is mounted with the context it has."""
    with refused(Code.INVALID_ARGUMENT, "seLinuxMount", "kind: image"):
        labelling.create(capability=filesystem(""), parameters=DIRECTORY)

    def room(parameters: dict[str, str]) -> int:
        request = requests.get_capacity(parameters=parameters)
        return labelling.driver.controller.GetCapacity(request).available_capacity

    assert room(DIRECTORY) == 0
    assert room({}) > 64 * MIB


def test_a_directory_from_before_has_no_context(tmp_path: Path) -> None:
    request = requests.create_volume("old", capabilities=[filesystem("")], parameters=DIRECTORY)
    with mounted_filesystem("ext4", tmp_path, GIB) as pool:
        create_pool(pool)
        with running_driver(pool, tmp_path) as driver:
            volume_id = driver.controller.CreateVolume(request).volume.volume_id
        with running_driver(pool, tmp_path, config=CONFIGURATION) as driver:
            bench = Bench(driver, Kubelet(tmp_path / "kubelet", NAME), pool)
            staging = bench.kubelet.staging_path(volume_id)

            with refused(Code.FAILED_PRECONDITION, "directory", "SELinux"):
                driver.node.NodeStageVolume(
                    requests.stage(volume_id, staging, filesystem("", flags=[OPTION]))
                )

            with bench.used(volume_id, filesystem("")) as target:
                assert the_mount_at(target).root.endswith("/data")
            bench.delete(volume_id)
