"""The limits of a claim's VolumeAttributesClass hold its pod, and change while that runs."""

import contextlib
import re
from collections.abc import Iterator

import pytest

from tests.cluster import cgroups
from tests.cluster.cases.namespaces import Namespace
from tests.cluster.cases.objects import DRIVER, Manifest, Use, claim, pod, shipped_class
from tests.cluster.cluster import Cluster

MIB = 1 << 20
CHANGED_S = 90.0
# Within a second of a container's start, says the driver.
IN_FORCE_S = 30.0
WRITTEN_MIB = 32
SLOW, FAST = 8 * MIB, 400 * MIB


@pytest.fixture
def classes(namespace: Namespace) -> Iterator[dict[int, str]]:
    """A class for each bandwidth of writes."""
    names = {limit: f"{namespace.name}-{limit}" for limit in (SLOW, FAST)}
    namespace.apply(*(_class(name, limit) for limit, name in names.items()))
    yield names
    namespace.kubectl.run("delete", "volumeattributesclass", *names.values(), "--wait=false")


def test_limits_change_under_a_running_pod_and_hold_its_writes(
    namespace: Namespace, cluster: Cluster, classes: dict[int, str]
) -> None:
    limited = claim("data", shipped_class("ext4"), "300Mi")
    limited["spec"]["volumeAttributesClassName"] = classes[FAST]
    namespace.start(pod("writer", Use("data")), limited)
    uid = namespace.get("pod", "writer")["metadata"]["uid"]
    _wait_in_force(namespace, uid, FAST)

    change = f'{{"spec": {{"volumeAttributesClassName": "{classes[SLOW]}"}}}}'
    namespace.run("patch", "pvc", "data", "--patch", change)
    namespace.wait_until(
        lambda: (
            namespace.get("pvc", "data")["status"].get("currentVolumeAttributesClassName")
            == classes[SLOW]
        ),
        CHANGED_S,
        "the claim to tell its new class",
    )
    _wait_in_force(namespace, uid, SLOW)
    # A limit is a least time; how much more the disk takes is its own business.
    assert _write_s(namespace) > WRITTEN_MIB * MIB / SLOW * 0.8
    assert namespace.get("pod", "writer")["metadata"]["uid"] == uid


def _class(name: str, bytes_per_second: int) -> Manifest:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "VolumeAttributesClass",
        "metadata": {"name": name},
        "driverName": DRIVER,
        "parameters": {"writeBandwidth": str(bytes_per_second)},
    }


def _wait_in_force(namespace: Namespace, uid: str, limit: int) -> None:
    namespace.wait_until(
        lambda: limit in _limits(uid), IN_FORCE_S, f"the pod's group to have the limit {limit}"
    )


def _limits(uid: str) -> set[int]:
    """The bandwidths of writes in the control groups of a pod, of either version."""
    found = set()
    for group in cgroups.find_groups():
        # Groups of other pods come and go meanwhile.
        with contextlib.suppress(FileNotFoundError):
            for name in ("blkio.throttle.write_bps_device", "io.max"):
                for path in group.rglob(name):
                    # Some name a pod with dashes, others with underscores.
                    if uid in str(path).replace("_", "-"):
                        text = path.read_text(encoding="ascii")
                        found |= {int(number) for number in re.findall(r"\b\d{7,}\b", text)}
    return found


def _write_s(namespace: Namespace) -> float:
    """How long it takes to write past the page cache, in seconds."""
    write = f"dd if=/dev/zero of=/data/file bs=1M count={WRITTEN_MIB} oflag=direct 2> /dev/null"
    clock = "cut -d ' ' -f 1 /proc/uptime"
    before, after = namespace.shell("writer", f"{clock}; {write}; {clock}").split()
    return float(after) - float(before)
