"""The parts of the harness that need no cluster, no root and no network."""

import hashlib
import io
import json
import tarfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.cluster import build, driver_image, images, loops, mountpoints, network, versions
from tests.cluster.archives import File, Folder, Image, Link, image_name, write_archive
from tests.cluster.cases.troubles import is_complaint
from tests.cluster.cgroups import hierarchies
from tests.cluster.cluster import check_room, is_running
from tests.cluster.configuration import network_configuration
from tests.cluster.errors import ClusterError
from tests.cluster.kubectl import Kubectl
from tests.cluster.loops import Loop, loops_below, parse_loops
from tests.cluster.mounts import foreign_mounts, mounts_below
from tests.cluster.node import is_ready
from tests.cluster.waiting import WaitedInVain, wait_until

REPOSITORY = Path(__file__).resolve().parents[2]

# ---- Images


def example_image(tmp_path: Path, content: bytes = b"a program") -> Image:
    program = tmp_path / "program"
    program.write_bytes(content)
    return Image(
        "example.org/thing:v1",
        (
            Folder("tmp", 0o1777),
            File("etc/passwd", b"root"),
            File("bin/thing", program, 0o755),
            Link("bin/other", "thing"),
        ),
        entrypoint=("/bin/thing",),
        arguments=("--flag",),
        labels=(("title", "thing"),),
    )


def read_layer(archive: Path) -> list[tarfile.TarInfo]:
    with tarfile.open(archive) as outer:
        layer = outer.extractfile("layer.tar")
        assert layer is not None
        with tarfile.open(fileobj=io.BytesIO(layer.read())) as inner:
            return inner.getmembers()


def test_an_archive_names_its_image_and_holds_what_it_says(tmp_path: Path) -> None:
    target = tmp_path / "image.tar"
    write_archive(example_image(tmp_path), target)

    assert image_name(target) == "example.org/thing:v1"
    with tarfile.open(target) as archive:
        members = {
            member.name: content.read()
            for member in archive.getmembers()
            if (content := archive.extractfile(member)) is not None
        }
    (manifest,) = json.loads(members["manifest.json"])
    configuration = json.loads(members[manifest["Config"]])
    digest = hashlib.sha256(members["layer.tar"]).hexdigest()
    assert manifest["Layers"] == ["layer.tar"]
    assert manifest["Config"] == f"{hashlib.sha256(members[manifest['Config']]).hexdigest()}.json"
    assert configuration["rootfs"]["diff_ids"] == [f"sha256:{digest}"]
    assert configuration["config"]["Entrypoint"] == ["/bin/thing"]
    assert configuration["config"]["Cmd"] == ["--flag"]
    assert configuration["config"]["Labels"] == {"title": "thing"}


def test_a_layer_has_each_folder_once_and_before_what_is_in_it(tmp_path: Path) -> None:
    target = tmp_path / "image.tar"
    write_archive(example_image(tmp_path), target)
    members = read_layer(target)
    assert [(member.name, oct(member.mode)) for member in members] == [
        ("tmp", "0o1777"),
        ("etc", "0o755"),
        ("etc/passwd", "0o644"),
        ("bin", "0o755"),
        ("bin/thing", "0o755"),
        ("bin/other", "0o777"),
    ]
    assert members[-1].linkname == "thing"
    assert {(member.uid, member.gid, member.mtime) for member in members} == {(0, 0, 0)}


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second, other = (tmp_path / name for name in ("first", "second", "other"))
    write_archive(example_image(tmp_path), first)
    write_archive(example_image(tmp_path), second)
    write_archive(example_image(tmp_path, b"another"), other)
    assert first.read_bytes() == second.read_bytes() != other.read_bytes()


def test_a_failed_archive_leaves_nothing(tmp_path: Path) -> None:
    image = Image("example.org/thing:v1", (File("thing", tmp_path / "missing"),))
    with pytest.raises(FileNotFoundError):
        write_archive(image, tmp_path / "image.tar")
    assert list(tmp_path.iterdir()) == []


# ---- Versions


@pytest.mark.parametrize("program", versions.ALL_PROGRAMS, ids=lambda program: program.name)
def test_every_program_is_pinned(program: versions.Program) -> None:
    assert (program.folder / "go.sum").is_file()
    assert program.version.removeprefix("v")[0].isdigit()
    if program.module != versions.STAND_INS:
        tools = (program.folder / "go.mod").read_text(encoding="utf-8")
        assert program.package in tools.split()


def test_a_module_that_is_not_pinned_is_named() -> None:
    with pytest.raises(ClusterError, match=r"kubernetes/go\.mod does not require example\.org/x"):
        versions.pinned_version("kubernetes", "example.org/x")


