"""The driver works on volumes while their tenant swaps what is in them.

`run_confined("tests.security.races", folder, seed, rounds)` prints what was tried, and what went
wrong.
"""

import contextlib
import faulthandler
import json
import os
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import grpc
from google.protobuf.message import Message

from csi.observe.logs import configure_logging
from csi.v1 import csi_pb2 as pb
from csi.volumes import reaper
from tests.contract import requests
from tests.contract.requests import MIB, filesystem, from_snapshot, from_volume
from tests.disks import mounted_below, mounted_filesystem, release
from tests.driver import create_pool
from tests.kubelet import Kubelet
from tests.security import tenant
from tests.security.allowed import ALLOWED
from tests.security.canary import Canary
from tests.security.inside import Inside, running
from tests.security.sandbox import confine

POOL_BYTES = 8 << 30
TRASH_S, BEGINS_S = 20.0, 30.0
HANGS_S = 60.0
RETRY_S = 0.3
SWAPS_IN_PEACE_S = 0.15


class Kind(NamedTuple):
    """A sort of volume that a tenant may have."""

    capability: pb.VolumeCapability
    size: int
    parameters: Mapping[str, str]

    @property
    def is_directory(self) -> bool:
        """Whether its files lie in the pool itself."""
        return "kind" in self.parameters


KINDS = {
    "directory on btrfs": Kind(filesystem(""), 64 * MIB, {"kind": "directory", "pool": "dirs"}),
    "directory on xfs": Kind(
        filesystem(""), 64 * MIB, {"kind": "directory", "enforceSize": "false"}
    ),
    "ext4 image": Kind(filesystem("ext4"), 64 * MIB, {}),
    "xfs image": Kind(filesystem("xfs"), 300 * MIB, {}),
    "btrfs image": Kind(filesystem("btrfs"), 256 * MIB, {}),
}


class Arena:
    """The driver, its pools, what lies beside the volumes, and what has gone wrong."""

    def __init__(self, inside: Inside, folder: Path, pools: Mapping[str, Path]) -> None:
        self.inside = inside
        self.kubelet = Kubelet(folder / "kubelet")
        self.pools = pools
        self.calls: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._canaries = [Canary(folder / "canary")]
        # Another tenant's directories, on the very filesystems that the volumes are on.
        for name, kind in KINDS.items():
            if kind.is_directory:
                _, target = self.use(f"neighbour of {name}", kind)
                self._canaries.append(Canary(target / "canary"))

    def call(self, rpc: str, request: Message) -> Any:
        """Makes a call and judges its code; returns the answer, None for a refusal."""
        answer = self.inside.call(rpc, request.SerializeToString())
        self.calls[rpc] += 1
        if answer.code not in ALLOWED[rpc] | {grpc.StatusCode.FAILED_PRECONDITION}:
            self.wrong.append(f"{rpc}: {answer.code.name} {answer.message}")
        if answer.code is not grpc.StatusCode.OK:
            return None
        kind: Any = getattr(pb, f"{rpc}Response")
        return kind.FromString(answer.data)

    def use(self, name: str, kind: Kind) -> tuple[str, Path]:
        """Makes a volume and publishes it; returns its id and where it is."""
        created = self.call(
            "CreateVolume",
            requests.create_volume(
                name, size=kind.size, capabilities=[kind.capability], parameters=kind.parameters
            ),
        )
        volume_id = created.volume.volume_id
        staging = self.kubelet.staging_path(volume_id)
        target = self.kubelet.target_path(volume_id, "pod")
        self.call("NodeStageVolume", requests.stage(volume_id, staging, kind.capability))
        self.call(
            "NodePublishVolume", requests.publish(volume_id, staging, target, kind.capability)
        )
        assert target.is_mount() or kind.is_directory
        return volume_id, target

    def let_go(self, volume_id: str) -> None:
        """Unpublishes and unstages."""
        target = self.kubelet.target_path(volume_id, "pod")
        staging = self.kubelet.staging_path(volume_id)
        self.call("NodeUnpublishVolume", requests.unpublish(volume_id, target))
        self.call("NodeUnstageVolume", requests.unstage(volume_id, staging))
        left = [*mounted_below(target), *mounted_below(staging)]
        self.wrong += [f"still mounted: {path}" for path in left]

    def prey(self) -> list[str]:
        """What a tenant would like to reach, by ways that begin where his files are."""
        found = []
        for canary in self._canaries:
            found += [str(canary.root), f"{canary.root}/file", f"{canary.root}/inner"]
        for pool in self.pools.values():
            found += [str(pool), f"{pool}/pool.json", f"{pool}/volumes"]
        return [*found, "../../..", "../../../volumes", "../../../../volumes", "/", "/dev/null"]

    def look_round(self, when: str) -> None:
        """Notes what has changed beside the volumes."""
        for canary in self._canaries:
            self.wrong += [f"{when}: {canary.root}/{name}" for name in canary.touched()]


