"""maxVolumesPerNode: how many volumes a node may have."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from csi.v1 import csi_pb2 as pb
from tests.contract import requests
from tests.contract.bench import Bench
from tests.contract.refusals import Code, as_call, refused
from tests.driver import NODE_ID, running_driver
from tests.kubelet import Kubelet

pytestmark = pytest.mark.kernel

LIMIT = 3
LIMITED = f"""\
apiVersion: local-path.csi.dev/v1
kind: DriverConfiguration
maxVolumesPerNode: {LIMIT}
"""


@pytest.fixture(scope="module")
def limited(ext4_pool: Path, folder: Path) -> Iterator[Bench]:
    place = folder / "limited"
    place.mkdir()
    with running_driver(ext4_pool, place, config=LIMITED) as driver:
        yield Bench(driver, Kubelet(place), ext4_pool)


@pytest.fixture
def volume_ids(limited: Bench) -> Iterator[list[str]]:
    yield [limited.create().volume_id for _ in range(3 * LIMIT)]
    limited.clean_up()


def test_the_node_tells_it(limited: Bench) -> None:
    answer = limited.driver.node.NodeGetInfo(pb.NodeGetInfoRequest())

    assert answer.max_volumes_per_node == LIMIT


def test_one_more_is_refused_until_another_is_taken_back(
    limited: Bench, volume_ids: list[str]
) -> None:
    for volume_id in volume_ids[:LIMIT]:
        attach(limited, volume_id)

    with refused(Code.RESOURCE_EXHAUSTED, NODE_ID, str(LIMIT)):
        attach(limited, volume_ids[LIMIT])
    attach(limited, volume_ids[0])  # a repeat takes no more room
    assert not has(limited, volume_ids[LIMIT])

    detach(limited, volume_ids[0])
    attach(limited, volume_ids[LIMIT])


def test_many_at_once_never_exceed_it(limited: Bench, volume_ids: list[str]) -> None:
    def try_to_attach(volume_id: str) -> str:
        try:
            attach(limited, volume_id)
        except grpc.RpcError as error:
            return as_call(error).code().name
        return "OK"

    for _ in range(10):
        with ThreadPoolExecutor(len(volume_ids)) as threads:
            answers = list(threads.map(try_to_attach, volume_ids))
        assert answers.count("OK") == LIMIT
        assert set(answers) == {"OK", "RESOURCE_EXHAUSTED"}
        for volume_id in volume_ids:
            detach(limited, volume_id)


def attach(bench: Bench, volume_id: str) -> None:
    bench.driver.controller.ControllerPublishVolume(requests.controller_publish(volume_id))


def detach(bench: Bench, volume_id: str) -> None:
    bench.driver.controller.ControllerUnpublishVolume(requests.controller_unpublish(volume_id))


def has(bench: Bench, volume_id: str) -> bool:
    answer = bench.driver.controller.ControllerGetVolume(requests.get_volume(volume_id))
    return NODE_ID in answer.status.published_node_ids
