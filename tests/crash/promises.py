"""What a pool can still promise, computed from what lies in it and from nothing the driver says.

On purpose it shares no code with the driver's ledger.
"""

import json
import os
from pathlib import Path
from typing import Any

from tests.contract.node_fixtures import run

MIB = 1 << 20


def promised_by_records(pool: Path) -> int:
    """Returns the bytes that one more volume can be promised, by records and allocated blocks."""
    promised = outstanding = 0
    groups = _charged(pool) if _is_btrfs(pool) else {}
    for folder in ("volumes", "snapshots"):
        for path in (pool / folder).glob("*/record.json"):
            record = json.loads(path.read_bytes())
            count = _volume if folder == "volumes" else _snapshot
            whole, taken, backed = count(path.parent, record, groups)
            promised += whole
            outstanding += max(0, whole - taken) if backed else 0
    status = os.statvfs(pool)
    total = status.f_blocks * status.f_frsize
    margin = max(16 * MIB, min(1024 * MIB, total // 100))
    free = status.f_bavail * status.f_frsize - outstanding - margin
    available = max(0, min(total - promised, free))
    return available - available % 4096


def _volume(entry: Path, record: dict[str, Any], groups: dict[int, int]) -> tuple[int, int, bool]:
    borrowed = record.get("borrowed_bytes", 0)
    if record["kind"] == "directory":
        group = record.get("quota_group", 0)
        return record["size_bytes"] + borrowed, groups.get(group, 0), group != 0
    return record["size_bytes"], max(0, _blocks(entry) - borrowed), True


def _snapshot(entry: Path, record: dict[str, Any], groups: dict[int, int]) -> tuple[int, int, bool]:
    del groups
    shared = record.get("shared", True)
    return record.get("held_bytes", 0), 0 if shared else _blocks(entry), True


def _blocks(entry: Path) -> int:
    # What growth leaves beside it that was cut off is on the disk, and no block of the volume.
    image = entry / "disk.img"
    partial = entry / "disk.img.partial"
    return (image if image.exists() else partial).stat().st_blocks * 512


def _is_btrfs(pool: Path) -> bool:
    return run("stat", "--file-system", "--format=%T", str(pool)).strip() == "btrfs"


def _charged(pool: Path) -> dict[int, int]:
    """What each quota group of level 1 is charged for."""
    charged = {}
    for line in run("btrfs", "qgroup", "show", "--raw", str(pool)).splitlines():
        words = line.split()
        if words and words[0].startswith("1/"):
            charged[int(words[0].partition("/")[2])] = int(words[1])
    return charged
