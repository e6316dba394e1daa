"""The parameter mkfsOptions: what it asks for is in the filesystem, and nothing else is."""

import pytest

from tests.contract.bench import Bench
from tests.contract.every_rpc import nothing_changes
from tests.contract.node_fixtures import image_of, run
from tests.contract.refusals import Code, refused
from tests.contract.requests import LEAST_BYTES, MIB, filesystem, from_volume, raw_block

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize(
    ("fs_type", "options", "look", "shown"),
    [
        ("ext4", "-i 65536 -I 512 -m 5 -O fast_commit", ["dumpe2fs", "-h"], "fast_commit"),
        ("ext4", "-I 512", ["dumpe2fs", "-h"], "Inode size:	          512"),
        ("xfs", "-m reflink=0 -i size=1024", ["xfs_db", "-r", "-c", "info"], "isize=1024"),
        ("btrfs", "-n 32768 -m single", ["btrfs", "inspect-internal", "dump-super"], "32768"),
    ],
)
def test_what_is_asked_for_is_in_the_filesystem(
    bench: Bench, fs_type: str, options: str, look: list[str], shown: str
) -> None:
    capability = filesystem(fs_type)
    volume_id = bench.create(
        size=LEAST_BYTES[fs_type], capability=capability, parameters={"mkfsOptions": options}
    ).volume_id

    assert shown in run(*look, str(image_of(bench.pool, volume_id)))
    with bench.used(volume_id, capability) as target:
        (target / "file").write_bytes(b"written")


@pytest.mark.parametrize(
    ("fs_type", "options", "named"),
    [
        ("ext4", "-L label", "'-L'"),
        ("xfs", "-p /etc/passwd", "'-p'"),
        ("btrfs", "-i 65536", "'-i'"),
        ("xfs", "-d agcount=999", "agsize"),  # on the list, and more than mkfs can do here
    ],
)
def test_what_cannot_be_had_is_refused(
    bench: Bench, fs_type: str, options: str, named: str
) -> None:
    with nothing_changes(bench.pool), refused(Code.INVALID_ARGUMENT, "mkfsOptions", named):
        bench.create(
            size=LEAST_BYTES[fs_type],
            capability=filesystem(fs_type),
            parameters={"mkfsOptions": options},
        )


def test_there_is_nothing_to_make_in_a_block_device_or_a_directory(bench: Bench) -> None:
    options = {"mkfsOptions": "-i 65536"}
    with refused(Code.INVALID_ARGUMENT, "mkfsOptions"):
        bench.create(size=MIB, capability=raw_block(), parameters=options)
    with refused(Code.INVALID_ARGUMENT, "mkfsOptions"):
        bench.create(
            capability=filesystem(""),
            parameters={**options, "kind": "directory", "enforceSize": "false"},
        )


def test_a_repeated_create_compares_them(bench: Bench) -> None:
    name, options = bench.name(), {"mkfsOptions": "-i  65536"}
    volume = bench.create(name, parameters=options)

    assert bench.create(name, parameters={"mkfsOptions": "-i 65536"}) == volume
    with refused(Code.ALREADY_EXISTS, name):
        bench.create(name, parameters={"mkfsOptions": "-i 16384"})


def test_a_copy_keeps_the_filesystem_of_its_source(bench: Bench) -> None:
    source = bench.create(parameters={"mkfsOptions": "-I 512"}).volume_id

    copy = bench.create(source=from_volume(source)).volume_id

    assert "512" in run("dumpe2fs", "-h", str(image_of(bench.pool, copy))).split("Inode size:")[1]