@contextlib.contextmanager
def tenant_in(volume: Path, seed: int, prey: list[str]) -> Iterator[list[str]]:
    """Lets a tenant work; gives what he has noticed, once he is gone."""
    reader, writer = os.pipe()
    noticed: list[str] = []
    process = subprocess.Popen(
        [
            *("sh", "-c", 'exec "$@" 3>&1', "sh", sys.executable, "-B", tenant.__file__),
            *(str(volume), str(seed), *prey),
        ],
        stdout=writer,
    )
    os.close(writer)
    try:
        with os.fdopen(reader) as lines:
            ready, _, _ = select.select([lines], [], [], BEGINS_S)
            began = bool(ready) and lines.readline() == "ready\n"
            assert began, "the tenant did not begin"
            yield noticed
            assert process.poll() is None, "the tenant gave up"
            process.kill()
            process.wait()
            noticed += lines.read().splitlines()
    finally:
        process.kill()
        process.wait()


def attack(arena: Arena, name: str, kind: Kind, seed: int) -> None:
    """Takes one volume through its life while its tenant is at work."""
    volume_id, target = arena.use(f"{name} {seed}", kind)
    with tenant_in(target, seed, arena.prey()) as noticed:
        work(arena, volume_id, target, kind, seed)
        if kind.is_directory:
            end(arena, volume_id)
            time.sleep(SWAPS_IN_PEACE_S)  # it is being removed
    arena.wrong += noticed
    if not kind.is_directory:  # the device of an image is the tenant's for as long as he lives
        end(arena, volume_id)
    wait_until_free(arena, kind)
    arena.look_round(f"{name} {seed}")


def work(arena: Arena, volume_id: str, target: Path, kind: Kind, seed: int) -> None:
    """Does what touches a volume while it is used."""
    time.sleep(SWAPS_IN_PEACE_S)
    arena.call("NodeGetVolumeStats", requests.stats(volume_id, target))
    for number in range(2):
        taken = arena.call(
            "CreateSnapshot", requests.create_snapshot(f"s{seed}-{number}", volume_id)
        )
        sources = [from_volume(volume_id)]
        if taken is not None:
            sources.append(from_snapshot(taken.snapshot.snapshot_id))
        for place, source in enumerate(sources):
            creation = requests.create_volume(
                f"copy{seed}-{number}-{place}",
                size=kind.size,
                capabilities=[kind.capability],
                parameters=kind.parameters,
                source=source,
            )
            copy = arena.call("CreateVolume", creation)
            if copy is not None:
                arena.call("DeleteVolume", requests.delete_volume(copy.volume.volume_id))
        if taken is not None:
            deletion = requests.delete_snapshot(taken.snapshot.snapshot_id)
            arena.call("DeleteSnapshot", deletion)
    size = kind.size + 16 * MIB
    arena.call("ControllerExpandVolume", requests.controller_expand(volume_id, size))
    arena.call("NodeExpandVolume", requests.node_expand(volume_id, target, size, kind.capability))
    arena.call("ControllerGetVolume", requests.get_volume(volume_id))
    arena.inside.driver._allowances.hold_tenants()


def end(arena: Arena, volume_id: str) -> None:
    """Takes the volume away."""
    arena.let_go(volume_id)
    arena.call("DeleteVolume", requests.delete_volume(volume_id))


def wait_until_free(arena: Arena, kind: Kind) -> None:
    """Waits until the bytes of what was deleted are free, whatever the tenant has left there."""
    pool = arena.pools[kind.parameters.get("pool", "default")]
    deadline = time.monotonic() + TRASH_S
    while left := os.listdir(pool / "trash"):
        if time.monotonic() > deadline:
            arena.wrong.append(f"the trash keeps {left}")
            break
        time.sleep(0.02)


def main() -> int:
    """Attacks as often as asked, and prints the outcome as JSON."""
    folder, seed, rounds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    confine(folder)
    configure_logging("error", "text")
    reaper._RETRY_S = RETRY_S
    faulthandler.dump_traceback_later(HANGS_S, exit=True)
    with contextlib.ExitStack() as stack:
        pools = {}
        for name, fs_type in (("default", "xfs"), ("dirs", "btrfs")):
            path = stack.enter_context(mounted_filesystem(fs_type, folder, POOL_BYTES))
            subprocess.run(["mount", "-o", "remount,strictatime", str(path)], check=True)
            create_pool(path)
            pools[name] = path
        inside = stack.enter_context(running(list(pools.items()), folder))
        stack.callback(release, folder / "kubelet")
        arena = Arena(inside, folder, pools)
        for number in range(rounds):
            for name, kind in KINDS.items():
                faulthandler.dump_traceback_later(HANGS_S, exit=True)
                attack(arena, name, kind, seed * 100_000 + number)
            if arena.wrong:
                break
    json.dump({"calls": arena.calls, "wrong": arena.wrong[:20]}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
