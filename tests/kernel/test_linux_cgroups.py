"""csi.linux.cgroups against the kernel."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from csi.linux import cgroups, loop
from csi.linux.loop_status import LoopDevice
from csi.model import Limits
from tests.disks import opened
from tests.pod_cgroups import PodGroup, io_hierarchy, pod_group

pytestmark = pytest.mark.kernel

LIMITS = Limits(
    read_iops=500, write_iops=250, read_bandwidth_bytes=20 << 20, write_bandwidth_bytes=10 << 20
)
RULES = {
    1: {
        "blkio.throttle.read_iops_device": "500",
        "blkio.throttle.write_iops_device": "250",
        "blkio.throttle.read_bps_device": "20971520",
        "blkio.throttle.write_bps_device": "10485760",
    },
    2: {"io.max": "rbps=20971520 wbps=10485760 riops=500 wiops=250"},
}


@pytest.fixture
def group() -> Iterator[PodGroup]:
    with pod_group(str(uuid.uuid4()), "kernel") as made:
        yield made


@pytest.fixture
def device(tmp_path: Path) -> Iterator[LoopDevice]:
    image = tmp_path / "disk.img"
    with image.open("xb") as file:
        file.truncate(8 << 20)
    with opened(image, os.O_RDWR) as descriptor:
        attached = loop.attach(descriptor, autoclear=False)
    try:
        yield attached.device
    finally:
        attached.close()
        loop.detach(attached.device.path)


def hierarchy() -> cgroups.Hierarchy:
    found = cgroups.find_hierarchy()
    assert found is not None
    return found


def test_the_hierarchy_is_found() -> None:
    path, version = io_hierarchy()
    assert hierarchy() == cgroups.Hierarchy(str(path), version)


def test_limits_are_set_changed_and_taken_away(group: PodGroup, device: LoopDevice) -> None:
    numbers, (_, version) = cgroups.device_numbers(device.path), io_hierarchy()
    assert numbers == Path(f"/sys/block/loop{device.number}/dev").read_text().strip()

    for _ in range(2):
        cgroups.ensure_limits(hierarchy(), str(group.path), numbers, LIMITS)
        assert group.rules(group.path, numbers) == RULES[version]

    cgroups.ensure_limits(hierarchy(), str(group.path), numbers, Limits(write_iops=30))
    (rule,) = group.rules(group.path, numbers).values()
    assert rule in ("30", "rbps=max wbps=max riops=max wiops=30")

    for _ in range(2):
        cgroups.ensure_limits(hierarchy(), str(group.path), numbers, Limits())
        assert group.rules(group.path, numbers) == {}


def test_a_rule_can_be_taken_away_when_the_device_has_no_file(
    group: PodGroup, device: LoopDevice
) -> None:
    numbers = cgroups.device_numbers(device.path)
    cgroups.ensure_limits(hierarchy(), str(group.path), numbers, LIMITS)
    loop.detach(device.path)
    cgroups.ensure_limits(hierarchy(), str(group.path), numbers, Limits())
    assert group.rules(group.path, numbers) == {}


def test_a_device_that_is_none_is_refused_with_the_file(group: PodGroup) -> None:
    with pytest.raises(OSError, match="No such device") as caught:
        cgroups.ensure_limits(hierarchy(), str(group.path), "7:1048575", LIMITS)
    assert str(group.path) in str(caught.value.filename)
