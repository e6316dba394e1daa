"""What changed between two snapshots of a volume in use, as a backup would ask for it.

Kubernetes' sidecar for it, external-snapshot-metadata, cannot be had from every module proxy. A
program of ours beside the driver asks the same of the same socket in its place.
"""

import json

from tests.cluster.cases.driver import driver_on
from tests.cluster.cases.namespaces import Namespace
from tests.cluster.cases.objects import Use, claim, pod, shipped_class, snapshot

BLOCK = 4096
SIZE_MIB = 64
# In blocks: what the first snapshot holds, and what is written after it.
OLD = range(1024, 1024 + 2048)
NEW = (range(1), range(1500, 1516), range(8000, 8256))
_SIDECAR = """
import json, sys
import grpc
from csi.v1 import csi_pb2, csi_pb2_grpc

stub = csi_pb2_grpc.SnapshotMetadataStub(grpc.insecure_channel("unix:///csi/csi.sock"))
base, target = sys.argv[1:]
if base:
    request = csi_pb2.GetMetadataDeltaRequest(base_snapshot_id=base, target_snapshot_id=target)
    stream = stub.GetMetadataDelta(request, timeout=60)
else:
    request = csi_pb2.GetMetadataAllocatedRequest(snapshot_id=target)
    stream = stub.GetMetadataAllocated(request, timeout=60)
ranges = [[each.byte_offset, each.size_bytes] for part in stream for each in part.block_metadata]
print(json.dumps(ranges))
"""


def test_the_blocks_that_were_written_between_two_snapshots_are_told(namespace: Namespace) -> None:
    device = Use("data", "/dev/data", block=True)
    of_block = claim("data", shipped_class("ext4"), f"{SIZE_MIB}Mi", block=True)
    namespace.start(pod("writer", device), of_block)
    _write(namespace, OLD)
    _take(namespace, "first")
    for blocks in NEW:
        _write(namespace, blocks)
    _take(namespace, "second")

    first, second = (_handle(namespace, name) for name in ("first", "second"))
    assert _told(namespace, "", first) == set(OLD)
    assert _told(namespace, first, second) == {block for blocks in NEW for block in blocks}
    assert _told(namespace, "", second) == set(OLD).union(*NEW)


def _write(namespace: Namespace, blocks: range) -> None:
    where = f"bs={BLOCK} seek={blocks.start} count={len(blocks)}"
    namespace.shell("writer", f"dd if=/dev/urandom of=/dev/data {where} conv=notrunc,fsync")


def _take(namespace: Namespace, name: str) -> None:
    namespace.apply(snapshot(name, of_claim="data"))
    namespace.wait_snapshots(name)


def _handle(namespace: Namespace, name: str) -> str:
    """How the driver calls a snapshot."""
    content = namespace.get("volumesnapshot", name)["status"]["boundVolumeSnapshotContentName"]
    status = namespace.kubectl.get("volumesnapshotcontent", content)["status"]
    return str(status["snapshotHandle"])


def _told(namespace: Namespace, base: str, target: str) -> set[int]:
    """The blocks that the driver names."""
    driver = driver_on(namespace.kubectl, namespace.get("pod", "writer")["spec"]["nodeName"])
    ranges = json.loads(driver.run("python3", "-c", _SIDECAR, base, target))
    assert all(offset % BLOCK == 0 == size % BLOCK for offset, size in ranges)
    return {
        block
        for offset, size in ranges
        for block in range(offset // BLOCK, (offset + size) // BLOCK)
    }
