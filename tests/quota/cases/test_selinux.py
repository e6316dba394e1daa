"""SELinux: images are mounted with the label of their pod, and the kernel shows it on every file.

The guest's kernel has SELinux, which takes a policy before it takes labels: the least there is, in
policy.cil, which is not enforced. What no test here can show is a pod that is kept from files of
another label; that is the kernel's and the runtime's part.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.bench import Bench
from tests.contract.node_fixtures import the_mount_at
from tests.contract.pods import Pods, pods_of
from tests.contract.refusals import Code, refused
from tests.contract.requests import LEAST_BYTES, filesystem
from tests.disks import release
from tests.driver import create_pool, running_driver
from tests.kubelet import Kubelet
from tests.quota.cases.conftest import make, mount

SPARE_DISK = "/dev/ubdc"
NAME = "image-local-path.csi.dev"
CONFIGURATION = f"""\
apiVersion: local-path.csi.dev/v1
kind: DriverConfiguration
driverName: {NAME}
seLinuxMount: true
"""
LABEL = "system_u:object_r:container_file_t:s0:c15,c25"
OTHER = "system_u:object_r:container_file_t:s0:c1,c2,c3"


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Loads the policy; there is no way back, so these tests are the last in the guest."""
    compiled = tmp_path_factory.mktemp("policy") / "policy"
    source = Path(__file__).with_name("policy.cil")
    command = ["secilc", "-c", "33", "-f", "/dev/null", "-o", str(compiled), str(source)]
    subprocess.run(command, check=True)
    subprocess.run(["mount", "-t", "selinuxfs", "selinuxfs", "/sys/fs/selinux"], check=True)
    load = os.open("/sys/fs/selinux/load", os.O_WRONLY)
    try:
        os.write(load, compiled.read_bytes())  # the kernel takes it in one piece
    finally:
        os.close(load)
    assert Path("/sys/fs/selinux/enforce").read_text(encoding="ascii") == "0"


@pytest.fixture(scope="module")
def labelling(policy: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A bench on the driver that takes labels."""
    pool, place = tmp_path_factory.mktemp("pool"), tmp_path_factory.mktemp("driver")
    make("xfs", SPARE_DISK)
    mount(SPARE_DISK, pool, "xfs")
    try:
        create_pool(pool)
        with running_driver(pool, place, config=CONFIGURATION) as driver:
            yield Bench(driver, Kubelet(place / "kubelet", NAME), pool)
    finally:
        release(pool)
        subprocess.run(["wipefs", "--all", "--quiet", SPARE_DISK], check=True)


@pytest.fixture
def pods(labelling: Bench) -> Iterator[Pods]:
    yield from pods_of(labelling)
    labelling.clean_up()


def label_of(path: Path) -> str:
    return os.getxattr(path, "security.selinux").rstrip(b"\0").decode()


@pytest.mark.parametrize("image_type", ["ext4", "xfs"])
def test_every_file_has_the_label_of_the_pod(pods: Pods, labelling: Bench, image_type: str) -> None:
    plain = filesystem(image_type)
    capability = filesystem(image_type, flags=[f'context="{LABEL}"'])
    volume_id = labelling.create(size=LEAST_BYTES[image_type], capability=plain).volume_id
    staging = pods.stage(volume_id, plain)
    (staging / "older").write_text("data", encoding="ascii")
    pods.unstage(volume_id, staging)
    pods.stage(volume_id, capability)

    target = pods.publish(volume_id, staging, capability)

    (target / "newer").write_text("data", encoding="ascii")
    assert {label_of(target / name) for name in (".", "older", "newer")} == {LABEL}
    with pytest.raises(OSError, match="not supported"):  # so nobody can relabel it file by file
        os.setxattr(target / "newer", "security.selinux", OTHER.encode())
    # The kernel quotes a context with a comma, at which this test's reader takes it apart.
    assert set(f'context="{LABEL}"'.split(",")) <= the_mount_at(target).super_options


def test_repeated_calls_find_the_same_context(pods: Pods, labelling: Bench) -> None:
    """The kernel writes it as `s0:c1.c3`."""
    capability = filesystem(flags=[f'context="{OTHER}"'])
    volume_id = labelling.create().volume_id
    staging = pods.stage(volume_id, capability)
    target = pods.publish(volume_id, staging, capability)
    assert label_of(target) == OTHER.replace("c1,c2,c3", "c1.c3")

    pods.stage(volume_id, capability)
    pods.publish(volume_id, staging, capability, target=target)


def test_another_context_is_refused_while_it_is_mounted(pods: Pods, labelling: Bench) -> None:
    first, second = (filesystem(flags=[f'context="{label}"']) for label in (LABEL, OTHER))
    volume_id = labelling.create().volume_id
    staging = pods.stage(volume_id, first)

    with refused(Code.ALREADY_EXISTS, LABEL):
        pods.stage(volume_id, second)
    with refused(Code.ALREADY_EXISTS, LABEL):
        pods.publish(volume_id, staging, second)
    # Elsewhere it would be the same filesystem, which has one context.
    with refused(Code.FAILED_PRECONDITION, "another one"):
        pods.stage(volume_id, second, labelling.kubelet.staging_path("elsewhere"))

    assert label_of(staging) == LABEL
    pods.unstage(volume_id, staging)
    assert label_of(pods.stage(volume_id, second)) == OTHER.replace("c1,c2,c3", "c1.c3")


def test_a_context_that_the_policy_does_not_have(pods: Pods, labelling: Bench) -> None:
    volume_id = labelling.create().volume_id
    unknown = LABEL.replace("container_file_t", "nobodys_t")

    with refused(Code.FAILED_PRECONDITION, unknown, "policy"):
        pods.stage(volume_id, filesystem(flags=[f'context="{unknown}"']))
