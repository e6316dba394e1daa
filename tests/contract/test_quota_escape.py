"""A tenant who tries to get out of his directory's limit, or to fill a stranger's."""

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from ctypes import addressof, create_string_buffer
from pathlib import Path

import pytest

import tests.driver
from tests.contract.bench import Bench, wait_until
from tests.contract.command import hurried
from tests.contract.node_fixtures import fill, run
from tests.contract.requests import MIB, filesystem
from tests.driver import running_driver
from tests.kubelet import Kubelet

pytestmark = pytest.mark.kernel

ANY = filesystem("")
SIZE = 32 * MIB

# linux/btrfs.h: struct btrfs_ioctl_vol_args_v2 and struct btrfs_qgroup_inherit.
_SUBVOL_CREATE_V2 = 0x50009418
_QGROUP_INHERIT = 1 << 2
_ARGUMENT_BYTES, _NAME_AT = 4096, 56
_INHERIT_BYTES = 72
_LEVEL_1 = 1 << 48


@pytest.fixture
def bench(btrfs_pool: Path, tmp_path: Path) -> Iterator[Bench]:
    """A bench whose driver looks after its quota groups every tenth of a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tests.driver, "COMMAND", hurried("_SWEEP_EVERY_S", 0.1))
        with running_driver(btrfs_pool, tmp_path) as driver:
            bench = Bench(driver, Kubelet(tmp_path / "kubelet"), btrfs_pool)
            yield bench
            bench.clean_up()


def _directory(bench: Bench) -> str:
    volume = bench.create(size=SIZE, capability=ANY, parameters={"kind": "directory"})
    return volume.volume_id


def _create_subvolume(parent: Path, name: str, *groups: int) -> Path:
    """Makes a subvolume that belongs to the named groups and no others; anybody may."""
    inherit = create_string_buffer(
        struct.pack("=4Q5Q", 0, len(groups), 0, 0, *[0] * 5)
        + struct.pack(f"={len(groups)}Q", *groups)
    )
    argument = bytearray(_ARGUMENT_BYTES)
    size = _INHERIT_BYTES + 8 * len(groups)
    struct.pack_into("=qQQQQ", argument, 0, 0, 0, _QGROUP_INHERIT, size, addressof(inherit))
    argument[_NAME_AT : _NAME_AT + len(name)] = name.encode()
    descriptor = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(descriptor, _SUBVOL_CREATE_V2, argument)
    finally:
        os.close(descriptor)
    return parent / name


def _group_of(target: Path) -> int:
    return _LEVEL_1 | int(run("btrfs", "inspect-internal", "rootid", str(target)))


def test_a_subvolume_without_a_group_is_charged_soon(bench: Bench) -> None:
    volume_id = _directory(bench)
    with bench.used(volume_id, ANY) as target:
        outside = _create_subvolume(target, "outside")

        def is_held() -> bool:
            return _takes_no_more(outside, SIZE)

        wait_until(is_held, "that writing outside of the limit was refused")


def test_a_stranger_cannot_be_charged_for_long(bench: Bench) -> None:
    victim, tenant = _directory(bench), _directory(bench)
    with bench.used(victim, ANY) as target, bench.used(tenant, ANY) as attacker:
        strange = _create_subvolume(attacker, "strange", _group_of(target))
        fill(strange / "ballast")

        def has_room() -> bool:
            (target / "file").unlink(missing_ok=True)
            written, _ = _write(target / "file", SIZE // 2)
            return written == SIZE // 2

        wait_until(has_room, "that the stranger had his room back")


def _takes_no_more(folder: Path, size: int) -> bool:
    """Whether a write ends with EDQUOT before it has gone twice over the size."""
    written, number = _write(folder / "ballast", 2 * size)
    (folder / "ballast").unlink(missing_ok=True)
    run("btrfs", "filesystem", "sync", str(folder))
    return number == errno.EDQUOT and written <= size


def _write(path: Path, length: int) -> tuple[int, int]:
    """Writes so much, or what is taken; returns that and the errno."""
    written = 0
    try:
        with path.open("wb", buffering=0) as file:
            while written < length:
                written += file.write(os.urandom(MIB))
            os.fsync(file.fileno())
    except OSError as error:
        return written, error.errno or 0
    return written, 0
