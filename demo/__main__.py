"""`python -m demo` takes the tour; `python -m demo --serve` leaves the driver serving."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import grpc

from demo import ground, tour
from demo.kubelet import Kubelet
from demo.steps import Tour


def main() -> int:
    """Runs the tour or serves; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--pool", default="", help="a pool to use (default: one for this run)")
    parser.add_argument("--serve", action="store_true", help="serve until stopped")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("The driver mounts filesystems: run this as root.", file=sys.stderr)
        return 1
    try:
        with ground.pool(arguments.pool) as pool:
            return _serve(pool) if arguments.serve else _take_tour(pool)
    except ground.DemoError as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
    except grpc.RpcError as error:
        print(f"\nThe demo failed: {error.code().name}: {error.details()}", file=sys.stderr)
    return 1


def _take_tour(pool: Path) -> int:
    start = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="csi-demo-kubelet-"))
    guide = Tour()
    print(f"The pool is {pool}")
    try:
        with ground.driver(pool, folder / "driver.log") as services:
            kubelet = Kubelet(services, folder)
            try:
                for fs_type in ("xfs", "btrfs", "ext4"):
                    tour.filesystem_volume(guide, kubelet, fs_type)
                tour.block_volume(guide, kubelet)
                tour.inline_volume(guide, kubelet)
            finally:
                kubelet.clean_up()
    finally:
        left = ground.still_attached(pool) + ground.still_attached(folder)
        if not left:  # what is still mounted there must not be deleted from within
            shutil.rmtree(folder, ignore_errors=True)
    if left:
        raise ground.DemoError(f"still mounted or attached: {', '.join(left)}")
    print(
        f"\n{guide.count} steps in {time.monotonic() - start:.1f} s; "
        "nothing is left mounted, attached or on disk."
    )
    return 0


def _serve(pool: Path) -> int:
    folder = Path(tempfile.mkdtemp(prefix="csi-demo-"))
    endpoint = f"unix://{folder}/csi.sock"
    print(f"Serving the pool {pool} at {endpoint}; Ctrl-C stops it.")
    try:
        return ground.serve(pool, endpoint)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
