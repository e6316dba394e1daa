"""csi-local-path: help, arguments, the configuration file, and the list of volumes."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from csi import __version__, cli
from csi.model import Volume
from csi.pool import records
from csi.pool.listing import list_volumes
from tests.contract import requests
from tests.contract.bench import Bench, bench_of, write_synced
from tests.contract.command import DONE, FAILED, WRONG_ARGUMENTS, csi_local_path, fails, succeeds
from tests.contract.node_fixtures import entry_of, image_of
from tests.contract.requests import FS_TYPE, MIB, filesystem, raw_block
from tests.driver import create_pool

pytestmark = pytest.mark.kernel

CLAIM = {
    "csi.storage.k8s.io/pvc/name": "database",
    "csi.storage.k8s.io/pvc/namespace": "shop",
    "csi.storage.k8s.io/pv/name": "pvc-1234",
}
HEAD = "apiVersion: local-path.csi.dev/v1\nkind: DriverConfiguration\n"


def _in_process(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str]:
    """Runs the command without a process of its own, which is quick; for what ends at once."""
    try:
        code: object = cli.main(arguments)
    except SystemExit as end:
        code = end.code
    captured = capsys.readouterr()
    return code, captured.out + captured.err


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--help"], ["serve", "pool", "volumes", "--version"]),
        (["serve", "--help"], ["--config", "--endpoint", "--node-id", "--pool", "SIGTERM"]),
        (["pool", "--help"], ["create"]),
        (["pool", "create", "--help"], ["--file", "--device", "--size", "--filesystem", "PATH"]),
        (["volumes", "--help"], ["--pool", "--output", "json"]),
    ],
    ids=str,
)
def test_the_help_explains_itself(
    capsys: pytest.CaptureFixture[str], arguments: list[str], names: list[str]
) -> None:
    code, said = _in_process(capsys, *arguments)

    assert code == DONE
    for name in names:
        assert name in said


def test_the_version() -> None:
    assert succeeds("--version") == f"csi-local-path {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ([], ["COMMAND"]),
        (["serv"], ["serv", "serve"]),
        (["serve", "--pol", "/x"], ["--pol"]),
        (["serve", "stray"], ["stray"]),
        (["serve", "--log-level", "loud"], ["--log-level", "loud", "debug"]),
        (["pool"], ["ACTION"]),
        (["pool", "create"], ["PATH"]),
        (["pool", "create", "/x", "--filesystem", "ext4"], ["--filesystem", "ext4", "xfs"]),
        (["volumes", "--output", "yaml"], ["--output", "yaml", "json"]),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(
    capsys: pytest.CaptureFixture[str], arguments: list[str], names: list[str]
) -> None:
    code, complaint = _in_process(capsys, *arguments)

    assert code == WRONG_ARGUMENTS
    for name in names:
        assert name in complaint


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (HEAD + "maxVolumePerNode: 3\n", ["maxVolumePerNode"]),
        (HEAD + "pools: [{nam: fast, path: /x}]\n", ["nam", "pools"]),
        (HEAD + "inlineVolumes: {maxsize: 1Gi}\n", ["maxsize", "inlineVolumes"]),
        (HEAD + "inlineVolumes: {classes: {a: {fstype: xfs}}}\n", ["fstype", "classes"]),
        (HEAD + "log: {levle: debug}\n", ["levle", "log"]),
        (HEAD + "maxVolumesPerNode: many\n", ["maxVolumesPerNode", "int"]),
        (HEAD + "maxVolumesPerNode: -1\n", ["maxVolumesPerNode", "-1"]),
        (HEAD + "defaultFsType: zfs\n", ["defaultFsType", "zfs", "ext4, xfs, btrfs"]),
        (HEAD + "defaultSize: 1 GB\n", ["defaultSize", "1 GB", "500M"]),
        (HEAD + "defaultSize: 0\n", ["defaultSize", "0"]),
        (HEAD + "log: {level: loud}\n", ["level", "loud"]),
        (HEAD + "driverName: -x-\n", ["driverName", "-x-"]),
        (HEAD + "pools: [{overProvisioningRatio: 0}]\n", ["overProvisioningRatio", "0"]),
        (HEAD + "pools: [{overProvisioningRatio: -1}]\n", ["overProvisioningRatio", "-1"]),
        (HEAD + "pools: [{overProvisioningRatio: 1000.1}]\n", ["overProvisioningRatio", "1000"]),
        (HEAD + "pools: [{overProvisioningRatio: .nan}]\n", ["overProvisioningRatio", "nan"]),
        (HEAD + "pools: [{overProvisioningRatio: .inf}]\n", ["overProvisioningRatio", "inf"]),
        (HEAD + "pools: [{overProvisioningRatio: '2'}]\n", ["pools", "float"]),
        (HEAD + "pools: [{reserved: some}]\n", ["reserved", "some"]),
        (HEAD + "pools: [{name: a}, {name: a}]\n", ["pools", "'a'", "two"]),
        (HEAD + "inlineVolumes: {classes: {a: {fsType: zfs}}}\n", ["zfs", "class"]),
        (HEAD + "inlineVolumes: {classes: {a: {pool: nowhere}}}\n", ["nowhere", "class"]),
        (HEAD + "seLinuxMount: maybe\n", ["seLinuxMount", "bool"]),
        (
            HEAD + "seLinuxMount: true\ninlineVolumes: {classes: {a: {kind: directory}}}\n",
            ["seLinuxMount", "'a'", "directory"],
        ),
        (
            HEAD + "inlineVolumes: {classes: {a: {mkfsOptions: -F x}}}\n",
            ["'a'", "mkfsOptions", "'-F'", "ext4"],
        ),
        (
            HEAD + "inlineVolumes: {classes: {a: {fsType: xfs, mkfsOptions: -N 9000}}}\n",
            ["'a'", "mkfsOptions", "'-N'", "xfs"],
        ),
        (
            HEAD + "defaultFsType: btrfs\ninlineVolumes: {classes: {a: {mkfsOptions: -i 4096}}}\n",
            ["'a'", "mkfsOptions", "'-i'", "btrfs"],
        ),
        (
            HEAD + "inlineVolumes: {classes: {a: {kind: directory, mkfsOptions: -i 4096}}}\n",
            ["'a'", "mkfsOptions", "kind image"],
        ),
        (HEAD + "inlineVolumes: {maxSize: 1Gi, defaultSize: 2Gi}\n", ["defaultSize", "maxSize"]),
        ("kind: DriverConfiguration\n", ["apiVersion", "local-path.csi.dev/v1"]),
        ("apiVersion: local-path.csi.dev/v1\n", ["kind", "DriverConfiguration"]),
        (HEAD.replace("/v1", "/v2"), ["apiVersion", "v2", "local-path.csi.dev/v1"]),
        (HEAD.replace("Driver", "Drivel"), ["kind", "DrivelConfiguration"]),
        (HEAD + "log: [\n", ["YAML"]),
        ("", ["apiVersion"]),
        ("- apiVersion\n", ["apiVersion"]),
        (HEAD + "log: &a\n  level: *a\n", ["log"]),
        ("\x00\x01", ["YAML"]),
    ],
)
def test_a_mistake_in_the_configuration_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, names: list[str]
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)

    # A mistake that is overlooked ends at this pool, which is none.
    pool = () if "pools:" in text else ("--pool", str(tmp_path))
    code, complaint = _in_process(capsys, "serve", "--config", str(file), *pool)

    assert code == FAILED
    for name in names:
        assert name in complaint, complaint
    assert "pool.json" not in complaint, "it came as far as opening the pool"


def test_a_typing_mistake_ends_the_command(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(HEAD + "maxVolumePerNode: 3\n")

    complaint = fails(FAILED, "serve", "--config", file)

    assert str(file) in complaint
    assert "maxVolumePerNode" in complaint


def test_a_configuration_that_is_not_there_is_named(tmp_path: Path) -> None:
    complaint = fails(FAILED, "serve", "--config", tmp_path / "missing.yaml")

    assert str(tmp_path / "missing.yaml") in complaint
    assert "No such file" in complaint


class TestVolumes:
    """The list of what is in a pool."""

    @pytest.fixture
    def bench(self, btrfs_pool: Path, tmp_path: Path) -> Iterator[Bench]:
        with bench_of(btrfs_pool, tmp_path) as bench:
            yield bench

    def test_a_claim_is_found_with_its_files(self, bench: Bench) -> None:
        volume_id = bench.create(size=64 * MIB, parameters=CLAIM).volume_id
        with bench.used(volume_id) as target:
            write_synced(target / "file", b"x" * (4 * MIB))

        lines = succeeds("volumes", "--pool", bench.pool).splitlines()

        assert lines[0].split() == ["CLAIM", "VOLUME", "KIND", "SIZE", "ALLOCATED", "DATA"]
        assert len(lines) == 2
        for cell in ("shop/database", "pvc-1234", "image (ext4)", "64 MiB"):
            assert cell in lines[1]
        assert lines[1].endswith(str(image_of(bench.pool, volume_id)))

    def test_programs_read_the_same_as_json(self, bench: Bench) -> None:
        name = bench.name()
        image = bench.create(name, parameters={**CLAIM, FS_TYPE: "ext4"}).volume_id
        raw = bench.create(size=8 * MIB, capability=raw_block()).volume_id
        directory = bench.create(
            size=32 * MIB, capability=filesystem(""), parameters={"kind": "directory"}
        ).volume_id

        found = json.loads(succeeds("volumes", "--pool", bench.pool, "--output", "json"))

        assert found["damaged"] == {}
        assert [volume["id"] for volume in found["volumes"]] == [image, raw, directory]
        first, second, third = found["volumes"]
        assert first == {
            "id": image,
            "name": name,
            "claim": {"namespace": "shop", "name": "database", "volume": "pvc-1234"},
            "kind": "image",
            "access": "filesystem",
            "fsType": "ext4",
            "sizeBytes": 64 * MIB,
            "allocatedBytes": image_of(bench.pool, image).stat().st_blocks * 512,
            "path": str(image_of(bench.pool, image)),
        }
        assert (second["access"], second["fsType"]) == ("block", "")
        assert third["kind"] == "directory"
        assert third["path"] == str(entry_of(bench.pool, directory) / "data")
        assert os.path.isdir(third["path"])

    def test_it_needs_no_driver(self, bench: Bench) -> None:
        volume_id = bench.create(parameters=CLAIM).volume_id
        bench.driver.stop_cleanly()

        assert "shop/database" in succeeds("volumes", "--pool", bench.pool)

        bench.driver.start()
        bench.driver.controller.ControllerGetVolume(requests.get_volume(volume_id))

    def test_a_damaged_record_is_told_and_the_rest_listed(self, bench: Bench) -> None:
        damaged, sound = bench.create().volume_id, bench.create(parameters=CLAIM).volume_id
        record = entry_of(bench.pool, damaged) / "record.json"
        content = record.read_bytes()
        record.write_bytes(b"{")
        try:
            done = csi_local_path("volumes", "--pool", bench.pool)
            assert done.returncode == FAILED
            assert "shop/database" in done.stdout
            assert record.parent.name in done.stderr
            assert "damaged" in done.stderr

            done = csi_local_path("volumes", "--pool", bench.pool, "--output", "json")
            found = json.loads(done.stdout)
            assert [volume["id"] for volume in found["volumes"]] == [sound]
            assert list(found["damaged"]) == [record.parent.name]
        finally:
            record.write_bytes(content)

    def test_a_volume_that_leaves_meanwhile_is_not_damaged(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        leaving, staying = bench.create().volume_id, bench.create().volume_id
        read = records.read_record

        def delete_and_read(folder: int, path: str, record_type: type[Volume]) -> Volume:
            if path.startswith(entry_of(bench.pool, leaving).name):
                bench.delete(leaving)
            return read(folder, path, record_type)

        monkeypatch.setattr(records, "read_record", delete_and_read)

        rows, damaged = list_volumes(str(bench.pool))

        assert [row.volume.id for row in rows] == [staying]
        assert damaged == {}

    def test_an_empty_pool_has_headings_alone(self, tmp_path: Path) -> None:
        create_pool(tmp_path / "pool")

        assert len(succeeds("volumes", "--pool", tmp_path / "pool").splitlines()) == 1

    def test_what_is_no_pool_is_refused(self, tmp_path: Path) -> None:
        complaint = fails(FAILED, "volumes", "--pool", tmp_path)
        assert str(tmp_path) in complaint
        assert "pool.json" in complaint

        complaint = fails(FAILED, "volumes", "--pool", tmp_path / "missing")
        assert str(tmp_path / "missing") in complaint

    def test_a_list_that_is_cut_off_is_no_traceback(self, bench: Bench) -> None:
        """As by `csi-local-path volumes | head -1`."""
        reader, writer = os.pipe()
        os.close(reader)
        bench.create()
        done = csi_local_path("volumes", "--pool", bench.pool, stdout=writer)
        os.close(writer)

        assert "Traceback" not in done.stderr