def test_kubernetes_is_told_its_version() -> None:
    version = versions.KUBELET.version
    flags = versions.KUBELET.linker_flags
    assert f"gitVersion={version} " in flags
    assert f"gitMajor=1 -X k8s.io/component-base/version.gitMinor={version.split('.')[1]}" in flags


def test_its_staging_modules_go_with_kubernetes() -> None:
    text = (versions.PARTS / "kubernetes" / "go.mod").read_text(encoding="utf-8")
    replaced = {line.split()[-1] for line in text.splitlines() if "=>" in line}
    assert replaced == {versions.KUBELET.version.replace("v1.", "v0.")}


def test_the_manifests_name_the_images_that_a_cluster_has() -> None:
    had = {images.sidecar_name(program) for program in versions.SIDECARS}
    had |= {images.PAUSE_NAME, images.BUSYBOX_NAME.removeprefix("docker.io/library/")}
    had |= {"csi-local-path"}  # by kustomize, with its tag
    files = [*REPOSITORY.glob("deploy/**/*.yaml"), *REPOSITORY.glob("examples/**/*.yaml")]
    named = {
        line.split("image:")[1].strip()
        for file in files
        for line in file.read_text(encoding="utf-8").splitlines()
        if line.strip().removeprefix("- ").startswith("image:")
    }
    assert named <= had


def test_the_definitions_of_snapshots_are_those_that_the_manifests_name() -> None:
    named = REPOSITORY / "deploy" / "snapshot-controller" / "crds" / "kustomization.yaml"
    pinned = versions.pinned_version("external-snapshotter", versions.SNAPSHOT_CLIENT)
    assert f"?ref={pinned}" in named.read_text(encoding="utf-8")


def test_the_definition_of_changed_blocks_is_the_one_that_the_manifests_name() -> None:
    named = REPOSITORY / "deploy" / "changed-blocks" / "crds" / "kustomization.yaml"
    pinned = versions.pinned_version(
        "external-snapshot-metadata", versions.SNAPSHOT_METADATA_CLIENT
    )
    assert f"/tags/client/{pinned}/" in named.read_text(encoding="utf-8")


# ---- Builds


def test_a_program_is_kept_under_all_that_it_is_made_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "PARTS", tmp_path)
    part = tmp_path / "part"
    part.mkdir()
    (part / "go.mod").write_text("require example.org/x v1.2.3\n", encoding="ascii")
    program = versions.Program("x", "part", "example.org/x/cmd/x", "example.org/x", "main.version")

    first = build.cache_name(program, "go1.26.8")
    assert first.startswith("x-v1.2.3-go1.26.8-")
    assert build.cache_name(program, "go1.26.8") == first
    assert build.cache_name(program, "go1.27.0") != first
    (part / "go.sum").write_text("another checksum\n", encoding="ascii")
    assert build.cache_name(program, "go1.26.8") != first


def test_what_an_interrupted_build_left_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / "building-x").mkdir()
    (tmp_path / "building-x" / "half").touch()
    (tmp_path / "kubelet-v1").touch()
    with build._only_build(tmp_path):
        assert {path.name for path in tmp_path.iterdir()} == {"kubelet-v1", ".lock"}


def test_the_driver_image_is_known_by_its_sources(tmp_path: Path) -> None:
    for name in ("Dockerfile", ".dockerignore", "requirements.lock", "csi/cli.py", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name, encoding="ascii")
    first = driver_image.sources_key(tmp_path, "base", "name")

    (tmp_path / "README.md").write_text("changed", encoding="ascii")
    (tmp_path / "csi" / "__pycache__").mkdir()
    (tmp_path / "csi" / "__pycache__" / "cli.pyc").touch()
    assert driver_image.sources_key(tmp_path, "base", "name") == first
    assert driver_image.sources_key(tmp_path, "base", "another name") != first
    assert driver_image.sources_key(tmp_path, "another base", "name") != first
    (tmp_path / "csi" / "cli.py").write_text("changed", encoding="ascii")
    assert driver_image.sources_key(tmp_path, "base", "name") != first


def test_the_build_gets_the_hosts_configuration_of_pip(tmp_path: Path) -> None:
    printed = (
        f":env:.find-links='{tmp_path} https://example.org/wheels'\n"
        ":env:.timeout='180'\n"
        "global.timeout='15'\n"
        "global.trusted-host='one\\ntwo'\n"
        "list.format='columns'\n"
    )
    text, paths = driver_image.pip_configuration(driver_image.parse_pip_options(printed))
    assert text == (
        "[global]\n"
        f"find-links = {tmp_path} https://example.org/wheels\n"
        "timeout = 180\n"
        "trusted-host = one\n    two\n"
    )
    assert paths == [tmp_path]


# ---- Networks


