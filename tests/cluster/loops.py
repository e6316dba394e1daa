"""Loop devices of a machine, told from all others of the host, which shares them.

A loop device on a file of a pool keeps that pool's filesystem alive after the last mount has gone,
and the pool's own loop device with it. A real machine that loses power loses them too; here they
have to be detached by hand, and never one that is somebody else's. Their paths do not tell, since
each node has its pool at the same place; the device that the file lies on does.
"""

import json
import os
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.errors import ClusterError
from tests.cluster.waiting import wait_until

DETACH_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Loop:
    """An attached loop device.

    Attributes:
        name: Its path, such as `/dev/loop3`.
        device: Its own number, `major:minor`.
        backing_file: The path of its file now: another one once its filesystem is mounted nowhere
            any more, so it does not tell one device from another.
        backing_device: The number of the device that the file lies on.
        backing_inode: The file's number there.
        node: The two numbers of its own file below /dev, as if that were backing another.
    """

    name: str
    device: str
    backing_file: str = field(compare=False)
    backing_device: str
    backing_inode: int
    node: tuple[str, int]


def read_loops() -> list[Loop]:
    """All loop devices of the host that are attached."""
    columns = "NAME,MAJ:MIN,BACK-FILE,BACK-MAJ:MIN,BACK-INO"
    done = subprocess.run(
        ["losetup", "--list", "--json", "--output", columns],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if done.returncode != 0:
        raise ClusterError(f"losetup failed: {done.stderr.strip()}")
    return parse_loops(done.stdout, _node)


def parse_loops(text: str, node_of: Callable[[str], tuple[str, int]]) -> list[Loop]:
    """Reads what `losetup --list --json` printed, which may be nothing where there are none."""
    rows = json.loads(text)["loopdevices"] if text.strip() else []
    return [
        Loop(
            name=str(row["name"]),
            device=_number(row["maj:min"]),
            backing_file=str(row["back-file"] or "").removesuffix(" (deleted)"),
            backing_device=_number(row["back-maj:min"]),
            backing_inode=int(row["back-ino"] or 0),
            node=node_of(str(row["name"])),
        )
        for row in rows
    ]


def loops_below(loops: Iterable[Loop], folder: Path, pool_devices: Iterable[str]) -> list[Loop]:
    """The loop devices on files below a folder, and those that stand on what these hold.

    Args:
        loops: All that are attached.
        folder: The folder that has the images of pools.
        pool_devices: Numbers of the filesystems of those pools, which for btrfs cannot be told
            from the loop device's. They count only while an image of the folder is attached:
            afterwards the kernel may have given them to somebody else.

    Returns:
        They, those on top first, as they have to be detached.
    """
    every = list(loops)
    found = [loop for loop in every if Path(loop.backing_file).is_relative_to(folder)]
    if not found:
        return []
    devices = set(pool_devices) | {loop.device for loop in found}
    while True:
        nodes = {loop.node for loop in found}
        more = [
            loop
            for loop in every
            if loop not in found
            # The kubelet puts a loop device of its own onto each block volume's.
            and (
                loop.backing_device in devices or (loop.backing_device, loop.backing_inode) in nodes
            )
        ]
        if not more:
            return found[::-1]
        found += more
        devices |= {loop.device for loop in more}


def detach(loops: Iterable[Loop]) -> None:
    """Detaches loop devices and waits until they are.

    Raises:
        ClusterError: One is still in use.
    """
    left = list(loops)
    for loop in left:
        # Many go by themselves with the last mount, and the number is then free for somebody else.
        if loop in read_loops():
            subprocess.run(
                ["losetup", "--detach", loop.name], capture_output=True, timeout=30, check=False
            )
    names = ", ".join(sorted(loop.name for loop in left))
    wait_until(
        lambda: not set(left).intersection(read_loops()),
        DETACH_TIMEOUT_S,
        f"{names} to be detached",
    )


def filesystem_device(path: str) -> str:
    """The number of the device that a path lies on, `major:minor`."""
    device = os.stat(path).st_dev
    return f"{os.major(device)}:{os.minor(device)}"


def _node(path: str) -> tuple[str, int]:
    return filesystem_device(path), os.stat(path).st_ino


def _number(text: object) -> str:
    # losetup pads it to columns.
    return str(text or "").replace(" ", "")
