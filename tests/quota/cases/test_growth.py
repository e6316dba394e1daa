"""ext4 grows while it is mounted: the guest's root may do that, unlike that of many a container."""

import os
from pathlib import Path

import pytest

from tests.contract import requests
from tests.contract.bench import Bench
from tests.contract.requests import MIB, filesystem
from tests.quota.cases.tenant import size_shown

SIZE = 64 * MIB


@pytest.mark.parametrize("by", ["controller", "node"])
def test_a_mounted_ext4_grows(bench: Bench, by: str) -> None:
    """The controller may have made room before, or leave all of it to the node."""
    ext4 = filesystem("ext4")
    volume_id = bench.create(size=SIZE, capability=ext4).volume_id
    with bench.used(volume_id, ext4) as target:
        assert size_shown(target) < SIZE
        (target / "file").write_bytes(os.urandom(MIB))
        before = (target / "file").read_bytes()
        if by == "controller":
            answer = bench.driver.controller.ControllerExpandVolume(
                requests.controller_expand(volume_id, 4 * SIZE)
            )
            assert answer.node_expansion_required
            assert size_shown(target) < SIZE

        grown = bench.driver.node.NodeExpandVolume(
            requests.node_expand(volume_id, target, 4 * SIZE)
        )

        assert grown.capacity_bytes == 4 * SIZE
        assert 3 * SIZE < size_shown(target) <= 4 * SIZE
        assert (target / "file").read_bytes() == before
        _fill(target / "more", 3 * SIZE)


def _fill(path: Path, size: int) -> None:
    """Writes more than the filesystem held before."""
    with path.open("wb") as file:
        for _ in range(size // MIB):
            file.write(b"x" * MIB)
        file.flush()
        os.fsync(file.fileno())
