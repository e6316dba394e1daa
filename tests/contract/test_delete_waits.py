"""A delete that comes while its volume is still staged: Kubernetes does both at the same time."""

import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from csi.volumes.releases import LONGEST_S
from tests.contract.bench import Bench
from tests.contract.refusals import Code, refused

pytestmark = pytest.mark.kernel


def test_a_delete_waits_for_the_unstage_that_is_on_its_way(bench: Bench) -> None:
    volume_id = bench.create().volume_id
    bench.use(volume_id)
    with ThreadPoolExecutor(1) as kubernetes:
        deleted = kubernetes.submit(bench.delete, volume_id)
        time.sleep(0.2)
        assert not deleted.done()
        # Others are served, the volume itself included: nothing is locked.
        bench.delete(bench.create("another").volume_id)
        bench.release(volume_id)
        deleted.result(timeout=5)


def test_it_does_not_wait_for_long(bench: Bench) -> None:
    volume_id = bench.create().volume_id
    bench.use(volume_id)
    start = time.monotonic()
    with refused(Code.FAILED_PRECONDITION, volume_id, "unstage"):
        bench.delete(volume_id)
    assert LONGEST_S <= time.monotonic() - start < LONGEST_S + 2
    bench.release(volume_id)
    start = time.monotonic()
    bench.delete(volume_id)
    assert time.monotonic() - start < LONGEST_S / 2


def test_twenty_deletes_and_unstages_at_once_all_succeed(bench: Bench) -> None:
    volumes = [bench.create().volume_id for _ in range(20)]
    for volume_id in volumes:
        bench.use(volume_id)
    with ThreadPoolExecutor(2 * len(volumes)) as kubernetes:
        deletes = [kubernetes.submit(_delete_until_done, bench, each) for each in volumes]
        releases = [kubernetes.submit(bench.release, volume_id) for volume_id in volumes]
        for each in (*releases, *deletes):
            each.result(timeout=60)


def _delete_until_done(bench: Bench, volume_id: str) -> None:
    # On a machine that is busy an unstage takes longer than a delete waits: the provisioner, too,
    # then asks again.
    deadline = time.monotonic() + 30
    while True:
        try:
            return bench.delete(volume_id)
        except grpc.RpcError as error:
            again = error.code() in {Code.ABORTED, Code.FAILED_PRECONDITION}
            if not again or time.monotonic() > deadline:
                raise
        time.sleep(0.1)
