"""Records on disk as older drivers wrote them: they are read for as long as their pools live."""

import json
from typing import Any

import msgspec

from csi.model import Kind, Volume
from csi.pool.records import decode_record

GROUP = 259


def _of_a_directory(**fields: object) -> dict[str, Any]:
    """What the driver wrote for a directory on btrfs before xfs and ext4 could limit any."""
    return {
        "version": 1,
        "id": "vol-000000000000-00000000000000000000000000000000-0000000000",
        "name": "pvc-1",
        "created_ns": 1,
        "kind": "directory",
        "access": "filesystem",
        "size_bytes": 1 << 30,
        "parameters": {"kind": "directory"},
        "capabilities": [{"access": "filesystem", "mode": "SINGLE_NODE_WRITER"}],
        **fields,
    }


def test_what_a_directory_is_limited_under_is_read_and_written_by_its_first_name() -> None:
    record = _of_a_directory(quota_group=GROUP)

    volume = decode_record(json.dumps(record).encode(), Volume)

    assert volume.kind is Kind.DIRECTORY
    assert volume.quota_number == GROUP
    assert json.loads(msgspec.json.encode(volume)) == record


def test_a_directory_without_a_limit_has_no_number() -> None:
    volume = decode_record(json.dumps(_of_a_directory()).encode(), Volume)

    assert volume.quota_number == 0
    assert "quota_group" not in json.loads(msgspec.json.encode(volume))
