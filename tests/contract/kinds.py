"""A volume of each kind in use, with data in it, and the kubelet that forgets them all."""

import shutil
from pathlib import Path
from typing import NamedTuple

from csi.v1 import csi_pb2 as pb
from tests.contract.bench import Bench, write_synced
from tests.contract.node_fixtures import mounts_below, run
from tests.contract.requests import LEAST_BYTES, MIB, filesystem, raw_block

DATA = b"from before"


class Kind(NamedTuple):
    """A sort of volume."""

    size: int
    capability: pb.VolumeCapability
    parameters: dict[str, str]


KINDS = {
    "ext4": Kind(LEAST_BYTES["ext4"], filesystem("ext4"), {}),
    "xfs": Kind(LEAST_BYTES["xfs"], filesystem("xfs"), {}),
    "block": Kind(8 * MIB, raw_block(), {}),
    "directory": Kind(32 * MIB, filesystem(""), {"kind": "directory"}),
}


def file_of(target: Path) -> Path:
    """Where data goes: into a file, or onto the device itself."""
    return target / "file" if target.is_dir() else target


def use_all(bench: Bench) -> dict[str, str]:
    """A volume of each kind, in use, with data."""
    volumes = {}
    for name, kind in KINDS.items():
        volumes[name] = bench.create(
            size=kind.size, capability=kind.capability, parameters=kind.parameters
        ).volume_id
        write_synced(file_of(bench.use(volumes[name], kind.capability)), DATA)
    return volumes


def wipe(bench: Bench) -> None:
    """Unmounts all that the kubelet has and removes its folder, as one does to start afresh."""
    for mount in reversed(mounts_below(bench.kubelet.directory)):
        run("umount", mount.path)
    shutil.rmtree(bench.kubelet.directory)
