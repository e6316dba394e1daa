"""Hierarchies and rules of control groups, on trees of plain files and made-up mounts."""

from pathlib import Path

import pytest

from csi.linux import cgroups
from csi.linux.cgroups import Hierarchy
from csi.linux.mounts import Mount
from csi.model import Limits

DEVICE = "7:3"
LIMITS = Limits(read_iops=500, write_bandwidth_bytes=20 << 20)


def mount(
    fs_type: str,
    target: Path | str,
    *,
    root: str = "/",
    options: str = "rw",
    super_options: str = "rw",
) -> Mount:
    return Mount(
        mount_id=1,
        parent_id=0,
        device="0:1",
        root=root,
        target=str(target),
        options=frozenset(options.split(",")),
        fs_type=fs_type,
        source="cgroup",
        super_options=frozenset(super_options.split(",")),
    )


def unified(path: Path, controllers: str) -> Path:
    path.mkdir(parents=True)
    (path / "cgroup.controllers").write_text(controllers, encoding="ascii")
    return path


def find(monkeypatch: pytest.MonkeyPatch, *mounts: Mount) -> Hierarchy | None:
    monkeypatch.setattr(cgroups, "read_mounts", lambda: list(mounts))
    return cgroups.find_hierarchy()


def test_version_1_is_known_by_its_controller(monkeypatch: pytest.MonkeyPatch) -> None:
    found = find(
        monkeypatch,
        mount("tmpfs", "/sys/fs/cgroup"),
        mount("cgroup", "/sys/fs/cgroup/memory", super_options="rw,memory"),
        mount("cgroup", "/sys/fs/cgroup/blkio", super_options="rw,blkio"),
    )
    assert found == Hierarchy("/sys/fs/cgroup/blkio", 1)


def test_version_2_has_it_where_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_io = unified(tmp_path / "v2", "cpu io memory")
    without = unified(tmp_path / "hybrid", "cpu iox")
    assert find(monkeypatch, mount("cgroup2", with_io)) == Hierarchy(str(with_io), 2)
    assert find(monkeypatch, mount("cgroup2", without)) is None
    assert find(monkeypatch, mount("cgroup2", tmp_path / "gone")) is None


@pytest.mark.parametrize(
    ("own", "host"),
    [
        ("/kubepods/burstable/pod1/c", "/"),  # version 1, and 2 without a namespace
        ("/", "/../../.."),  # in a namespace of its own, the host's root is above it
    ],
)
def test_the_hosts_tree_goes_before_the_containers_own(
    monkeypatch: pytest.MonkeyPatch, own: str, host: str
) -> None:
    mounts = [
        mount("cgroup", "/sys/fs/cgroup/blkio", root=own, super_options="rw,blkio"),
        mount("cgroup", "/host/blkio", root=host, super_options="rw,blkio"),
    ]
    assert find(monkeypatch, *mounts) == Hierarchy("/host/blkio", 1)
    assert find(monkeypatch, *reversed(mounts)) == Hierarchy("/host/blkio", 1)


def test_what_cannot_be_written_is_no_help(monkeypatch: pytest.MonkeyPatch) -> None:
    blkio = mount("cgroup", "/blkio", options="ro,nosuid", super_options="rw,blkio")
    assert find(monkeypatch, blkio) is None


def test_groups_are_found_above_before_below(tmp_path: Path) -> None:
    (tmp_path / "a/b/c").mkdir(parents=True)
    (tmp_path / "d").mkdir()
    (tmp_path / "a/tasks").touch()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    found = [
        str(Path(group).relative_to(tmp_path)) for group in cgroups.groups_below(str(tmp_path))
    ]
    assert sorted(found) == ["a", "a/b", "a/b/c", "d"]
    assert found.index("a") < found.index("a/b") < found.index("a/b/c")
    assert len(list(cgroups.groups_below(str(tmp_path), depth=2))) == 3
    assert list(cgroups.groups_below(str(tmp_path / "none"))) == []


def v1_group(path: Path, present: str = "") -> Path:
    path.mkdir()
    for name in ("read_iops", "write_iops", "read_bps", "write_bps"):
        (path / f"blkio.throttle.{name}_device").write_text(present, encoding="ascii")
    return path