def test_no_two_networks_of_the_cluster_overlap() -> None:
    pods = [network.pod_network(number) for number in range(1, network.MAX_NODES + 1)]
    assert all(subnet.subnet_of(network.PODS) for subnet in pods)
    assert len(set(pods)) == len(pods)
    networks = [network.MACHINES, network.PODS, network.SERVICES]
    assert not any(a.overlaps(b) for a in networks for b in networks if a is not b)
    assert all(each.is_private for each in networks)


def test_every_machine_has_an_address_of_its_own() -> None:
    nodes = {network.node_address(number) for number in range(1, network.MAX_NODES + 1)}
    others = {network.PLANE_ADDRESS, network.HOST_ADDRESS, network.NOWHERE}
    assert len(nodes | others) == network.MAX_NODES + 3
    assert all(address in network.MACHINES for address in nodes | others)


@pytest.mark.parametrize(
    ("destinations", "taken"),
    [
        (["default", "192.0.2.0/24"], []),
        (["10.0.0.0/8"], ["10.0.0.0/8"]),
        (["10.213.0.7"], ["10.213.0.7"]),
        (["10.212.0.0/16", "10.214.0.0/16"], []),
    ],
)
def test_a_route_of_the_host_that_is_in_the_way_is_found(
    destinations: list[str], taken: list[str]
) -> None:
    assert network.overlapping(destinations, network.MACHINES) == taken


def test_a_pod_gets_an_address_of_its_nodes() -> None:
    text = json.dumps(network_configuration(7, Path("/addresses")))
    assert '"subnet": "10.214.7.0/24"' in text


# ---- Mounts, control groups, loop devices

MOUNTINFO = """\
21 1 254:0 / / rw,relatime - ext4 /dev/vda rw
22 21 0:20 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
23 21 0:21 / /sys/fs/cgroup/unified rw shared:4 - cgroup2 cgroup2 rw
24 21 7:0 / /tmp/test\\040one rw - xfs /dev/loop0 rw
25 24 7:1 / /tmp/test\\040one/inner rw - ext4 /dev/loop1 rw
26 21 7:2 / /home rw - ext4 /dev/loop2 rw
27 21 0:30 / /var/tmp/state/node1/run rw - tmpfs tmpfs rw
"""


def test_mounts_of_others_are_let_go_the_inner_first() -> None:
    needed = [Path("/home/me/tests"), Path("/var/tmp/state")]
    assert foreign_mounts(MOUNTINFO, needed) == ["/tmp/test one/inner", "/tmp/test one"]


def test_mounts_below_a_folder_are_found() -> None:
    assert mounts_below(MOUNTINFO, Path("/var/tmp/state")) == ["/var/tmp/state/node1/run"]
    assert mounts_below(MOUNTINFO, Path("/var/tmp/sta")) == []


