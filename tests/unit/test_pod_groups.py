"""The control groups of pods, as kubelets name and place them."""

from pathlib import Path

import pytest

from csi.linux.cgroups import Hierarchy
from csi.volumes.pod_groups import PodGroups, pod_of, pod_of_group

UID = "0d8a3a5e-0c1b-4d8f-9a53-6f2d1c7b9e10"
OTHER = "ffffffff-0c1b-4d8f-9a53-6f2d1c7b9e10"
SLICED = UID.replace("-", "_")


@pytest.mark.parametrize(
    "path",
    [
        f"/var/lib/kubelet/pods/{UID}/volumes/kubernetes.io~csi/pvc-1/mount",
        f"/var/lib/k0s/kubelet/pods/{UID}/volumes/kubernetes.io~csi/pvc-1/mount",
        f"/var/lib/kubelet/plugins/kubernetes.io/csi/volumeDevices/publish/pvc-1/{UID}",
    ],
)
def test_a_target_path_names_its_pod(path: str) -> None:
    assert pod_of(path) == UID


@pytest.mark.parametrize(
    "path",
    [
        f"/var/lib/kubelet/plugins/kubernetes.io/csi/local-path.csi.dev/{'a' * 64}/globalmount",
        "/var/lib/kubelet/plugins/kubernetes.io/csi/volumeDevices/staging/pvc-1/device",
        f"/var/lib/kubelet/pods/{UID}/etc-hosts",
        "/mnt/target",
        "",
    ],
)
def test_another_path_names_none(path: str) -> None:
    assert pod_of(path) == ""


@pytest.mark.parametrize(
    ("name", "pod"),
    [
        (f"pod{UID}", UID),
        (f"kubepods-burstable-pod{SLICED}.slice", UID),
        (f"kubepods-pod{SLICED}.slice", UID),
        (f"kubelet-kubepods-besteffort-pod{SLICED}.slice", UID),
        ("kubepods", ""),
        ("kubepods.slice", ""),
        ("kubepods-burstable.slice", ""),
        (f"cri-containerd-{UID}.scope", ""),
        ("podman.service", ""),
        ("system.slice", ""),
    ],
)
def test_a_group_is_a_pods_by_its_name(name: str, pod: str) -> None:
    assert pod_of_group(name) == pod


@pytest.mark.parametrize(
    "place",
    [
        f"kubepods/pod{UID}",
        f"kubepods/burstable/pod{UID}",
        f"some-root/node1/kubepods/besteffort/pod{UID}",
        f"kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{SLICED}.slice",
        f"kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{SLICED}.slice",
    ],
)
def test_a_pods_group_is_found_wherever_it_is(tmp_path: Path, place: str) -> None:
    (tmp_path / place / "container").mkdir(parents=True)
    (tmp_path / "system.slice/ssh.service").mkdir(parents=True)
    (tmp_path / "kubepods" / f"pod{OTHER}").mkdir(parents=True)
    hierarchy = Hierarchy(str(tmp_path), 1)
    assert PodGroups().find(hierarchy, {UID}) == {UID: str(tmp_path / place)}
    assert PodGroups().find(hierarchy, set()) == {}


def test_a_group_may_come_later_and_move(tmp_path: Path) -> None:
    groups, hierarchy = PodGroups(), Hierarchy(str(tmp_path), 2)
    assert groups.find(hierarchy, {UID}) == {}
    first = tmp_path / "kubepods" / f"pod{UID}"
    first.mkdir(parents=True)
    assert groups.find(hierarchy, {UID, OTHER}) == {UID: str(first)}
    first.rename(tmp_path / f"pod{UID}")
    assert groups.find(hierarchy, {UID}) == {UID: str(tmp_path / f"pod{UID}")}