def test_rules_of_version_1(tmp_path: Path) -> None:
    group = v1_group(tmp_path / "group")
    cgroups.ensure_limits(Hierarchy(str(tmp_path), 1), str(group), DEVICE, LIMITS)
    written = {file.name.split(".")[-1]: file.read_text() for file in group.iterdir()}
    assert written == {
        "read_iops_device": "7:3 500",
        "write_iops_device": "",
        "read_bps_device": "",
        "write_bps_device": "7:3 20971520",
    }


def test_only_what_differs_is_written(tmp_path: Path) -> None:
    # A rule for another device that begins alike stays what it is.
    group = v1_group(tmp_path / "group", "7:30 1\n7:3 500\n")
    (group / "blkio.throttle.write_bps_device").write_text("7:30 1\n", encoding="ascii")
    hierarchy = Hierarchy(str(tmp_path), 1)
    wanted = Limits(read_iops=500, write_iops=500, read_bandwidth_bytes=500)
    cgroups.ensure_limits(hierarchy, str(group), DEVICE, wanted)
    assert (group / "blkio.throttle.read_iops_device").read_text() == "7:30 1\n7:3 500\n"
    assert (group / "blkio.throttle.write_bps_device").read_text() == "7:30 1\n"
    cgroups.ensure_limits(hierarchy, str(group), DEVICE, Limits())
    assert (group / "blkio.throttle.read_iops_device").read_text().startswith("7:3 0")


def test_rules_of_version_2(tmp_path: Path) -> None:
    group = tmp_path / "group"
    group.mkdir()
    rules = group / "io.max"
    rules.touch()
    hierarchy = Hierarchy(str(tmp_path), 2)
    cgroups.ensure_limits(hierarchy, str(group), DEVICE, LIMITS)
    assert rules.read_text() == "7:3 riops=500 wiops=max rbps=max wbps=20971520"

    # The kernel has an order of its own.
    rules.write_text("7:3 rbps=max wbps=20971520 riops=500 wiops=max\n", encoding="ascii")
    cgroups.ensure_limits(hierarchy, str(group), DEVICE, LIMITS)
    assert rules.read_text() == "7:3 rbps=max wbps=20971520 riops=500 wiops=max\n"

    cgroups.ensure_limits(hierarchy, str(group), DEVICE, Limits())
    assert rules.read_text().startswith("7:3 riops=max wiops=max rbps=max wbps=max")


def test_no_rule_is_written_for_no_limits(tmp_path: Path) -> None:
    (tmp_path / "io.max").touch()
    cgroups.ensure_limits(Hierarchy(str(tmp_path), 2), str(tmp_path), DEVICE, Limits())
    assert (tmp_path / "io.max").read_text() == ""


def test_a_controller_that_is_off_below_is_named(tmp_path: Path) -> None:
    """Systemd or another may leave `io` out of what groups of pods have."""
    with pytest.raises(FileNotFoundError, match="io controller is off there") as caught:
        cgroups.ensure_limits(
            cgroups.Hierarchy(str(tmp_path), 2), str(tmp_path), "7:3", Limits(read_iops=20)
        )
    assert caught.value.filename == f"{tmp_path}/io.max"


@pytest.mark.parametrize("version", [1, 2])
def test_where_no_limit_can_be_there_is_none_to_take_away(tmp_path: Path, version: int) -> None:
    cgroups.ensure_limits(Hierarchy(str(tmp_path), version), str(tmp_path), DEVICE, Limits())


def test_a_group_without_the_controller_is_an_error_and_a_gone_one_is_not(tmp_path: Path) -> None:
    for version in (1, 2):
        hierarchy = Hierarchy(str(tmp_path), version)
        cgroups.ensure_limits(hierarchy, str(tmp_path / "gone"), DEVICE, LIMITS)
        with pytest.raises(FileNotFoundError) as caught:
            cgroups.ensure_limits(hierarchy, str(tmp_path), DEVICE, LIMITS)
        assert str(tmp_path) in str(caught.value.filename)