def test_the_hierarchies_of_both_versions_are_found() -> None:
    found = hierarchies(MOUNTINFO)
    assert found == [Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup/unified")]


def loop(number: int, file: str, device: str = "254:0", inode: int = 1) -> Loop:
    return Loop(f"/dev/loop{number}", f"7:{number}", file, device, inode, ("0:6", 100 + number))


STATE = Path("/var/tmp/state")
POOL = loop(0, "/var/tmp/state/node1/xfs.img")
BTRFS_POOL = loop(1, "/var/tmp/state/node1/btrfs.img")
IMAGE = loop(2, "/var/lib/csi-local-path/volumes/a/disk.img", "7:0")
KUBELETS = loop(3, "/var/lib/kubelet/volumeDevices/x", "0:6", 102)
BTRFS_IMAGE = loop(4, "/var/lib/csi-local-path-btrfs/volumes/b/disk.img", "0:55")
FOREIGN = loop(5, "/var/lib/csi-local-path/volumes/a/disk.img", "7:6")
FOREIGN_POOL = loop(6, "/tmp/test/pool.img")
SIBLING = loop(7, "/var/tmp/state-of-another/xfs.img")
EVERY = [KUBELETS, IMAGE, POOL, FOREIGN, FOREIGN_POOL, SIBLING, BTRFS_IMAGE, BTRFS_POOL]


def test_loop_devices_are_told_by_what_they_stand_on_and_go_from_the_top() -> None:
    found = loops_below(EVERY, STATE, ["7:0", "0:55"])
    assert set(found) == {POOL, BTRFS_POOL, IMAGE, KUBELETS, BTRFS_IMAGE}
    assert found.index(KUBELETS) < found.index(IMAGE) < found.index(POOL)
    assert found.index(BTRFS_IMAGE) < found.index(BTRFS_POOL)


def test_a_noted_device_counts_for_nothing_once_its_pool_is_gone() -> None:
    # The kernel may have given the number to the filesystem of somebody else.
    assert loops_below([BTRFS_IMAGE, FOREIGN], STATE, ["7:0", "0:55"]) == []


def test_a_loop_device_is_detached_whose_filesystem_was_unmounted_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A machine's mounts go while it dies, and with them the paths that losetup prints."""
    attached = [replace(IMAGE, backing_file="/volumes/a/disk.img"), FOREIGN]

    def losetup(command: list[str], **_: object) -> None:
        attached[:] = [each for each in attached if each.name != command[-1]]

    monkeypatch.setattr(loops, "read_loops", lambda: list(attached))
    monkeypatch.setattr("tests.cluster.loops.subprocess.run", losetup)
    loops.detach([IMAGE])
    assert attached == [FOREIGN]


def test_what_losetup_lists_is_read() -> None:
    row = {
        "name": "/dev/loop0",
        "maj:min": "  7:0  ",
        "back-file": "/tmp/pool.img (deleted)",
        "back-maj:min": "254:0",
        "back-ino": 787330,
    }
    listed = parse_loops(json.dumps({"loopdevices": [row]}), lambda _: ("0:6", 9))
    assert listed == [Loop("/dev/loop0", "7:0", "/tmp/pool.img", "254:0", 787330, ("0:6", 9))]
    assert listed[0].backing_file == "/tmp/pool.img"
    assert parse_loops("", lambda _: ("", 0)) == []


def test_only_mount_points_that_were_made_are_removed(tmp_path: Path) -> None:
    state, root = tmp_path / "state", tmp_path / "root"
    state.mkdir()
    (root / "there").mkdir(parents=True)
    wanted = [str(root / "there"), str(root / "a" / "b"), str(root / "a" / "c")]

    mountpoints.ensure_mount_points(state, wanted)
    mountpoints.ensure_mount_points(state, wanted)
    assert all(Path(path).is_dir() for path in wanted)
    (root / "a" / "c" / "of somebody else").touch()

    kept = mountpoints.remove_mount_points(state)
    assert kept == [str(root / "a" / "c"), str(root / "a")]
    assert {path.name for path in root.rglob("*")} == {"there", "a", "c", "of somebody else"}


def test_what_a_crash_has_left_makes_room(tmp_path: Path) -> None:
    (tmp_path / "complete").touch()
    assert not is_running(tmp_path)
    check_room(tmp_path)


# ---- Waiting


def test_waiting_ends_when_it_holds() -> None:
    answers = iter([False, False, True])
    wait_until(lambda: next(answers), 5, "the third answer")


def test_waiting_says_what_it_waited_for() -> None:
    with pytest.raises(WaitedInVain, match="waited 0 s in vain for rain"):
        wait_until(lambda: False, 0.01, "rain")


@pytest.mark.parametrize(
    ("status", "heartbeat", "ready"),
    [
        ("True", "2026-01-01T00:00:10Z", True),
        ("True", "2026-01-01T00:00:09Z", False),
        ("Unknown", "2026-01-01T00:00:11Z", False),
    ],
)
def test_a_node_is_ready_when_it_has_said_so_since(
    status: str, heartbeat: str, ready: bool
) -> None:
    condition = {"type": "Ready", "status": status, "lastHeartbeatTime": heartbeat}
    node = {"status": {"conditions": [condition]}}
    assert is_ready(node, datetime(2026, 1, 1, 0, 0, 10, tzinfo=UTC)) is ready
    assert not is_ready({"status": {}}, datetime(2026, 1, 1, tzinfo=UTC))


# ---- Failures


def test_a_kubectl_that_hangs_has_failed(tmp_path: Path) -> None:
    program = tmp_path / "kubectl"
    program.write_text("#!/bin/sh\nexec sleep 60\n", encoding="ascii")
    program.chmod(0o755)
    kubectl = Kubectl(program, tmp_path / "kubeconfig")
    assert kubectl.try_run("get", "nodes", timeout_s=0.5).returncode != 0
    with pytest.raises(ClusterError, match="get nodes failed: no answer"):
        kubectl.run("get", "nodes", timeout_s=0.4)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"ts": "now", "level": "warning", "msg": "the pool is nearly full"}', True),
        ('{"ts": "now", "level": "info", "msg": "W0101 is no warning"}', False),
        ("E0101 10:00:00.000000       1 controller.go:1] failed", True),
        ("I0101 10:00:00.000000       1 controller.go:1] fine", False),
        ("Everything is fine", False),
        ("[1, 2]", False),
        ("", False),
    ],
)
def test_warnings_are_told_from_the_rest_of_a_log(text: str, complaint: bool) -> None:
    assert is_complaint(f"[pod/node-x/driver] {text}") is complaint
